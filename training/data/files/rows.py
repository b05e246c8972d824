"""Tables of images in files: a CSV with a row for each image, and lists of names, one file a split."""

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.checks import did_you_mean
from dropzoo.training.data.files.listing import Listing, is_mask_folder
from dropzoo.training.data.files.table import SPLITS, Reading, Sample, Table, some, split_of

# The heads of the columns, as people write them.
_COLUMNS = {
    "file": (
        "file",
        "filename",
        "file_name",
        "image",
        "image_path",
        "path",
        "filepath",
        "img",
        "image_id",
        "id",
        "name",
    ),
    "mask": ("mask", "mask_path", "mask_file", "segmentation", "annotation"),
    "label": ("label", "class", "class_name", "category", "target", "diagnosis", "y", "labels"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "case", "case_id"),
}


def find_file(root: Path, name: str) -> Path:
    """Returns a file that is named from here or from within the folder."""
    for path in (Path(name).expanduser(), root / name):
        if path.is_file():
            return path
    raise ValueError(f"No such file: {name}. `split_file` (--split-file) is looked for here and in {root}")


def lists_images(path: Path) -> bool:
    """Returns whether a CSV has a column of files and one of labels or masks."""
    head = _columns(_read(path)[0])
    return "file" in head and ("label" in head or "mask" in head)


def lists_masks(path: Path) -> bool:
    """Returns whether a CSV has a column of masks."""
    return "mask" in _columns(_read(path)[0])


def read_rows(path: Path, root: Path, reading: Reading) -> Table:
    """Returns the table of a CSV with the columns file, label, mask, split and group, or some of these.

    Raises:
        ValueError: If there is no column of files, or files are missing.
    """
    head, lines = _read(path)
    columns = _columns(head)
    if "file" not in columns:
        raise ValueError(
            f"A table of images needs a column `file`. Received: {path} with {some(head)}. Its other "
            f"columns may be "
            "label, mask, split and group"
        )
    if reading.group_by is not None:
        columns.pop("group", None)  # a regular expression counts in place of a column that nobody named
        if reading.group_by in head:
            columns["group"] = head.index(reading.group_by)
    finder = _Finder([path.parent, root])
    names = (
        _class_names([line[columns["label"]] for line in lines if len(line) > columns["label"]])
        if "label" in columns
        else ()
    )
    samples, missing = [], []
    for line in lines:
        cells = {name: line[n].strip() if n < len(line) else "" for name, n in columns.items()}
        image = finder.find(cells["file"])
        mask = finder.find(cells["mask"], mask=True) if cells.get("mask") else None
        if image is None or (cells.get("mask") and mask is None):
            missing.append(cells["file"] if image is None else cells["mask"])
            continue
        split = split_of(cells.get("split", ""))
        if cells.get("split") and not split:
            known = [name for each in SPLITS.values() for name in each]
            raise ValueError(
                f"A split must be train, validation or test. Received: {cells['split']!r} for {cells['file']} in "
                f"{path}.{did_you_mean(cells['split'], known)}"
            )
        label = names.index(_plain_label(cells["label"])) if cells.get("label") else -1
        samples.append(Sample(image, -1 if mask else label, mask, split, cells.get("group", "")))
    if missing and (len(missing) == len(lines) or reading.broken != "skip"):
        raise ValueError(
            f"{len(missing):,} of {len(lines):,} files in {path} do not exist: {some(missing)}. To continue "
            f"without them, pass broken='skip' (--broken skip)"
        )
    twice = len(samples) - len({(sample.image, sample.mask) for sample in samples})
    if twice:
        raise ValueError(
            f"Each image must have exactly one row. Received: {twice} rows for files that {path} has already "
            f"listed"
        )
    table = Table(path, samples, names)
    if missing:
        table.doubts.append(f"{len(missing):,} files in {path} are not there and are left out: {some(missing)}")
    unlabelled = sum(sample.label < 0 and sample.mask is None for sample in samples)
    if names and unlabelled:
        raise ValueError(
            f"Each row needs a label. Received: {unlabelled:,} of {len(samples):,} rows without, in {path}"
        )
    return table


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
        table.doubts.append(f"{len(absent):,} images are not in {path} and are left out: {some(absent)}")
    return dataclasses.replace(table, samples=samples)


