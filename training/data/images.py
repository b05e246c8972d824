"""Decoding of image and mask files."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from PIL import ExifTags, Image

from dropzoo.common.images import upright
from dropzoo.common.tiff import arranged

TIFF_SUFFIXES = {".tif", ".tiff"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"} | TIFF_SUFFIXES
_JPEG = b"\xff\xd8"


def read_images(paths: list[Path], num_channels: int | None = None) -> list[np.ndarray]:
    """Reads images that have the same number of channels.

    Args:
        paths: The files.
        num_channels: 1, 3 or None. The number of channels of all images if grey and RGB images are mixed.

    Returns:
        Arrays `(height, width, channels)` of one number type: uint8, uint16, or float32 in [0, 1].

    Raises:
        ValueError: If a file cannot be read, or the numbers of channels differ.
    """
    images = [_checked(_read(path), path) for path in paths]
    mixed = {image.shape[2] for image in images} == {1, 3}
    if mixed and num_channels:
        change = tf.image.rgb_to_grayscale if num_channels == 1 else grey_to_rgb
        images = [
            image if image.shape[2] == num_channels else change(tf.constant(image)).numpy() for image in images
        ]
    advice = ". To turn them all grey or RGB pass `num_channels` (--channels), 1 or 3" if mixed else ""
    for path, image in zip(paths, images, strict=True):
        if image.shape[2] != images[0].shape[2]:
            raise ValueError(
                "All images must have the same number of channels. Received: "
                f"{paths[0]} with {images[0].shape[2]} and {path} with {image.shape[2]}{advice}"
            )
    if len({image.dtype for image in images}) > 1:
        images = [
            image / np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1) for image in images
        ]
    return images


def grey_to_rgb(image: tf.Tensor) -> tf.Tensor:
    """Returns a grey image as RGB, also one of 16 bits, which `tf.image.grayscale_to_rgb` does not take."""
    return tf.concat([image] * 3, -1)


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask, `(height, width, 1)`, or raises a ValueError if its values are not class ids."""
    with path.open("rb") as file:
        header = file.read(26)
    if header.startswith(b"\x89PNG") and header[25:] == b"\x03":
        # The ids are the indices of the palette; TensorFlow would return its colours.
        try:
            with Image.open(path) as image:
                return np.asarray(image)[..., None]
        except OSError as error:
            raise ValueError(
                f"Cannot read {path}. Replace or remove the file. The decoder says: {error}"
            ) from error
    mask = _read(path, is_mask=True)
    if (mask != mask[..., :1]).any():
        raise ValueError(
            f"A mask must hold class ids in one channel. Received: {path} with {mask.shape[2]} channels"
        )
    if (mask < 0).any() or (mask != np.floor(mask)).any():
        raise ValueError(f"A mask must hold whole numbers, 0 and above. Received: {path} with {mask.dtype}")
    if header.startswith(_JPEG) and len(values := np.unique(mask)) > 2:
        raise ValueError(
            f"JPEG does not keep class ids: save the original masks as PNG instead. Received: {path} with "
            f"{len(values)} values from {values[0]} to {values[-1]}"
        )
    return mask[..., :1]


def _read(path: Path, is_mask: bool = False) -> np.ndarray:
    """Reads `(height, width, channels)` without alpha. An image is read as it is shown, a mask as it is stored."""
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            return _read_tiff(path, is_mask)
        data = path.read_bytes()
        if data.startswith(b"BM") and not is_mask:
            with Image.open(path) as image:
                if image.mode == "P":  # TensorFlow would return the indices of the palette
                    return np.asarray(image.convert("RGB"))
        is_png = data.startswith(b"\x89PNG")
        dtype = tf.uint16 if is_png and data[24] == 16 else tf.uint8  # byte 24 holds the bits of a sample
        pixels = tf.io.decode_image(data, dtype=dtype, expand_animations=False).numpy()
        if data.startswith(_JPEG) and not is_mask:
            with Image.open(path) as image:
                pixels = upright(pixels, image.getexif().get(ExifTags.Base.Orientation))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Cannot read {path}. Replace or remove the file. The decoder says: {reason}") from error
    return pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels


def _read_tiff(path: Path, is_mask: bool) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page: Any = file.pages[0]
        return arranged(series.asarray(), series.axes, page, is_mask)


def _checked(image: np.ndarray, path: Path) -> np.ndarray:
    """Returns the image as uint8, uint16 or float32, or raises a ValueError that names the file."""
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype.kind != "f":
        raise ValueError(f"Expected 8-bit, 16-bit or float images. Received: {path} with {image.dtype}")
    if not (image.min() >= 0 and image.max() <= 1):  # `not` around all of it catches NaN too
        raise ValueError(f"Float images must be in [0, 1]. Received: {path} in [{image.min()}, {image.max()}]")
    return image.astype(np.float32)
