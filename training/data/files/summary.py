"""A description of a data set for people: its images, classes, sizes and splits, and likely mistakes."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dropzoo.training.data.files.headers import Facts
from dropzoo.training.data.files.reader import Reader
from dropzoo.training.data.files.splits import in_turns
from dropzoo.training.data.files.table import Sample, Table

_RARE = 0.01


@dataclasses.dataclass(frozen=True)
class Summary:
    """The facts that were read from a data set on disk.

    Attributes:
        place: The folder or file.
        task: `"classification"` or `"segmentation"`.
        class_names: The names of the classes.
        samples: The samples, each with its split.
        sizes: The number of images of each height, width and number of channels.
        dtypes: The number of images of each stored type.
        counts: For each split, the number of images of each class, or of pixels; "ignored" counts void pixels.
        groups: The number of groups; 0 if there are none.
        is_split: Bool. Whether the layout gives the split.
        unreadable: The reason for each file that cannot be read and is left out.
        notes: Sentences about how the data were read.
        doubts: Sentences about what looks wrong with the files; `load_data` warns with them.
        hints: Sentences about what looks wrong with the counts of the classes and the sizes of the images.
        example: Function from the number of a sample to a pair: its image, and its mask `(height, width)`, which
            is None for a sample with a label.
        objects: Function from the number of a sample to a mask `(height, width)` in which each object has its own
            number; None if the masks do not keep objects apart.
    """

    place: Path
    task: str
    class_names: tuple[str, ...]
    samples: list[Sample]
    sizes: Counter[tuple[int, int, int]]
    dtypes: Counter[str]
    counts: dict[str, dict[str, int]]
    groups: int
    is_split: bool
    unreadable: dict[Path, str]
    notes: list[str]
    doubts: list[str]
    hints: list[str]
    example: Callable[[int], tuple[np.ndarray, np.ndarray | None]]
    objects: Callable[[int], np.ndarray] | None = None

    def numbers(self, split: str) -> list[int]:
        """Returns the numbers of the samples of a split, in the order of its batches."""
        return in_turns(self.samples, split)

    def files(self, split: str) -> list[str]:
        """Returns the paths of the images of a split as str, in the order of its batches.

        Paths in the folder are relative to it, and all have forward slashes. A page of a TIFF stack has its
        number, from 1, at the end, as in `"scan.tif#2"`.
        """
        found = [self.samples[number] for number in self.numbers(split)]
        root = self.place if self.place.is_dir() else self.place.parent
        names = [
            (each.image.relative_to(root) if each.image.is_relative_to(root) else each.image).as_posix()
            for each in found
        ]
        return [
            name if each.page is None else f"{name}#{each.page + 1}"
            for name, each in zip(names, found, strict=True)
        ]


def summarise(
    table: Table,
    class_names: tuple[str, ...],
    facts: dict[Path, Facts],
    pixels: list[dict[int, int]] | None,
    reader: Reader,
) -> Summary:
    """Returns the summary of a table whose samples have splits.

    Args:
        table: The table.
        class_names: The names of the classes.
        facts: The facts about the files of the images.
        pixels: For each sample, the number of pixels of each class; None for labels.
        reader: Reads the samples.
    """
    ignore_class = reader.ignore_class
    counts: dict[str, dict[str, int]] = {}
    for number, sample in enumerate(table.samples):
        row = counts.setdefault(sample.split, dict.fromkeys(class_names, 0))
        if pixels is None:
            row[class_names[sample.label]] += 1
            continue
        for value, count in pixels[number].items():
            name = "ignored" if value == ignore_class else class_names[value]
            row[name] = row.get(name, 0) + count
    found = [facts[sample.image] for sample in table.samples]
    sizes = Counter((each.height, each.width, each.channels) for each in found)
    hints = _hints(table.task, counts, sizes, pixels)
    groups = len({sample.group for sample in table.samples} - {""})
    dtypes = Counter(each.dtype for each in found)
    return Summary(
        place=table.root,
        task=table.task,
        class_names=class_names,
        samples=table.samples,
        sizes=sizes,
        dtypes=dtypes,
        counts=counts,
        groups=groups,
        is_split=table.is_split,
        unreadable=table.unreadable,
        notes=table.notes,
        doubts=table.doubts,
        hints=hints,
        example=reader.example,
        objects=reader.objects if reader.meaning.kind == "instances" else None,
    )


def _hints(
    task: str,
    counts: dict[str, dict[str, int]],
    sizes: Counter[tuple[int, int, int]],
    pixels: list[dict[int, int]] | None,
) -> list[str]:
    """Returns sentences about what the numbers show."""
    found = []
    train = {name: count for name, count in counts.get("train", {}).items() if name != "ignored"}
    total = sum(train.values())
    what = "pixels" if task == "segmentation" else "images"
    absent = [name for name, count in train.items() if not count]
    if absent and total:
        found.append(f"No training {what} of the class {_names(absent)}")
    rare = [name for name, count in train.items() if 0 < count < _RARE * total]
    if rare:
        found.append(
            f"Fewer than 1 % of the training {what} are of the class {_names(rare)}; see `balance` (--balance)"
        )
    if (
        task == "classification"
        and total
        and max(train.values()) > 10 * max(1, min(c for c in train.values()))
        and not rare
    ):
        found.append("One class has over ten times as many training images as another; see `balance` (--balance)")
    for split, row in counts.items():
        missing = [name for name, count in row.items() if not count and train.get(name)]
        if missing and split != "train":
            found.append(f"No {split} {what} of the class {_names(missing)}")
    if pixels is not None and len(pixels) > 1:
        single = sum(len(each) == 1 for each in pixels)
        if single > len(pixels) / 2:
            found.append(f"{single:,} of {len(pixels):,} masks hold one class only")
        ignored = sum(row.get("ignored", 0) for row in counts.values())
        if ignored > 0.5 * sum(sum(row.values()) for row in counts.values()):
            found.append("More than half of all pixels do not count")
    if len(sizes) > 1:
        found.append(
            f"Images have {len(sizes)} different sizes; for batches of several images, pass `image_size` "
            "(--image-size) or a crop"
        )
    return found


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def histogram(
    values: np.ndarray, counts: np.ndarray, classes: dict[int, int], ignored: int | None
) -> dict[int, int]:
    """Returns the number of pixels of each class, and of the ignored label, from those of each stored value."""
    found: dict[int, int] = {}
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        number = value if value == ignored else classes[value]
        found[number] = found.get(number, 0) + count
    return found
