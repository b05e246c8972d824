"""Images in files: their orientation, which cameras say in EXIF, the place of their channels, and damage."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, UnidentifiedImageError
from PIL.Image import Exif

Side = TypeVar("Side", bound="int | None")

PNG = b"\x89PNG\r\n\x1a\n"
#: The orientations that exchange height and width.
SIDEWAYS = (5, 6, 7, 8)
_UPSIDE_DOWN, _MIRRORED = (3, 4, 7, 8), (2, 3, 6, 7)
_MOST_CHUNKS = 2**12  # before the pixels of a PNG file
_TAIL = 2**14

CHANNELS = (1, 3, 4)
"""How many channels an image that is read from a file can have."""


def lacks_package(reason: str) -> bool:
    """Returns whether a file is whole, and only a package that reads its compression is missing."""
    return "imagecodecs" in reason


def unreadable(path: Path, error: Exception) -> ValueError:
    """Returns the error for a file that a decoder cannot read, with the first line of what the decoder says."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if lacks_package(reason):
        return ValueError(f"Cannot read {path}: {reason}")
    if isinstance(error, PermissionError):
        return ValueError(f"Cannot read {path}, because its permissions do not allow it. Change them")
    if isinstance(error, UnidentifiedImageError):
        return ValueError(
            f"Cannot read {path}. It is damaged, or of a format that is not supported, such as HEIC. Replace it, "
            "or convert it to PNG or TIFF"
        )
    return ValueError(f"Cannot read {path}. Replace or remove the file. The decoder says: {reason}")


def channels_first(shape: Sequence[int | None]) -> bool:
    """Returns whether images of a shape, with the batch, have their channels before their height and width.

    That is so if the first axis has 1, 3 or 4 places and both other axes have more. If the last axis could be the
    channels too, they are last, as Keras has them by default.
    """
    if len(shape) != 4 or shape[1] not in CHANNELS or shape[3] in CHANNELS:
        return False
    return all(side is None or side > shape[1] for side in shape[2:])


def sides_of(shape: Sequence[Side], first: bool | None = None) -> tuple[Side, Side]:
    """Returns the height and the width in a shape of images, with the batch.

    Args:
        shape: The shape.
        first: Whether the channels come before the height and width; None to decide by the shape.
    """
    axis = 2 if (channels_first(shape) if first is None else first) else 1
    return shape[axis], shape[axis + 1]


def image_shape(shape: Sequence[Side], first: bool | None = None) -> tuple[Side, Side, Side]:
    """Returns `(height, width, channels)` in a shape of images, with the batch.

    Args:
        shape: The shape.
        first: Whether the channels come before the height and width; None to decide by the shape.
    """
    first = channels_first(shape) if first is None else first
    return *sides_of(shape, first), shape[1] if first else shape[-1]


def png_exif(file: BinaryIO) -> bytes | None:
    """Returns the EXIF data of a PNG file, without decoding its pixels.

    Args:
        file: The file, open at any place.

    Returns:
        Bytes, the content of its chunk eXIf; None if there is none before the pixels, and none after them that
        begins in the last 16 KiB of the file.
    """
    file.seek(len(PNG))
    for _ in range(_MOST_CHUNKS):
        header = file.read(8)
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind == b"eXIf":
            return file.read(size)
        if kind in (b"IDAT", b"IEND", b""):
            break
        file.seek(size + 4, os.SEEK_CUR)
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    tail = file.read()
    start = tail.find(b"eXIf")
    while start >= 4:
        size = int.from_bytes(tail[start - 4 : start], "big")
        chunk, check = tail[start : start + 4 + size], tail[start + 4 + size : start + 8 + size]
        if zlib.crc32(chunk).to_bytes(4, "big") == check:  # and not pixels that look alike
            return chunk[4:]
        start = tail.find(b"eXIf", start + 1)
    return None


def orientation_in(exif: bytes | None) -> int:
    """Returns the orientation that EXIF data state, from 1 to 8; 1, upright, if they state none."""
    data = Exif()
    try:
        data.load(exif)
        stated = data.get(ExifTags.Base.Orientation)
    except Exception:  # whatever a hostile file makes the parser raise
        return 1
    return stated if stated in range(2, 9) else 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image turned upright by its EXIF orientation.

    Args:
        image: Array `(height, width, ...)`.
        orientation: Int from 1 to 8, the value of EXIF tag 274.

    Returns:
        A view of the array. Orientations 5 to 8 exchange height and width.
    """
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    down = -1 if orientation in _UPSIDE_DOWN else 1
    across = -1 if orientation in _MIRRORED else 1
    return image[::down, ::across]


def stored_part(part: tuple[slice, slice], size: tuple[int, int], orientation: int) -> tuple[slice, slice]:
    """Returns where a part of an upright image lies in the image that is stored.

    Args:
        part: The rows and the columns of the part, slices with steps of 1.
        size: `(height, width)` of the upright image.
        orientation: Int from 1 to 8, the value of EXIF tag 274.
    """
    turned = []
    for each, length, backwards in zip(part, size, (_UPSIDE_DOWN, _MIRRORED), strict=True):
        start, stop, _ = each.indices(length)
        turned.append(slice(length - stop, length - start) if orientation in backwards else slice(start, stop))
    rows, columns = turned
    return (columns, rows) if orientation in SIDEWAYS else (rows, columns)
