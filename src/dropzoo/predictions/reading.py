"""Reads image files page by page; large TIFF files in parts."""

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dropzoo.common.images import SIDEWAYS, stored_part, unreadable
from dropzoo.common.tiff import arranged, check_whole, orientation_of
from dropzoo.predictions.tags import Tags, tags_of_picture, tags_of_tiff
from dropzoo.training.data.images import ARRAY_SUFFIXES, TIFF_SUFFIXES, read_images, read_tiff, usual

_OF_COLOURS = (3, 4)  # channels
_KEPT_BYTES = 64 * 2**20  # of decoded parts of a compressed file


@dataclass(frozen=True)
class _Place:
    """The place of an image in a TIFF file: a series, the indices along its outer axes, and the other axes.

    `index` has None for an outer axis that is kept, the channels.
    """

    series: int
    index: tuple[int | None, ...]
    axes: str


@dataclass(frozen=True)
class Page:
    """One image of a file.

    Attributes:
        path: Path of the file.
        index: Int, the number of the page from 0; None if the file holds one image.
        tags: The resolution, the position on the earth and the description that the file states.
        place: Where the image is in a TIFF file; None for other files.
        size: `(height, width)` of an image in a TIFF file; None for other files.
    """

    path: Path
    index: int | None = None
    tags: Tags = field(default_factory=Tags)
    place: _Place | None = None
    size: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """A name that no other page has: the path and, if the file has several pages, the page's number from 1."""
        return f"{self.path}" if self.index is None else f"{self.path}#{self.index + 1}"

    def read(self, value_range: tuple[float, float] | None = None) -> np.ndarray:
        """Returns the image: uint8, uint16 or float32 in [0, 1], `(height, width, channels)`.

        Args:
            value_range: Pair of floats `(low, high)` or None. The stored values that become 0 and 1. It is needed
                for floats beyond [0, 1], and for integers other than uint8 and uint16.

        Raises:
            ValueError: If the file cannot be read.
        """
        if self.place is None:
            return read_images([self.path], value_range=value_range)[0]
        with _reading(self.path):
            try:
                with tifffile.TiffFile(self.path) as file:
                    pixels = _whole(file, self.place)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                pixels = read_tiff(self.path, False, self.index)  # a compression that only Pillow knows
            return usual(pixels, self.path, value_range)


