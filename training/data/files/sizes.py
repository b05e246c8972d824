"""Checks masks that are drawn from objects against the sizes of their images, and gives them these sizes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dropzoo.common.words import count_of
from dropzoo.training.data.files.broken import refuse_broken
from dropzoo.training.data.files.drawing import ends_of
from dropzoo.training.data.files.headers import Facts, read_facts
from dropzoo.training.data.files.table import Drawn, Reading, Starts, Table, some

_LOOKED_AT = 500  # objects whose runs show whether pixels are counted by rows or by columns
_CERTAIN = 20  # pairs of runs that show it
_OPEN = (0, 0)


def with_sizes(table: Table, facts: dict[Path, Facts], reading: Reading) -> Table:
    """Returns a table in which the masks that are drawn from files and run lengths have the sizes of their images.

    Only the headers of the files are read.

    Raises:
        ValueError: If a mask of an object cannot be read or does not have the size of its image, or run lengths do
            not fit into it.
    """
    if not any(isinstance(sample.mask, Drawn) and sample.mask.size == _OPEN for sample in table.samples):
        return table
    if pages := [sample for sample in table.samples if facts[sample.image].pages > 1]:
        raise ValueError(
            f"An image with masks of single objects must have one page. Received: {pages[0].image} with "
            f"{facts[pages[0].image].pages} pages. If they are channels, pass pages='channels' (--pages channels)"
        )
    masks = [_drawn(sample.mask, facts[sample.image]) for sample in table.samples]
    table = dataclasses.replace(table, notes=list(table.notes), doubts=list(table.doubts))
    texts = [(mask.size, shape) for mask in masks for _, shape in mask.shapes if isinstance(shape, Starts)]
    if texts:
        _check_runs(table, masks)
        table.notes.append(f"Masks are drawn from run lengths of {count_of(len(texts), 'object')} in {table.root}")
    if _are_rows(texts):
        masks = [_by_rows(mask) for mask in masks]
        table.doubts.append(
            f"The run lengths of {table.root} go along the rows of the images, and not down the columns as usual: "
            "successive runs are about a width apart"
        )
    table.samples = [
        dataclasses.replace(sample, mask=mask) for sample, mask in zip(table.samples, masks, strict=True)
    ]
    table = _checked_files(table, masks, facts, reading)
    if bare := sum(not mask.shapes for mask in masks):
        table.notes.append(f"{count_of(bare, 'image has', 'images have')} no object: all pixels are background")
    return table


def _drawn(mask: Path | Drawn | None, facts: Facts) -> Drawn:
    """Returns a mask with a size. A single file, beside masks of single objects, holds one object too."""
    shapes = mask.shapes if isinstance(mask, Drawn) else ((1, mask),) if mask is not None else ()
    return Drawn((facts.height, facts.width), shapes)


def _checked_files(table: Table, masks: Sequence[Drawn], own: dict[Path, Facts], reading: Reading) -> Table:
    """Returns the table without images whose masks are broken, if these are to be skipped."""
    files = [
        (sample.image, mask.size, shape)
        for sample, mask in zip(table.samples, masks, strict=True)
        for _, shape in mask.shapes
        if isinstance(shape, Path)
    ]
    if not files:
        return table
    facts, broken = read_facts([file for _, _, file in files])
    if broken and reading.broken == "refuse":
        refuse_broken(broken)
    wrong = [each for each in files if each[2] in facts and facts[each[2]][:2] != each[1]]
    if wrong:
        image, size, file = wrong[0]
        more = f", and {len(wrong) - 1:,} more masks" if len(wrong) > 1 else ""
        raise ValueError(
            f"The mask of an object must have its image's height and width. Received: {image} of "
            f"{size[0]}x{size[1]} with {file} of {facts[file].height}x{facts[file].width}{more}. "
            f"{own[image].way_to_size}"
        )
    table.notes.append(
        count_of(len(files), "mask of a single object is", "masks of single objects are")
        + " joined into one mask for each image"
    )
    if broken:
        kept = [sample for sample in table.samples if not broken.keys() & set(sample.files)]
        table.doubts.append(
            f"Left out {count_of(len(table.samples) - len(kept), 'image')}, because "
            f"{count_of(len(broken), 'mask of an object', 'masks of objects')} cannot be read: "
            f"{some(list(map(str, broken)))}"
        )
        table = dataclasses.replace(table, samples=kept, unreadable=table.unreadable | broken)
    return table


def _check_runs(table: Table, masks: Sequence[Drawn]) -> None:
    """Raises a ValueError if runs begin before the first pixel, are empty, or go beyond the last pixel."""
    for sample, mask in zip(table.samples, masks, strict=True):
        height, width = mask.size
        for _, shape in mask.shapes:
            if isinstance(shape, Starts) and (wrong := _wrong_in(shape, height * width)):
                raise ValueError(
                    f"In run lengths, the pixels of an image of {height}x{width} have the numbers 1 to "
                    f"{height * width:,}. Received: {sample.image.name} in {table.root} with {wrong}"
                )


def _wrong_in(shape: Starts, pixels: int) -> str:
    """Returns what is wrong with run lengths for an image with this number of pixels, or ""."""
    starts, ends = ends_of(shape.text)
    if starts.min() < 0:
        return "a run that begins at pixel 0. Add 1 to the first number of each run"
    if ends.max() > pixels:
        return f"a run up to pixel {ends.max():,}. Were the masks drawn on larger images?"
    return "" if (ends > starts).all() else "a run of length 0"


def _are_rows(texts: Sequence[tuple[tuple[int, int], Starts]]) -> bool:
    """Returns whether pixels are certainly counted along rows: the runs of an object are about a width apart."""
    rows = columns = 0
    for (height, width), shape in texts[:: max(1, len(texts) // _LOOKED_AT)]:
        if abs(height - width) <= 0.1 * max(height, width):
            continue
        gaps = np.diff(ends_of(shape.text)[0])
        near = [int((np.abs(gaps - side) <= 0.04 * min(height, width)).sum()) for side in (width, height)]
        rows, columns = rows + near[0], columns + near[1]
    return rows > _CERTAIN and rows > 10 * columns


def _by_rows(mask: Drawn) -> Drawn:
    shapes = [
        (label, dataclasses.replace(shape, by_rows=True) if isinstance(shape, Starts) else shape)
        for label, shape in mask.shapes
    ]
    return Drawn(mask.size, tuple(shapes))
