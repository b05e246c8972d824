"""Writes what was predicted for an image into files of its size, from strips of the image."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from dropzoo.common.checks import unknown
from dropzoo.common.files import whole_file
from dropzoo.pages import pictures
from dropzoo.predictions.answers import Answer
from dropzoo.predictions.summary import labels_of
from dropzoo.predictions.tags import Tags
from dropzoo.predictions.values import with_deviation
from dropzoo.runs.predictor import GUARANTEED, Predictor
from dropzoo.runs.statistics import Arrays

#: The outputs that can be saved, with a description of each.
KINDS = {
    "mask": "the class of each pixel, in the size of the image",
    "probabilities": "the probability of each class",
    "entropy": "the predictive entropy",
    "mutual_information": "the mutual information",
    "inner": "where a class surely is, by the calibration",
    "outer": "where a class may be, by the calibration",
    "values": "the values of a regression",
    "deviation": "the standard deviation of the samples",
    "lower": "the lower end of an interval, by the calibration",
    "upper": "the upper end of an interval, by the calibration",
    "overlay": "the image with its mask in colours",
    "picture": "image, mask and uncertainty side by side",
}
FORMATS = ("png", "tiff", "npz")

_VALUES = {"entropy": "predictive_entropy", "probabilities": "mean", "values": "mean"}
_SAMPLED = {"mutual_information": "mutual_information", "deviation": "variance"}
_OF_VALUES = ("values", "deviation", "lower", "upper")
_PICTURES = ("overlay", "picture")
_MOST = {"overlay": 4096, "picture": 1024}  # pixels of the longer side of a picture

#: A function that takes a slice of rows and the statistics of these rows.
Add = Callable[[slice, Arrays], None]


def parse_kinds(text: str) -> tuple[str, ...]:
    """Reads `--save`: names separated by commas, or "none".

    Raises:
        ValueError: If a name is unknown.
    """
    names = [each.strip().replace("-", "_") for each in text.split(",") if each.strip()]
    if names == ["none"]:
        return ()
    for name in names:
        if name not in KINDS:
            raise unknown("output for --save", name, KINDS)
    return tuple(dict.fromkeys(names))


def kinds_for(task: str, wanted: Sequence[str] | None, sampled: bool = True) -> tuple[str, ...]:
    """Returns what is saved for a model of masks: what is wanted, or the default for its output kind.

    Args:
        task: The output kind.
        wanted: Names of `KINDS`; None for the default.
        sampled: Bool, whether the model gives several samples, without which there is no deviation.

    Raises:
        ValueError: If a model of this output kind does not give something that is wanted.
    """
    if task == "regression":
        there: tuple[str, ...] = _OF_VALUES
        default: tuple[str, ...] = ("values", "deviation") if sampled else ("values",)
    elif task == "multi_label":
        there = tuple(kind for kind in KINDS if kind not in (*_OF_VALUES, *_PICTURES))
        default = ("mask", "entropy")
    else:
        there = tuple(kind for kind in KINDS if kind not in ("values", "lower", "upper"))
        default = ("mask", "picture")
    if wrong := [kind for kind in wanted or () if kind not in there]:
        raise ValueError(
            f"A model of the task {task!r} has no output {wrong[0]!r}. Pass --save with some of: "
            f"{', '.join(there)}"
        )
    return default if wanted is None else tuple(wanted)


def check_given(kinds: Iterable[str], predictor: Predictor) -> None:
    """Raises a ValueError if a model cannot give a kind of output, before it answers."""
    for kind in kinds:
        statistic = _SAMPLED.get(kind, kind)
        if (kind in GUARANTEED or kind in _SAMPLED) and predictor.lacks(statistic):
            raise _lacking(kind)


def _lacking(kind: str) -> ValueError:
    guarantee = GUARANTEED.get(kind)
    way = (
        "It has no dropout, or its export has no samples. Leave this kind out; or add dropout with dropzoo "
        "retrofit; or export the model again with --mc 30"
    )
    if guarantee is not None:
        command = f"dropzoo calibrate RUN --guarantee {guarantee}=0.1"
        tool = "serving.calibrate, in Python" if guarantee == "interval" else command
        way = f'Calibrate the model with the guarantee "{guarantee}" first: {tool}'
    return ValueError(f"The model has no output {kind!r}. {way}")


def files_of(
    folder: Path, name: Path, again: str, kinds: tuple[str, ...], form: str, task: str = "multi_class"
) -> dict[str, Path]:
    """Returns the path of each output of an image, by its kind.

    Args:
        folder: Path of the folder of outputs.
        name: Path without a suffix, relative to `folder`.
        again: Str, the suffix that distinguishes it from an image of the same name; it may be empty.
        kinds: Names of `KINDS`.
        form: One of `FORMATS`. PNG cannot hold fractions, nor several labels for a pixel: these are TIFF files.
        task: The output kind.
    """
    files = {}
    for kind in kinds:
        if kind in _PICTURES:
            ending = f"_{'prediction' if kind == 'picture' else kind}{again}.png"
        elif form == "npz":
            ending = f"{again}.npz"
        else:
            whole = kind == "mask" and form == "png" and task != "multi_label"
            ending = f"_{kind}{again}{'.png' if whole else '.tif'}"
        files[kind] = folder / name.parent / f"{name.name}{ending}"
    return files


@contextlib.contextmanager
def writing(answer: Answer, files: Mapping[str, Path], several: bool = False) -> Iterator[Add]:
    """Gives the block a function that writes rows; the files are whole after the block, or not there.

    Args:
        answer: The answer, of which only the size, the tags and the image are read.
        files: The path of each output, by its kind.
        several: Bool, whether a pixel may have several labels.
    """
    arrays = {kind: path for kind, path in files.items() if path.suffix == ".npz"}
    with contextlib.ExitStack() as stack:
        adds: list[Add] = []
        if arrays:
            adds.append(stack.enter_context(_npz(next(iter(arrays.values())), tuple(arrays), several)))
        for kind, path in files.items():
            if kind in arrays:
                continue
            if kind in _PICTURES:
                adds.append(stack.enter_context(_picture(path, kind, answer)))
            elif path.suffix == ".png":
                adds.append(stack.enter_context(_png(path, kind, answer.size, answer.page.tags)))
            else:
                adds.append(stack.enter_context(_tiff(path, kind, answer, several)))

        def add(rows: slice, strip: Arrays) -> None:
            for each in adds:
                each(rows, strip)

        yield add


def values_of(kind: str, strip: Arrays, several: bool = False) -> np.ndarray:
    """Returns the values of a kind of output for a strip.

    Args:
        kind: One of `KINDS`.
        strip: Statistics by name.
        several: Bool, whether a pixel may have several labels.

    Raises:
        ValueError: If the model does not give it.
    """
    if kind == "mask":
        return labels_of(strip, several)
    strip = with_deviation(strip) if kind == "deviation" else strip
    name = _VALUES.get(kind, kind)
    if name not in strip:
        raise _lacking(kind)
    values = strip[name]
    return values.astype(np.uint8) if values.dtype == bool else values


@contextlib.contextmanager
def _png(path: Path, kind: str, size: tuple[int, int], tags: Tags) -> Iterator[Add]:
    """A PNG file with a number of 8 or 16 bits for each pixel."""
    held: list[np.ndarray] = []

    def add(rows: slice, strip: Arrays) -> None:
        values = values_of(kind, strip)
        if not held:
            held.append(values if len(values) == size[0] else np.zeros(size, values.dtype))
        if held[0] is not values:
            held[0][rows] = values

    with whole_file(path) as unfinished:
        yield add
        Image.fromarray(held[0]).save(unfinished, **tags.of_png())


@contextlib.contextmanager
def _tiff(path: Path, kind: str, answer: Answer, several: bool) -> Iterator[Add]:
    """A TIFF file whose rows are written as they come: one plane, or one for each class."""
    with whole_file(path) as unfinished, contextlib.ExitStack() as stack:
        opened: list[Any] = []

        def add(rows: slice, strip: Arrays) -> None:
            values = values_of(kind, strip, several)
            if not opened:
                opened.append(stack.enter_context(_Raster(unfinished, answer.size, values, answer.page.tags)))
            opened[0].write(rows.start, values)

        yield add


class _Raster:
    """An uncompressed TIFF file that is filled row by row."""

    def __init__(self, path: Path, size: tuple[int, int], like: np.ndarray, tags: Tags) -> None:
        planes = like.shape[2] if like.ndim == 3 else 1
        shape = (planes, *size) if planes > 1 else size
        how: dict[str, Any] = {"planarconfig": "separate"} if planes > 1 else {}
        large = planes * size[0] * size[1] * like.dtype.itemsize > 2**32 - 2**25
        with tifffile.TiffWriter(path, bigtiff=large) as writer:
            writer.write(shape=shape, dtype=like.dtype, photometric="minisblack", **how, **tags.of_tiff())
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            self._start, order = page.dataoffsets[0], file.byteorder
        self._dtype = like.dtype.newbyteorder(order)
        self._size, self._planes, self._path = size, planes, path

    def __enter__(self) -> "_Raster":
        self._file = open(self._path, "r+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes rows `(rows, width)` or `(rows, width, planes)`, starting at the row `row`."""
        height, width = self._size
        deep = values if values.ndim == 3 else values[..., None]
        for plane in range(self._planes):
            self._file.seek(self._start + (plane * height + row) * width * self._dtype.itemsize)
            self._file.write(np.ascontiguousarray(deep[..., plane], self._dtype).tobytes())


