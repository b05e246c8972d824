"""Tables of images in files: a CSV with a row for each image."""

import csv
import dataclasses
import io
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.words import count_of
from dropzoo.training.data.files.columns import (
    cell_of,
    class_names_of,
    column_of_runs,
    combinations,
    find_columns,
    labels_of,
    marked_columns,
    one_hot,
    refuse_measured,
    split_of_row,
)
from dropzoo.training.data.files.listing import Listing, is_mask_folder
from dropzoo.training.data.files.names import FileNames
from dropzoo.training.data.files.run_lengths import columns_beside_runs, columns_of_runs, read_runs
from dropzoo.training.data.files.table import Reading, Sample, Table, missing_files, some, written_in

_LOOKED_AT = 20  # rows whose files are looked for, to recognise a table of images


def find_file(root: Path, name: str) -> Path:
    """Returns a file that is named from here or from within the folder."""
    for path in (Path(name).expanduser(), root / name):
        if path.is_file():
            return path
    raise ValueError(
        f"No such file: {name}. `split_file` (--split-file) is looked for in the current folder and in {root}"
    )


def lists_images(path: Path, finder: FileNames) -> bool:
    """Returns whether a table names images that are there, and the label or the mask of each."""
    try:
        if (found := columns_of_runs(*_read(path, _LOOKED_AT))) is not None:
            head, lines, place = found
            columns = columns_beside_runs(head, lines, place) | {"mask": place}
        else:
            head, lines = _read(path)
            columns = find_columns(head, lines)
    except ValueError:
        return False
    if "file" not in columns or not (
        "label" in columns or "mask" in columns or marked_columns(head, lines, columns)
    ):
        return False
    names = [cell_of(line, columns["file"]) for line in lines[:_LOOKED_AT]]
    return any(finder.find_all(names))


def lists_runs(path: Path) -> bool:
    """Returns whether a CSV has a column of run lengths."""
    return column_of_runs(*_read(path, _LOOKED_AT)) is not None


def read_rows(path: Path, root: Path, reading: Reading, finder: FileNames | None = None) -> Table:
    """Returns the table of a CSV with the columns file, label, mask, split and group, or some of these.

    Args:
        path: The file.
        root: The folder of the images.
        reading: The options.
        finder: The result of `finder_in`, if it has been used already.

    Raises:
        ValueError: If there is no column of files, or no column with facts about them, or files are missing.
    """
    head, lines = _read(path)
    if (runs := columns_of_runs(head, lines)) is not None:
        _refuse_columns(path, head, columns_beside_runs(*runs))
        return read_runs(path, runs, reading, finder or finder_in(root, path.parent))
    columns = _columns(path, head, lines, reading)
    hot = {} if {"label", "mask"} & set(columns) else one_hot(head, lines, columns, path)
    if len(columns) == 1 and not hot:
        raise ValueError(
            f"A table of images must have a column label, mask, split or group. Received: {path} with the "
            f"columns {some(head)}. Rename the column that holds this information"
        )
    labels = labels_of(lines, columns, hot, path)
    names = class_names_of(labels)
    refuse_measured(names, len(lines), path)
    numbers = [names.index(label) if label and "mask" not in columns else -1 for label in labels]
    rows = [{name: cell_of(line, n) for name, n in columns.items()} for line in lines]
    samples, missing = _samples(path, rows, numbers, finder or finder_in(root, path.parent))
    if missing and (len(missing) == len(lines) or reading.broken != "skip"):
        raise missing_files(missing, len(lines), path)
    grouped = _grouped(samples, path, reading.group_by is not None and "group" not in columns)
    table = Table(path, grouped, () if "mask" in columns else names)
    if missing:
        table.doubts.append(
            f"Left out {count_of(len(missing), 'file')} in {path} that cannot be found: {some(missing)}"
        )
    _note_doubts(table, samples, columns)
    if hot:
        table.notes.append(f"Each of the columns {some(list(hot))} of {path} is a class")
    return table


def _columns(path: Path, head: list[str], lines: list[list[str]], reading: Reading) -> dict[str, int]:
    """Returns the numbers of the columns by what they hold."""
    columns = find_columns(head, lines)
    _refuse_columns(path, head, columns)
    if reading.group_by is not None:
        columns.pop("group", None)  # the regular expression replaces a column that nobody named
        if reading.group_by in head:
            columns["group"] = head.index(reading.group_by)
    return columns


