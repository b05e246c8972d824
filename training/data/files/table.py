"""The model of a data set on disk: a table of samples, into which every layout is read."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from dropzoo.common.words import count_of

#: The splits of a data set, in their order, and the names of folders and files that mean each.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "tst"),
}


@dataclasses.dataclass(frozen=True)
class Runs:
    """The pixels of an object, column by column: how many are outside, then inside, then outside, and so on."""

    counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Starts:
    """The pixels of an object, as tables write them: the first pixel of each run, counted from 1, and its length.

    Attributes:
        text: Numbers with spaces between them: `"1 3 10 2"` means the pixels 1, 2, 3, 10 and 11.
        by_rows: Bool. Whether pixels are counted along the rows, and not down the columns.
    """

    text: str
    by_rows: bool = False


#: The pixels of an object: polygons, each with the corners `x0, y0, x1, y1, ...`; run lengths; or a file.
Shape: TypeAlias = tuple[tuple[float, ...], ...] | Runs | Starts | Path


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The mask of an image as its objects, which are drawn when it is read: later ones cover earlier ones.

    Attributes:
        size: The height and the width of the image; `(0, 0)` until its file was looked at.
        shapes: Pairs of a class id and a shape, one for each object.
    """

    size: tuple[int, int]
    shapes: tuple[tuple[int, Shape], ...]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row of the table.

    Attributes:
        image: The file of the image.
        label: The class of the image; -1 if it has a mask.
        mask: The file or the objects of its mask, or None.
        split: A key of `SPLITS`, or "" if the layout gives no split.
        group: Images of one group, such as a patient, stay in one split; "" if the layout gives no groups.
        page: The number of the page in a stack of images, or None.
    """

    image: Path
    label: int = -1
    mask: Path | Drawn | None = None
    split: str = ""
    group: str = ""
    page: int | None = None

    @property
    def files(self) -> list[Path]:
        """The file of the image, and those of its mask."""
        mask = self.mask
        masks = [shape for _, shape in mask.shapes] if isinstance(mask, Drawn) else [mask]
        return [self.image, *(each for each in masks if isinstance(each, Path))]


@dataclasses.dataclass
class Table:
    """A data set on disk.

    Attributes:
        root: The folder or the file that the user named.
        samples: The rows, in the order of their names.
        class_names: The names of the classes, if the layout gives them.
        is_split: Whether the layout gives the split.
        unreadable: The reason for each file that cannot be read and is left out.
        notes: Sentences about how the data were read, for people.
        doubts: Sentences about what looks wrong, for people.
    """

    root: Path
    samples: list[Sample]
    class_names: tuple[str, ...] = ()
    is_split: bool = False
    unreadable: dict[Path, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    doubts: list[str] = dataclasses.field(default_factory=list)

    @property
    def task(self) -> str:
        """`"segmentation"` if the samples have masks, or else `"classification"`."""
        return "segmentation" if any(sample.mask is not None for sample in self.samples) else "classification"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """The options for reading a folder. They are arguments of `load_data`, which checks them.

    Attributes:
        images: Folder or pattern of the images, within the folder.
        masks: Folder or pattern of the masks, within the folder.
        split_file: File with a row for each image.
        mask_suffix: The end of the name of a mask, after the name of its image.
        masks_as: The meaning of the numbers or colours in masks.
        ignore_class: The label of pixels that do not count.
        class_names: The names of the classes: a sequence, comma-separated text, or a file.
        group_by: A regular expression, or a column of `split_file`.
        pages: The meaning of the pages of a stack: `"auto"`, `"images"` or `"channels"`.
        value_range: The values that become 0 and 1.
        broken: What happens to files that cannot be read: `"refuse"` or `"skip"`.
        validation_split: The fraction of the training images that are kept for validation.
        test_split: The fraction of test images, if the layout gives no split; None for a fifth. 1 makes all images
            test images.
        num_channels: The number of channels of all images, if grey and RGB images are mixed.
    """

    images: str | None = None
    masks: str | None = None
    split_file: str | None = None
    mask_suffix: str | None = None
    masks_as: str | None = None
    ignore_class: int | None = None
    class_names: Sequence[str] | str | None = None
    group_by: str | None = None
    pages: str = "auto"
    value_range: tuple[float, float] | None = None
    broken: str = "refuse"
    validation_split: float = 0.1
    test_split: float | None = None
    num_channels: int | None = None


def split_of(name: str) -> str:
    """Returns the split that a name such as "valid" means, or "" for any other name."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), "")


def written_in(path: Path) -> str:
    """Returns the text of a file that people write: a table, a list, names.

    Raises:
        ValueError: If its letters are encoded neither as UTF-8 nor as marked UTF-16.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected text in UTF-8. Received: {path} with the byte {data[error.start]:#04x}. Save it as UTF-8, "
            'such as "CSV UTF-8" in a spreadsheet'
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def some(names: Sequence[str], most: int = 5) -> str:
    """Returns the first names, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def missing_files(missing: Sequence[str], count: int, path: Path) -> ValueError:
    """Returns the error for a table that names files which cannot be found.

    Args:
        missing: The names of these files.
        count: Int, the number of files that the table names.
        path: The table.
    """
    every = len(missing) == count
    way = (
        "from the folder of the images, or from that of the table"
        if every
        else "or leave out such files with broken='skip' (--broken skip)"
    )
    return ValueError(
        f"For {len(missing):,} of {count_of(count, 'file')} in {path}, there is no file, or more than one: "
        f"{some(missing)}. Write the path of each image into the table, {way}"
    )


def counted(counts: Mapping[str, int] | Counter[str]) -> str:
    """Returns counts in words: "3 .txt, 1 .heic"."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
