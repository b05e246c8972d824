"""Decoding image and mask files."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

TIFF_SUFFIXES = {".tif", ".tiff"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"} | TIFF_SUFFIXES


def read_images(paths: list[Path]) -> list[np.ndarray]:
    """Reads images of one number of channels, in one number type: uint8, uint16, or float32 in [0, 1]."""
    images = [_checked(_read(path), path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[2] != images[0].shape[2]:
            raise ValueError(
                "All images must have the same number of channels. Received: "
                f"{paths[0]} with {images[0].shape[2]} and {path} with {image.shape[2]}"
            )
    if len({image.dtype for image in images}) > 1:
        images = [
            image / np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1) for image in images
        ]
    return images


def read_mask(path: Path) -> np.ndarray:
    """Reads class ids as (height, width, 1)."""
    with path.open("rb") as file:
        header = file.read(26)
    if header.startswith(b"\x89PNG") and header[25:] == b"\x03":
        # The ids are the palette's indices, where TensorFlow would give its colours.
        try:
            with Image.open(path) as image:
                return np.asarray(image)[..., None]
        except OSError as error:
            raise ValueError(
                f"Cannot read {path}. Replace or remove the file. The decoder says: {error}"
            ) from error
    mask = _read(path)
    if (mask != mask[..., :1]).any():
        raise ValueError(
            f"A mask must hold class ids in one channel. Received: {path} with {mask.shape[2]} channels"
        )
    if (mask < 0).any() or (mask != np.floor(mask)).any():
        raise ValueError(f"A mask must hold whole numbers, 0 and above. Received: {path} with {mask.dtype}")
    return mask[..., :1]


def _read(path: Path) -> np.ndarray:
    """Reads pixels as they are in the file: (height, width, channels), without an alpha channel."""
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            return _read_tiff(path)
        data = path.read_bytes()
        is_png = data.startswith(b"\x89PNG")
        dtype = tf.uint16 if is_png and data[24] == 16 else tf.uint8  # byte 24: bits a sample
        pixels = tf.io.decode_image(data, dtype=dtype, expand_animations=False).numpy()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Cannot read {path}. Replace or remove the file. The decoder says: {reason}") from error
    return pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels


def _read_tiff(path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("it has several pages; `pip install tifffile` to read it") from None
            pixels = np.asarray(image)
            axes, has_alpha = "YXS"[: pixels.ndim], image.mode in ("RGBA", "LA")
    else:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            pixels, axes = series.asarray(), series.axes
            page: Any = file.pages[0]
            has_alpha = bool(page.extrasamples) and page.photometric.name == "RGB"
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))  # TensorFlow takes the machine's byte order only
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.ndim != 3 or "Y" not in axes or "X" not in axes:
        raise ValueError(f"expected height, width and channels, received axes {axes} of shape {pixels.shape}")
    pixels = np.transpose(pixels, (axes.index("Y"), axes.index("X"), 3 - axes.index("Y") - axes.index("X")))
    return pixels[..., :-1] if has_alpha else pixels


def _checked(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype.kind != "f":
        raise ValueError(f"Expected 8-bit, 16-bit or float images. Received: {path} with {image.dtype}")
    if not (image.min() >= 0 and image.max() <= 1):  # so written, this catches NaN
        raise ValueError(f"Float images must be in [0, 1]. Received: {path} in [{image.min()}, {image.max()}]")
    return image.astype(np.float32)
