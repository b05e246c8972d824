"""The columns of a table of images: what they hold, and the label of each row."""

import re
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.checks import did_you_mean
from dropzoo.training.data.files.table import SPLITS, some, split_of

# The heads of the columns, as people write them; only lower-case letters and digits count.
_COLUMNS = {
    "file": (
        *(
            "file",
            "filename",
            "image",
            "imagepath",
            "path",
            "filepath",
            "img",
            "imageid",
            "imagename",
            "imagefile",
        ),
        *("imagefilename", "imgname", "imgpath", "imgid", "fname", "relativepath", "id", "name"),
    ),
    "mask": ("mask", "maskpath", "maskfile", "maskname", "segmentation", "annotation"),
    "label": (
        *("label", "class", "classname", "category", "target", "diagnosis", "y", "labels", "classid", "labelname"),
        *("dx", "breed", "species", "celltype"),
    ),
    "split": ("split", "set", "subset", "partition"),
    "group": (
        *("group", "patient", "patientid", "subject", "subjectid", "case", "caseid", "lesionid", "studyid"),
        *("participant", "participantid"),
    ),
}
#: The heads of columns of masks as run lengths, and those of columns that may hold them.
RUN_LENGTHS = ("encodedpixels", "encodedpixel", "rle", "rles", "rlemask", "maskrle", "runlengths", "runlength")
_MAYBE_RUNS = ("mask", "annotation", "segmentation", "pixels")
_RUNS = re.compile(r"\d+ \d+( \d+ \d+)*")
_EMPTY = {"", "nan", "na", "n/a", "null", "<na>"}  # what programs write for a value that is missing
_MOST_VALUES = 20  # labels with fractions; if there are more, they are measured values


def squashed(name: str) -> str:
    """Returns a name in lower case, without anything but letters and digits."""
    return re.sub("[^a-z0-9]", "", name.lower())