@contextlib.contextmanager
def _npz(path: Path, kinds: tuple[str, ...], several: bool) -> Iterator[Add]:
    """A file of NumPy with an array of each kind."""
    held: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}

    def add(rows: slice, strip: Arrays) -> None:
        for kind in kinds:
            held[kind].append(values_of(kind, strip, several))

    with whole_file(path) as unfinished:
        yield add
        whole: dict[str, Any] = {kind: np.concatenate(parts) for kind, parts in held.items()}
        np.savez_compressed(unfinished, **whole)


@contextlib.contextmanager
def _picture(path: Path, kind: str, answer: Answer) -> Iterator[Add]:
    """Draws a picture for people. A picture of a large image keeps every second row and column, or fewer."""
    step = -(-max(answer.size) // _MOST[kind])
    kept: dict[str, list[np.ndarray]] = {}
    classes: list[int] = []
    wanted = ("mean", "predictive_entropy", "mutual_information") if kind == "picture" else ()

    def add(rows: slice, strip: Arrays) -> None:
        if answer.image is None:
            return
        first = -rows.start % step
        part = {"image": answer.image(rows), **{name: strip[name] for name in wanted if name in strip}}
        part["labels"] = labels_of(strip)
        classes[:] = [strip["mean"].shape[-1]]
        for name, values in part.items():
            kept.setdefault(name, []).append(np.array(values[first::step, ::step]))

    with whole_file(path) as unfinished:
        yield add
        whole = {name: np.concatenate(parts) for name, parts in kept.items()}
        image = whole.pop("image")
        labels = whole.pop("labels")
        if kind == "overlay":
            Image.fromarray((pictures.blend(image, labels, *classes) * 255).round().astype(np.uint8)).save(
                unfinished
            )
        else:
            pictures.save(pictures.masks(image[None], None, {n: x[None] for n, x in whole.items()}), unfinished)