def pages_of(path: Path, channels: int) -> list[Page]:
    """Returns the pages of a file.

    A TIFF file may hold a stack. Its axes other than height, width and channels are pages. An axis without a
    meaning is channels if its length is the number of channels that the model takes, as when a folder is loaded.

    Args:
        path: Path of the file.
        channels: Int, the number of channels that the model takes.

    Raises:
        ValueError: If the file cannot be read.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        with _reading(path):
            return [Page(path, tags=Tags() if path.suffix.lower() in ARRAY_SUFFIXES else tags_of_picture(path))]
    pages: list[tuple[Tags, _Place, tuple[int, int]]] = []
    with _reading(path), tifffile.TiffFile(path) as file:
        check_whole(file)
        for number, series in enumerate(file.series):
            first = series.keyframe
            if number and first.is_reduced:
                continue  # a thumbnail
            outer, shape = _outer(series)
            tags, size = tags_of_tiff(first), _size(first)
            pages += [(tags, each, size) for each in _places(number, outer, shape, first.axes, channels)]
    several = len(pages) > 1
    return [Page(path, i if several else None, *each) for i, each in enumerate(pages)]


def _outer(series: Any) -> tuple[str, tuple[int, ...]]:
    """The axes of a series beyond those of a page, and their sizes.

    The other axes are those of the page and some of size 1, such as S after YX, which no page names.
    """
    axes, shape = _axes(series)
    pages = math.prod(shape) // max(1, math.prod(series.keyframe.shape))
    count = next((n for n in range(len(shape)) if math.prod(shape[:n]) == pages), 0)
    return axes[:count], shape[:count]


def _size(page: Any) -> tuple[int, int]:
    """The height and the width of a page that is turned upright."""
    size = page.imagelength, page.imagewidth
    return size[::-1] if orientation_of(page) in SIDEWAYS else size


def _axes(series: Any) -> tuple[str, tuple[int, ...]]:
    """The axes of a series and their sizes, those of size 1 too in versions of tifffile that can give them."""
    if hasattr(series, "get_shape"):
        return series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    return series.axes, series.shape


def _places(number: int, outer: str, shape: tuple[int, ...], inner: str, channels: int) -> Iterator[_Place]:
    """The places of the images of a series whose pages have the axes `inner`."""
    has_samples = "S" in inner or "C" in inner
    # A model of colours takes three slices as three grey images; one of seven channels takes them as its channels.
    without_meaning = "Q" if channels in _OF_COLOURS else "QIZT"
    kept = [
        i
        for i, (letter, count) in enumerate(zip(outer, shape, strict=True))
        if letter in "CS" or (letter in without_meaning and count == channels > 1 and not has_samples)
    ]
    kept = [i for i in kept if shape[i] > 1][:1]
    letters = "C" * len(kept) + inner
    free = [1 if i in kept else n for i, n in enumerate(shape)]
    for index in np.ndindex(*free):
        yield _Place(number, tuple(None if i in kept else int(n) for i, n in enumerate(index)), letters)


def _planes(series: Any, place: _Place) -> list[int]:
    """The numbers of the pages of the file that an image consists of: one, or one for each channel."""
    shape = _axes(series)[1][: len(place.index)]
    counts = [range(n) if i is None else [i] for i, n in zip(place.index, shape, strict=True)]
    grid = np.arange(math.prod(shape)).reshape(shape)
    return [int(n) for n in grid[np.ix_(*counts)].ravel()] if shape else [0]


def _whole(file: tifffile.TiffFile, place: _Place) -> np.ndarray:
    """The pixels of an image, `(height, width, channels)`."""
    series: Any = file.series[place.series]
    planes = _planes(series, place)
    if series.dataoffset is not None:
        pixels = _mapped(file, series)[planes]
    else:
        pixels = np.stack([series.pages[i].asarray(maxworkers=1) for i in planes])
    pixels = pixels if "C" in place.axes[:1] and None in place.index else pixels[0]
    return arranged(pixels, place.axes, series.keyframe)


def _mapped(file: tifffile.TiffFile, series: Any) -> np.ndarray:
    """All pages of a series that lies in the file as it is in memory, `(pages, ...)`."""
    inner = series.keyframe.shape
    count = math.prod(series.shape) // math.prod(inner)
    dtype = np.dtype(file.byteorder + series.dtype.char)
    return np.memmap(file.filehandle.path, dtype, "r", series.dataoffset, (count, *inner))


class Rows:
    """An image in a TIFF file that is read in parts, `image[rows, columns]`.

    Attributes:
        shape: `(height, width, channels)`.
        ndim: 3.
    """

    ndim = 3

    def __init__(self, page: Page, value_range: tuple[float, float] | None = None) -> None:
        self._value_range = value_range
        if page.place is None:
            raise ValueError(f"Only TIFF files are read in parts. Received: {page.path}")
        self._page, self._place = page, page.place
        self._parts: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._kept = 0
        with _reading(page.path), contextlib.ExitStack() as stack:
            self._file = stack.enter_context(tifffile.TiffFile(page.path))
            self._series: Any = self._file.series[page.place.series]
            self._numbers = _planes(self._series, page.place)
            first = self._series.keyframe
            self._size, self._orientation = _size(first), orientation_of(first)
            self.shape = (*self._size, self[:1, :1].shape[-1])
            stack.pop_all()  # the file stays open until `close`

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        with _reading(self._page.path):
            stored = stored_part(place, self._size, self._orientation)
            planes = [self._plane(number, *stored) for number in self._numbers]
            pixels = np.stack(planes) if None in self._place.index else planes[0]
            pixels = arranged(pixels, self._place.axes, self._series.keyframe)
            return usual(pixels, self._page.path, self._value_range)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _plane(self, number: int, rows: slice, columns: slice) -> np.ndarray:
        """A part of one page of the file, with the axes of the page."""
        page = self._series.keyframe
        at = tuple(rows if axis == "Y" else columns if axis == "X" else slice(None) for axis in page.axes)
        if self._series.dataoffset is not None:
            # Mapped again each time, so that the parts that were read do not stay in memory.
            return np.array(_mapped(self._file, self._series)[number][at])
        # Rows of an image on its side are columns of the stored one, so all strips are decoded for them.
        height, width = page.imagelength, page.imagewidth
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        across, down = -(-width // wide), -(-height // tall)
        split = page.planarconfig == 2 and page.samplesperpixel > 1
        samples = page.samplesperpixel if split else 1
        out = np.zeros((samples, bottom - top, right - left, 1 if split else page.samplesperpixel), page.dtype)
        for sample in range(samples):
            for i in range(top // tall, -(-bottom // tall)):
                for j in range(left // wide, -(-right // wide)):
                    part = self._part(number, (sample * down + i) * across + j)
                    if part is None:
                        continue  # an empty part is black
                    y, x = i * tall, j * wide
                    here = part[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                    first, left_at = max(y - top, 0), max(x - left, 0)
                    out[sample, first : first + here.shape[0], left_at : left_at + here.shape[1]] = here
        if split:
            return out[..., 0]
        return out[0] if page.samplesperpixel > 1 else out[0, ..., 0]

    def _part(self, number: int, index: int) -> np.ndarray | None:
        """A decoded strip or tile, `(rows, columns, samples)`."""
        key = number, index
        if key not in self._parts:
            page: Any = self._series.pages[number]
            handle = self._file.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
            more = {"jpegtables": page.keyframe.jpegtables} if page.keyframe.jpegtables else {}
            found = page.decode(data, index, **more)[0] if data else None
            self._parts[key] = None if found is None else found[0]
            self._kept += 0 if found is None else found.nbytes
            while self._kept > _KEPT_BYTES and len(self._parts) > 1:
                _, old = self._parts.popitem(last=False)
                self._kept -= 0 if old is None else old.nbytes
        self._parts.move_to_end(key)
        return self._parts[key]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises into a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and ("Received: " in str(error) or str(error).startswith("Cannot read")):
            raise  # this package's own, which names the file
        raise unreadable(path, error) from error
