"""Decoding of image and mask files."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, JpegImagePlugin

from dropzoo.common import tiff
from dropzoo.common.images import PNG, orientation_in, png_exif, unreadable, upright
from dropzoo.common.tiff import arranged, as_turned, check_whole

TIFF_SUFFIXES = {".tif", ".tiff"}
ARRAY_SUFFIXES = {".npy", ".npz"}
_OTHERS = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
IMAGE_SUFFIXES = _OTHERS | TIFF_SUFFIXES | ARRAY_SUFFIXES
JPEG, BMP, GIF = b"\xff\xd8", b"BM", b"GIF8"
_DECODED_BY_TENSORFLOW = (JPEG, PNG, BMP, GIF)


def read_images(
    paths: list[Path], num_channels: int | None = None, value_range: tuple[float, float] | None = None
) -> list[np.ndarray]:
    """Reads images that have the same number of channels.

    Args:
        paths: The files.
        num_channels: 1, 3 or None. The number of channels of all images if grey and RGB images are mixed.
        value_range: The stored values that become 0 and 1. None is for uint8, uint16 and floats in [0, 1].

    Returns:
        Arrays `(height, width, channels)` of one number type: uint8, uint16, or float32 in [0, 1].

    Raises:
        ValueError: If a file cannot be read, or the numbers of channels differ.
    """
    images = [usual(read_image(path), path, value_range) for path in paths]
    mixed = {image.shape[2] for image in images} == {1, 3}
    if mixed and num_channels:
        images = [with_channels(image, num_channels) for image in images]
    for path, image in zip(paths, images, strict=True):
        if image.shape[2] != images[0].shape[2]:
            raise other_channels(paths[0], images[0].shape[2], path, image.shape[2], mixed)
    if len({image.dtype for image in images}) > 1:
        images = [as_fractions(image) for image in images]
    return images


def other_channels(first: Path, channels: int, path: Path, other: int, mixed: bool) -> ValueError:
    """Returns the error for images of several numbers of channels."""
    advice = ". To convert all of them to grey or RGB, pass `num_channels` (--channels), 1 or 3" if mixed else ""
    return ValueError(
        f"All images must have the same number of channels. Received: {first} with {channels} and {path} with "
        f"{other}{advice}"
    )


def with_channels(image: np.ndarray, num_channels: int) -> np.ndarray:
    """Returns a grey or RGB image with 1 or 3 channels."""
    if image.shape[2] == num_channels:
        return image
    change = tf.image.rgb_to_grayscale if num_channels == 1 else grey_to_rgb
    return change(tf.constant(image)).numpy()


def as_fractions(image: np.ndarray) -> np.ndarray:
    """Returns an image as float32 in [0, 1]."""
    return image / np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)


def grey_to_rgb(image: tf.Tensor) -> tf.Tensor:
    """Returns a grey image as RGB, also one of 16 bits, which `tf.image.grayscale_to_rgb` does not take."""
    return tf.concat([image] * 3, -1)


def read_image(path: Path, page: int | None = None) -> np.ndarray:
    """Reads an image as it is shown, `(height, width, channels)` without alpha, in the type of its file."""
    return _named(_image, path, page)


def read_mask(path: Path, page: int | None = None) -> np.ndarray:
    """Reads the numbers that a mask stores, `(height, width, channels)`, upright, even indices of palettes."""
    return _named(_stored, path, page)


def read_alpha(path: Path) -> np.ndarray | None:
    """Returns the alpha channel of a file, `(height, width)`, upright, or None if it has none."""
    if path.suffix.lower() in TIFF_SUFFIXES | ARRAY_SUFFIXES:
        return None
    with Image.open(path) as image:
        alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() else None
    return None if alpha is None else upright(alpha, orientation_of(path))


def _named(read: Callable[[Path, int | None], np.ndarray], path: Path, page: int | None) -> np.ndarray:
    """Reads a file; an error names it."""
    try:
        return read(path, page)
    except Exception as error:
        raise unreadable(path, error) from error


def _image(path: Path, page: int | None) -> np.ndarray:
    pixels = _special(path, page, is_mask=False)
    if pixels is not None:
        return pixels
    data = path.read_bytes()
    if data.startswith(BMP):
        with Image.open(path) as image:
            if image.mode == "P":  # TensorFlow would return the indices of the palette
                return np.asarray(image.convert("RGB"))
    if data.startswith(_DECODED_BY_TENSORFLOW) and not _is_bitmap_of_few_bits(data):
        pixels = _by_tensorflow(data)
    else:
        pixels = by_pillow(path)
    return upright(without_alpha(pixels), stated_orientation(io.BytesIO(data)))


def orientation_of(path: Path) -> int:
    """Returns the orientation that a JPEG, PNG or TIFF file states, from 1 to 8; 1, upright, for others."""
    if path.suffix.lower() in TIFF_SUFFIXES:
        with tifffile.TiffFile(path) as file:
            return tiff.orientation_of(file.pages[0])
    with path.open("rb") as opened:
        return stated_orientation(opened)


def stated_orientation(file: BinaryIO) -> int:
    """Returns the EXIF orientation of an open JPEG or PNG file; 1, upright, for others."""
    file.seek(0)
    start = file.read(len(PNG))
    if start.startswith(PNG):
        return orientation_in(png_exif(file))
    file.seek(0)
    return orientation_in(JpegImagePlugin.JpegImageFile(file).info.get("exif")) if start.startswith(JPEG) else 1


def _stored(path: Path, page: int | None) -> np.ndarray:
    pixels = _special(path, page, is_mask=True)
    return upright(_numbers(path), orientation_of(path)) if pixels is None else pixels


def _numbers(path: Path) -> np.ndarray:
    """The numbers that a file stores, other than TIFF or NumPy."""
    with path.open("rb") as file:
        header = file.read(33)
    if header.startswith(PNG) and header[25:26] == b"\x03":
        # The ids are the indices of the palette; TensorFlow would return its colours.
        with Image.open(path) as image:
            return np.asarray(image)[..., None]
    if header.startswith(PNG) and header[25:26] == b"\x00" and header[24] < 8:
        # Decoders spread the ids 0 to 15 over 0 to 255.
        scale = 255 // (2 ** header[24] - 1)
        return _by_tensorflow(path.read_bytes()) // np.uint8(scale)
    data = path.read_bytes()
    if data.startswith(_DECODED_BY_TENSORFLOW) and not (data.startswith(BMP) and data[28] < 8):
        return without_alpha(_by_tensorflow(data))
    return without_alpha(by_pillow(path, palette=False))


def _special(path: Path, page: int | None, is_mask: bool) -> np.ndarray | None:
    """Reads a TIFF or NumPy file; returns None for other files."""
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return read_tiff(path, is_mask, page)
    if suffix in ARRAY_SUFFIXES:
        array = single_array(path)
        pixels = np.array(channels_last(array) if page is None else array[page])
        return pixels[..., None] if pixels.ndim == 2 else pixels
    return None


def single_array(path: Path) -> np.ndarray:
    """Returns the array of a `.npy` file, which is read only where it is used, or of an `.npz` file of one."""
    if path.suffix.lower() == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        with np.load(path, allow_pickle=False) as file:
            if len(file.files) != 1:
                raise ValueError(f"expected one array in the file, received {', '.join(file.files)}")
            array = file[file.files[0]]
    if array.ndim not in (2, 3):
        raise ValueError(f"expected an array (height, width) or (height, width, channels), received {array.shape}")
    return array


def channels_last(array: np.ndarray) -> np.ndarray:
    """Returns an array `(height, width, channels)`; PyTorch stores 1, 3 or 4 channels first."""
    is_first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and min(array.shape[1:]) > 4
    return np.moveaxis(array, 0, -1) if is_first else array


def _by_tensorflow(data: bytes) -> np.ndarray:
    # Byte 24 of a PNG holds the bits of a sample.
    dtype = tf.uint16 if data.startswith(PNG) and data[24] == 16 else tf.uint8
    return tf.io.decode_image(data, dtype=dtype, expand_animations=False).numpy()


def by_pillow(path: Path, palette: bool = True, page: int | None = None) -> np.ndarray:
    """Reads a file with Pillow, which knows more formats than TensorFlow; with `palette`, all colours as RGB."""
    with Image.open(path) as image:
        if page is not None:
            image.seek(page)
        if image.mode in ("P", "CMYK") and palette:
            image = image.convert("RGB")
        pixels = np.asarray(image)
        if image.mode == "1":
            pixels = pixels.astype(np.uint8) * np.uint8(255 if palette else 1)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _is_bitmap_of_few_bits(data: bytes) -> bool:
    return data.startswith(BMP) and data[28] not in (8, 24, 32)


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """Returns an image of 2 or 4 channels without the last."""
    return pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels


def read_tiff(path: Path, is_mask: bool, page: int | None = None) -> np.ndarray:
    """Reads a TIFF file, or one page of a stack."""
    with tifffile.TiffFile(path) as file:
        check_whole(file)
        series = file.series[0]
        first: Any = file.pages[0]
        try:
            pixels = series.asarray()
        except ValueError as error:  # a compression for which tifffile needs imagecodecs
            if "imagecodecs" not in str(error):
                raise
            return as_turned(_compressed_tiff(path, is_mask, page), file.pages[page or 0])
        if page is not None:
            stack = stack_axis(series.axes, series.shape, "ZTIQ")
            if stack is not None:
                pixels = np.take(pixels, page, axis=stack)
                return arranged(pixels, series.axes[:stack] + series.axes[stack + 1 :], first, is_mask)
        return arranged(pixels, series.axes, first, is_mask)


def _compressed_tiff(path: Path, is_mask: bool, page: int | None) -> np.ndarray:
    try:
        pixels = by_pillow(path, palette=not is_mask, page=page)
    except Exception as error:
        raise ValueError(
            f"its compression needs another package. Install it: pip install imagecodecs ({error})"
        ) from None
    return without_alpha(pixels)


def stack_axis(axes: str, shape: tuple[int, ...], stacks: str = "ZTI") -> int | None:
    """Returns the axis of a TIFF series along which its pages are images of their own, or None.

    Args:
        axes: The letters of the axes, as tifffile names them.
        shape: Their sizes.
        stacks: The letters of such axes. Files call depth Z and time T; others say nothing (Q).
    """
    if len(axes) < 3:
        return None
    return next((n for n, letter in enumerate(axes) if letter in stacks and shape[n] > 1), None)


def usual(image: np.ndarray, path: Path, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Returns the image as uint8, uint16 or float32 in [0, 1], or raises a ValueError that names the file."""
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if value_range is not None:
        low, high = value_range
        return np.clip((image.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    if image.dtype in (np.uint8, np.uint16):
        return image
    ways = (
        f"Pass the values to read as black and as white: `value_range` (--value-range), such as {_example(image)}"
    )
    if image.dtype.kind != "f":
        raise ValueError(
            f"Expected uint8, uint16 or float images. Received: {path} with {image.dtype} values from "
            f"{image.min()} to {image.max()}. {ways}"
        )
    if not np.isfinite(image).all():
        raise ValueError(
            f"Float images must be in [0, 1]. Received: {path} with NaN or infinite values. Replace these"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"Float images must be in [0, 1]. Received: {path} in [{image.min()}, {image.max()}]. {ways}"
        )
    return image.astype(np.float32)


def _example(image: np.ndarray) -> str:
    """Returns the range of the values of an image as text; for a single value, a range that has it as an end."""
    low, high = float(image.min()), float(image.max())
    if f"{low:.4g}" == f"{high:.4g}":
        low, high = min(low, 0.0), max(high, 0.0) or (255.0 if low == 0 else 0.0)
    return f"{low:.4g},{high:.4g}"