def with_split_lists(table: Table) -> Table:
    """Returns a table with the splits of the files train.txt, val.txt and test.txt, if such lists are there.

    Each line is, or begins with, the name of an image, with or without its folders and an ending.
    """
    if not table.root.is_dir() or any(sample.split for sample in table.samples):
        return table
    places = [table.root, *sorted(table.root.glob("ImageSets/*/")), *sorted(table.root.glob("[Ss]plits/"))]
    lists = {
        split_of(path.stem): path
        for place in places
        for path in sorted(place.glob("*.txt"))
        if split_of(path.stem)
    }
    if not lists:
        return table
    by_name: dict[str, list[int]] = {}
    for number, sample in enumerate(table.samples):
        for name in _names_of(sample.image):
            by_name.setdefault(name, []).append(number)
    splits: dict[int, str] = {}
    lost: list[str] = []
    for split, path in lists.items():
        for line in filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())):
            place = _place_of(line, by_name)
            if place is None:
                lost.append(f"{line} in {path.name}")
            else:
                splits[place] = split
    if lost:
        table.doubts.append(
            f"{len(lost):,} lines of lists of splits name no image, or several, and are not used: {some(lost)}"
        )
    if not splits:
        return table
    names = " and ".join(path.name for path in lists.values())
    # A list of validation files alone, as fastai's sets have it, leaves the others for training.
    rest = "" if "train" in lists else "train"
    kept = [
        dataclasses.replace(sample, split=splits.get(number, rest))
        for number, sample in enumerate(table.samples)
        if number in splits or rest
    ]
    table.notes.append(f"The split is that of {names}")
    if len(kept) < len(table.samples):
        table.doubts.append(f"{len(table.samples) - len(kept):,} images are in none of {names} and are left out")
    return dataclasses.replace(table, samples=kept)


def _names_of(path: Path) -> set[str]:
    """Returns the names by which a list may call a file: the ends of its path, with and without the ending."""
    parts = path.parts
    ends = ["/".join(parts[n:]) for n in range(len(parts))]
    return {*ends, *(end.removesuffix(path.suffix) for end in ends)}


def _place_of(line: str, by_name: dict[str, list[int]]) -> int | None:
    """Returns the only image that a line of a list names, by all of the line or its first word, or None."""
    names = [line]
    for text in (line.split()[0], line):
        parts = text.replace("\\", "/").split("/")
        names += ["/".join(parts[n:]) for n in range(len(parts))]
    return next((by_name[name][0] for name in names if len(by_name.get(name, [])) == 1), None)


class _Finder:
    """Finds the files that a table names: from its folder, from the root, with or without an ending."""

    def __init__(self, places: list[Path]) -> None:
        self._places = places
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, mask: bool = False) -> Path | None:
        for place in self._places:
            if (path := place / name).is_file():
                return path
        if self._by_name is None:
            self._by_name = {}
            for path in Listing().images(self._places[-1]):
                for key in {path.stem, path.name}:
                    self._by_name.setdefault(key, []).append(path)
        found = self._by_name.get(os.path.basename(name), [])
        if len(found) > 1:  # an image and its mask, often
            found = [path for path in found if is_mask_folder(path.parent.name) == mask]
        return found[0] if len(found) == 1 else None


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    text = path.read_text(encoding="utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = [
        line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in line)
    ]
    if not lines:
        raise ValueError(
            f"A table of images needs a header line and a row for each image. Received: {path}, which is empty"
        )
    return [cell.strip() for cell in lines[0]], lines[1:]


def _columns(head: Sequence[str]) -> dict[str, int]:
    lower = [name.lower().replace(" ", "_") for name in head]
    found = {}
    for column, names in _COLUMNS.items():
        place = next((lower.index(name) for name in names if name in lower), None)
        if place is not None:
            found[column] = place
    return found


def _class_names(labels: list[str]) -> tuple[str, ...]:
    """Returns the classes of a column: numbers in their order, other names in that of the alphabet."""
    names = {_plain_label(label) for label in labels if label.strip()}
    return tuple(sorted(names, key=lambda name: (0, int(name), "") if name.isdigit() else (1, 0, name)))


def _plain_label(label: str) -> str:
    """Returns a label as it is written, but 3.0, as spreadsheets make of 3, without its end."""
    label = label.strip()
    return label[:-2] if label.endswith(".0") and label[:-2].isdigit() else label
