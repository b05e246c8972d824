"""Tables of run lengths: a CSV with a row for each object, or for each image, as on Kaggle."""

import re
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.words import count_of
from dropzoo.training.data.files.columns import (
    cell_of,
    class_names_of,
    column_of_runs,
    find_columns,
    joint_column,
    labels_of,
    plain_label,
    runs_in,
    split_of_row,
)
from dropzoo.training.data.files.listing import is_mask_folder
from dropzoo.training.data.files.names import FileNames
from dropzoo.training.data.files.objects import NAMES
from dropzoo.training.data.files.table import Drawn, Reading, Sample, Starts, Table, missing_files, some

_NUMBERS = re.compile(r"\d+( \d+)*")


def columns_of_runs(
    head: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]], int] | None:
    """Returns the head and the lines of a table, and its column of run lengths; None for another table.

    A column `ImageId_ClassId` becomes two: `file` and `label`.
    """
    place = column_of_runs(head, lines)
    if place is None:
        return None
    joint = joint_column(head)
    if joint is None:
        return list(head), [list(line) for line in lines], place
    cells = [cell_of(line, joint).rpartition("_") for line in lines]
    rows = [[*line, file, label] for line, (file, _, label) in zip(lines, cells, strict=True)]
    return [*head, "file", "label"], rows, place


def columns_beside_runs(head: Sequence[str], lines: Sequence[Sequence[str]], place: int) -> dict[str, int]:
    """Returns the places of the columns besides that of run lengths."""
    rest = ["" if n == place else name for n, name in enumerate(head)]
    return {name: n for name, n in find_columns(rest, lines).items() if n != place and name != "mask"}


def read_runs(
    path: Path,
    found: tuple[list[str], list[list[str]], int],
    reading: Reading,
    finder: FileNames,
) -> Table:
    """Returns the table of a CSV of run lengths: class 0 is the background, and the classes of a column follow.

    Args:
        path: The file.
        found: The result of `columns_of_runs`.
        reading: The options.
        finder: Finds the images.

    Raises:
        ValueError: If images do not exist, or a cell does not hold pairs of numbers.
    """
    head, lines, place = found
    columns = columns_beside_runs(head, lines, place)
    if reading.group_by is not None:
        columns.pop("group", None)  # the regular expression replaces a column that nobody named
    if reading.group_by in head:
        columns["group"] = head.index(str(reading.group_by))
    labels = _labels(lines, columns, place, path)
    classes = class_names_of(labels)
    numbers = {name: n for n, name in enumerate(classes, 1)}
    shapes: dict[str, list[tuple[int, Starts]]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for line, label in zip(lines, labels, strict=True):
        name = cell_of(line, columns["file"])
        objects = shapes.setdefault(name, [])
        split, group = (cell_of(line, columns[each]) if each in columns else "" for each in ("split", "group"))
        if not facts.get(name, ("", ""))[0]:
            facts[name] = split_of_row(split, name, path), group
        if text := runs_in(line, place):
            _refuse_text(text, name, path)
            objects.append((numbers[label] if classes else 1, Starts(text)))
    images = finder.find_all(list(shapes), lambda each: not is_mask_folder(each.parent.name))
    missing = [name for name, image in zip(shapes, images, strict=True) if image is None]
    if missing and (len(missing) == len(shapes) or reading.broken != "skip"):
        raise missing_files(missing, len(shapes), path)
    samples = [
        Sample(image, mask=Drawn((0, 0), tuple(objects)), split=facts[name][0], group=facts[name][1])
        for (name, objects), image in zip(shapes.items(), images, strict=True)
        if image is not None
    ]
    table = Table(path, samples, (NAMES[0], *classes) if classes else NAMES)
    if missing:
        table.doubts.append(
            f"Left out {count_of(len(missing), 'file')} in {path} that cannot be found: {some(missing)}"
        )
    _add_unlisted(table, finder.files)
    table.samples.sort(key=lambda sample: sample.image)
    return table


def _labels(lines: Sequence[Sequence[str]], columns: dict[str, int], place: int, path: Path) -> list[str]:
    """Returns the class of each row, or "" if there is no column of classes."""
    if "label" not in columns:
        return [""] * len(lines)
    drawn = [line for line in lines if runs_in(line, place)]
    labels_of(drawn, columns, {}, path)  # an object needs a class; an image without any does not
    return [plain_label(cell_of(line, columns["label"])) for line in lines]


def _refuse_text(text: str, name: str, path: Path) -> None:
    if not _NUMBERS.fullmatch(text) or text.count(" ") % 2 == 0:
        shown = text if len(text) < 40 else f"{text[:40]}..."
        raise ValueError(
            f"Run lengths must be pairs of whole numbers, the first pixel of a run and its length, with spaces "
            f"between them. Received: {shown!r} for {name} in {path}. Draw other encodings into PNG files of "
            "class ids first"
        )


def _add_unlisted(table: Table, files: Sequence[Path]) -> None:
    """Adds the images of these folders that have no row, unless the table has rows for images without objects."""
    listed = {sample.image for sample in table.samples}
    folders = {image.parent for image in listed}
    unlisted = [file for file in files if file.parent in folders and file not in listed]
    if not unlisted:
        return
    names = some([file.name for file in unlisted])
    empty = sum(isinstance(sample.mask, Drawn) and not sample.mask.shapes for sample in table.samples)
    bare = count_of(len(unlisted), "image has", "images have")
    if empty:
        do = count_of(empty, "image without an object does", "images without an object do")
        table.doubts.append(
            f"{bare} no row in {table.root} and will be left out: {names}. They may show objects, "
            f"since {do} have rows"
        )
        return
    table.doubts.append(
        f"{bare} no row in {table.root} and will be read as showing no object: {names}. "
        "If you do not know whether such an image shows objects, move it out of the folder"
    )
    split = {sample.split for sample in table.samples}
    only = split.pop() if len(split) == 1 else "train"
    table.samples += [Sample(file, mask=Drawn((0, 0), ()), split=only) for file in unlisted]