def _samples(
    path: Path, rows: list[dict[str, str]], numbers: list[int], finder: FileNames
) -> tuple[list[Sample], list[str]]:
    """Returns the samples of the rows whose files exist, and the names of the other files."""
    images = finder.find_all([cells["file"] for cells in rows], lambda each: not is_mask_folder(each.parent.name))
    masks = finder.find_all(
        [cells.get("mask", "") for cells in rows], lambda each: is_mask_folder(each.parent.name)
    )
    samples, missing = [], []
    for cells, number, image, mask in zip(rows, numbers, images, masks, strict=True):
        if image is None or (cells.get("mask") and mask is None):
            missing.append(cells["file"] if image is None else cells["mask"])
            continue
        split = split_of_row(cells.get("split", ""), cells["file"], path)
        samples.append(Sample(image, number, mask, split, cells.get("group", "")))
    return samples, missing


def _note_doubts(table: Table, samples: list[Sample], columns: dict[str, int]) -> None:
    """Notes what looks wrong in the labels, splits and groups of a table."""
    if several := combinations(table.class_names):
        table.doubts.append(
            f"Labels in {table.root} such as {several[0]!r} look like several labels of one image, but each is "
            "read as one class"
        )
    for column in ("split", "group"):
        without = sum(not getattr(sample, column) for sample in samples)
        if column in columns and 0 < without < len(samples):
            rest = (
                "such images are used for training"
                if column == "split"
                else "each such image is a group of its own"
            )
            rows = count_of(without, f"row of {table.root} has", f"rows of {table.root} have")
            table.doubts.append(f"{rows} no {column}: {rest}")


def _refuse_columns(path: Path, head: Sequence[str], columns: dict[str, int]) -> None:
    """Raises a ValueError for a table that does not name files."""
    if "file" not in columns:
        raise ValueError(
            f"A table of images needs a column `file`. Received: {path} with {some(head)}. Its other "
            "columns may be label, mask, split and group"
        )


def _grouped(samples: list[Sample], path: Path, by_path: bool) -> list[Sample]:
    """Returns samples; those of the same image, with masks by several people, become a group.

    With `by_path`, the groups follow from the paths of the images.
    """
    if len({(sample.image, sample.mask) for sample in samples}) < len(samples):
        twice = len(samples) - len({(sample.image, sample.mask) for sample in samples})
        raise ValueError(
            f"No two rows may have the same image and mask. Received: "
            f"{count_of(twice, f'row in {path} that repeats', f'rows in {path} that repeat')} an earlier row. "
            "Remove such rows"
        )
    lacking = [sample.image.name for sample in samples if sample.mask is None]
    if len(lacking) < len(samples) and lacking:
        raise ValueError(
            f"Each row needs a mask. Received: {len(lacking):,} of {len(samples):,} rows without a mask, in "
            f"{path}: {some(lacking)}. Remove these rows, or give them masks that are 0 everywhere"
        )
    rows: dict[Path, list[Sample]] = {}
    for sample in samples:
        rows.setdefault(sample.image, []).append(sample)
    if by_path:
        return samples
    groups = {path: next((each.group for each in found if each.group), str(path)) for path, found in rows.items()}
    return [
        dataclasses.replace(sample, group=groups[sample.image]) if len(rows[sample.image]) > 1 else sample
        for sample in samples
    ]


def joined(table: Table, listed: Table, path: Path) -> Table:
    """Returns a table with the splits and groups of a file that names some of its images."""
    known = {os.path.realpath(sample.image): sample for sample in listed.samples}
    samples, absent = [], []
    for sample in table.samples:
        row = known.get(os.path.realpath(sample.image))
        if row is None:
            absent.append(sample.image.name)
            continue
        samples.append(
            dataclasses.replace(sample, split=row.split or sample.split, group=row.group or sample.group)
        )
    if absent:
        table.doubts.append(
            f"{count_of(len(absent), 'image is', 'images are')} not in {path} and will be left out: {some(absent)}"
        )
    return dataclasses.replace(table, samples=samples)


def finder_in(root: Path, beside: Path) -> FileNames:
    """Returns a finder of images by name; a name may be a path from a folder, or from that of a table."""
    return FileNames(lambda: Listing().images(root), [beside, root])


def _read(path: Path, most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Returns the head of a table and its lines, or the first ones."""
    text = written_in(path)
    first, _, rest = text.partition("\n")
    if said := re.fullmatch('"?sep=(.)"?', first):  # a line for spreadsheets, before the header
        text, delimiter = rest, said[1]
    else:
        delimiter = max(",;\t|", key=first.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    lines = list(itertools.islice((line for line in rows if any(cell.strip() for cell in line)), most))
    if not lines:
        raise ValueError(
            f"A table of images needs a header line and a row for each image. Received: {path}, which is empty"
        )
    return [cell.strip() for cell in lines[0]], lines[1:]
