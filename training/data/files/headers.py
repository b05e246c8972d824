"""The facts about an image that can be read from its file before its pixels are decoded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from dropzoo.common.images import PNG
from dropzoo.common.tiff import channels_stated, check_whole, orientation_of
from dropzoo.training.data.files.threads import map_files
from dropzoo.training.data.images import (
    ARRAY_SUFFIXES,
    BMP,
    GIF,
    JPEG,
    TIFF_SUFFIXES,
    channels_last,
    single_array,
    stack_axis,
    stated_orientation,
)

# Channels of the colour types of PNG files, without alpha, and of the modes of Pillow.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
_MODE_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I": 1, "F": 1, "I;16": 1, "I;16B": 1}
_MODE_TYPES = {"I": "int32", "F": "float32", "I;16": "uint16", "I;16B": "uint16"}


class Facts(NamedTuple):
    """The facts about an image file.

    Attributes:
        height: Int, pixels.
        width: Int, pixels.
        channels: Int, without alpha.
        dtype: Str, the type of the stored values.
        plain: Bool. Whether the decoder of TensorFlow gives the image as it is shown.
        pages: Int, the number of images in the file.
        is_open: Bool. Whether the file does not say if its last axis is channels.
        turned: Bool. Whether the image is turned upright by the orientation that its file states.
    """

    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    plain: bool = False
    pages: int = 1
    is_open: bool = False
    turned: bool = False

    @property
    def way_to_size(self) -> str:
        """A sentence about what to do if the mask of the image has another size."""
        if self.turned:
            return (
                "The image is turned upright by the orientation in its file, and the mask may not be. Turn the "
                "mask in the same way, or remove the orientation from the image: exiftool -Orientation= FILE"
            )
        return "Resize or crop one of them; a mask must be resized without interpolation"


def read_facts(paths: Sequence[Path], pages: str = "auto") -> tuple[dict[Path, Facts], dict[Path, str]]:
    """Returns the facts about each file, and the reason for each that cannot be read.

    Args:
        paths: The files.
        pages: `"auto"`, `"images"` or `"channels"`: what the pages of a stack are.
    """

    def look(path: Path) -> Facts | str:
        try:
            return _facts(path, pages)
        except Exception as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__

    found = dict(zip(paths, map_files(look, paths), strict=True))
    good = {path: each for path, each in found.items() if isinstance(each, Facts)}
    return good, {path: each for path, each in found.items() if isinstance(each, str)}


def count_pages(path: Path) -> int:
    """Returns the number of images in the file of a mask, whether or not it says that its pages are a stack."""
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        shape = single_array(path).shape
        return shape[0] if len(shape) == 3 else 1
    if suffix not in TIFF_SUFFIXES:
        return 1
    with tifffile.TiffFile(path) as file:
        stack = stack_axis(file.series[0].axes, file.series[0].shape, "ZTIQ")
        return 1 if stack is None else int(file.series[0].shape[stack])


def _facts(path: Path, pages: str) -> Facts:
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return _tiff_facts(path, pages)
    if suffix in ARRAY_SUFFIXES:
        array = single_array(path)
        if array.ndim == 3 and pages == "images":
            count, height, width = array.shape
            return Facts(height, width, 1, array.dtype.name, pages=count)
        array = channels_last(array)
        height, width = array.shape[:2]
        channels = array.shape[2] if array.ndim == 3 else 1
        return Facts(height, width, channels, array.dtype.name, is_open=True)
    with path.open("rb") as file:
        header = file.read(33)
        if not header:
            raise ValueError("the file is empty")
        if header.startswith(JPEG):
            if not _ends(file, b"\xff\xd9"):
                _decode(path)
            with Image.open(path) as image:
                channels = 1 if image.mode == "L" else 3
                return _turned(Facts(image.height, image.width, channels, plain=True), stated_orientation(file))
        if header.startswith(PNG):
            if not _ends(file, b"IEND"):
                _decode(path)
            height, width = (int.from_bytes(header[n : n + 4], "big") for n in (20, 16))
            dtype = "uint16" if header[24] == 16 else "uint8"
            facts = Facts(height, width, _PNG_CHANNELS[header[25]], dtype, plain=True)
            return _turned(facts, stated_orientation(file))
    with Image.open(path) as image:
        width, height = image.size
        if header.startswith(GIF):
            return Facts(height, width, 3, plain=True)
        if header.startswith(BMP) and image.mode == "RGB" and header[28] == 32:
            return Facts(height, width, 3)
        dtype = (
            "bool" if image.mode == "1" and not header.startswith(BMP) else _MODE_TYPES.get(image.mode, "uint8")
        )
        return Facts(height, width, _MODE_CHANNELS.get(image.mode, 3), dtype)


def _ends(file: Any, mark: bytes) -> bool:
    """Returns whether the mark that ends a format is near the end of a file; some programs append bytes to it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4096))
    return mark in file.read()


def _decode(path: Path) -> None:
    """Decodes a file whose end looks wrong, and so raises an error if it is cut short."""
    with Image.open(path) as image:
        image.load()


def _turned(facts: Facts, orientation: int) -> Facts:
    """The facts about an image that is turned upright by the orientation that its file states."""
    if orientation == 1:
        return facts
    height, width = (facts.width, facts.height) if orientation >= 5 else (facts.height, facts.width)
    return facts._replace(height=height, width=width, plain=False, turned=True)


def _tiff_facts(path: Path, pages: str) -> Facts:
    with tifffile.TiffFile(path) as file:
        check_whole(file)
        series = file.series[0]
        page: Any = file.pages[0]
        axes, shape, dtype = series.axes, series.shape, series.dtype
        stack = stack_axis(axes, shape)
        count = 1
        if pages == "images" and stack is None:
            stack = stack_axis(axes, shape, "Q")
        if stack is not None and pages != "channels":
            count = shape[stack]
            axes, shape = axes[:stack] + axes[stack + 1 :], shape[:stack] + shape[stack + 1 :]
        if len(shape) not in (2, 3) or "Y" not in axes or "X" not in axes:
            raise ValueError(f"expected height, width and channels, received axes {axes} of shape {shape}")
        height, width = shape[axes.index("Y")], shape[axes.index("X")]
        channels = 1 if len(shape) == 2 else int(np.prod(shape)) // (height * width)
        if page.photometric.name == "PALETTE":
            return _turned(Facts(height, width, 3, "uint8", pages=count), orientation_of(page))
        facts = Facts(height, width, channels_stated(page, channels), dtype.name, pages=count, is_open="Q" in axes)
        return _turned(facts, orientation_of(page))