def find_columns(head: Sequence[str], lines: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns the places of the known columns of a table.

    If a table has two columns, and only that of the files is known, the other one holds the labels.
    """
    heads = [squashed(name) for name in head]
    found = {}
    for column, names in _COLUMNS.items():
        place = next((heads.index(name) for name in names if name in heads), None)
        if place is not None:
            found[column] = place
    if "mask" in found and not any(cell_of(line, found["mask"]) for line in lines):
        del found["mask"]
    if len(head) == 2 and list(found) == ["file"] and heads[1 - found["file"]] not in RUN_LENGTHS:
        found["label"] = 1 - found["file"]
    if "mask" not in found and _is_class_itself(head, lines, found):
        del found["label"]
    return found


def _is_class_itself(head: Sequence[str], lines: Sequence[Sequence[str]], found: dict[str, int]) -> bool:
    """Returns whether the column of labels is one of several columns that are classes: a class called `y`.

    Together with at least two columns of 0 and 1, each row has exactly one 1, and the column itself has some.
    """
    if "label" not in found:
        return False
    others = {name: n for name, n in found.items() if name != "label"}
    hot = marked_columns(head, lines, others).values()
    if len(hot) < 3 or found["label"] not in hot:
        return False
    marks = [[float(line[n]) for n in hot] for line in lines]
    return all(sum(row) == 1 for row in marks) and any(float(line[found["label"]]) == 1 for line in lines)


def column_of_runs(head: Sequence[str], lines: Sequence[Sequence[str]]) -> int | None:
    """Returns the place of the column of run lengths, or None for a table without one."""
    heads = [squashed(name) for name in head]
    for place, name in enumerate(heads):
        if name in RUN_LENGTHS:
            return place
        cells = [runs_in(line, place) for line in lines] if name in _MAYBE_RUNS else []
        if any(cells) and all(_RUNS.fullmatch(cell) for cell in cells if cell):
            return place
    return None


def runs_in(line: Sequence[str], place: int) -> str:
    """Returns the run lengths in a cell, with spaces between numbers; "" if there is no object, as for -1."""
    text = " ".join(re.sub(r"[\[\](),;]", " ", cell_of(line, place)).split())
    return "" if text == "-1" else text


def joint_column(head: Sequence[str]) -> int | None:
    """Returns the place of a column such as `ImageId_ClassId` or `Image_Label`, or None."""
    for place, name in enumerate(head):
        parts = [squashed(part) for part in re.split("[_ -]", name)]
        if len(parts) == 2 and parts[0] in _COLUMNS["file"] and parts[1] in _COLUMNS["label"]:
            return place
    return None


def cell_of(line: Sequence[str], place: int) -> str:
    """Returns the text of a cell, or "" where a value is missing."""
    text = line[place].strip() if place < len(line) else ""
    return "" if text.lower() in _EMPTY else text


def labels_of(
    lines: Sequence[Sequence[str]], columns: dict[str, int], hot: dict[str, int], path: Path
) -> list[str]:
    """Returns the label of each row; in a table with a column for each class, the name of the column with a 1."""
    if hot:
        return [next(name for name, place in hot.items() if float(line[place]) == 1) for line in lines]
    if "label" not in columns:
        return [""] * len(lines)
    place = columns["label"]
    labels = [plain_label(line[place]) if place < len(line) else "" for line in lines]
    labels = ["" if label.lower() == "nan" else label for label in labels]
    if "mask" not in columns and (without := labels.count("")):
        raise ValueError(
            f"Each row needs a label. Received: {without:,} of {len(lines):,} rows without a label, in {path}"
        )
    return labels


def split_of_row(text: str, file: str, path: Path) -> str:
    """Returns the split that the cell of a file means, or "" for an empty cell."""
    split = split_of(text)
    if text and not split:
        known = [name for each in SPLITS.values() for name in each]
        raise ValueError(
            f"A split must be train, validation or test. Received: {text!r} for {file} in {path}."
            f"{did_you_mean(text, known)}"
        )
    return split


def class_names_of(labels: list[str]) -> tuple[str, ...]:
    """Returns the classes of a column: numbers in their order, other names in alphabetical order."""
    names = {plain_label(label) for label in labels if label.strip()}
    return tuple(sorted(names, key=lambda name: (0, int(name), "") if name.isdigit() else (1, 0, name)))


def plain_label(label: str) -> str:
    """Returns a label as it is written, but 3.0, which spreadsheets make of 3, as 3."""
    label = label.strip()
    return label[:-2] if label.endswith(".0") and label[:-2].isdigit() else label


def refuse_measured(names: Sequence[str], count: int, path: Path) -> None:
    """Raises a ValueError for labels that are measured values rather than classes."""

    def is_fraction(name: str) -> bool:
        try:
            return not float(name).is_integer()
        except (ValueError, OverflowError):
            return False

    values = sum(map(is_fraction, names))
    if values > _MOST_VALUES or values > max(2, count // 2):
        raise ValueError(
            f"Labels must be classes. Received: {len(names):,} numbers in {path}, such as {some(names, 3)}. "
            f"Data folders are only for classes and masks; to train on measured values, pass arrays or a "
            f"dataset to `Trainer`"
        )


def marked_columns(head: Sequence[str], lines: Sequence[Sequence[str]], columns: dict[str, int]) -> dict[str, int]:
    """Returns the columns besides the known ones, if there are several and they hold nothing but 0 and 1."""
    # The first column of a table may number its rows; pandas writes its head as "" or "Unnamed: 0".
    rest = [n for n in range(len(head)) if n not in columns.values() and squashed(head[n]) not in ("", "unnamed0")]
    is_hot = all(cell_of(line, n) in ("0", "1", "0.0", "1.0") for line in lines for n in rest)
    return {head[n]: n for n in rest} if len(rest) > 1 and is_hot else {}


def one_hot(
    head: Sequence[str], lines: Sequence[Sequence[str]], columns: dict[str, int], path: Path
) -> dict[str, int]:
    """Returns the columns that are classes: each row has a 1 in one of them.

    Raises:
        ValueError: If rows mark several columns, or none.
    """
    hot = marked_columns(head, lines, columns)
    counts = {int(sum(float(line[n]) for n in hot.values())) for line in lines} if hot else {1}
    if counts != {1} and {"split", "group"} & set(columns):
        return {}  # facts about the images, whose labels are elsewhere
    if counts != {1}:
        raise ValueError(
            f"Each image needs one class. Received: {path} with rows that mark "
            f"{' or '.join(map(str, sorted(counts)))} of the columns {some(list(hot))}. For several labels of an "
            "image, pass arrays or a dataset to `Trainer`"
        )
    return hot


def combinations(names: Sequence[str]) -> list[str]:
    """Returns the labels that look like several: "sky road", if other labels have the words `sky` and `road`."""
    parts = {name: [word for word in re.split(r"[\s,;|]+", name) if word] for name in names}
    common = {
        word for words in parts.values() for word in words if sum(word in each for each in parts.values()) > 1
    }
    found = [name for name, words in parts.items() if len(words) > 1 and common >= set(words)]
    return found if len(found) > 1 else []
