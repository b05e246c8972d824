"""The options that say how a folder of images is read; the commands on data share them."""

import dataclasses
from typing import Annotated, Any

import typer

from dropzoo.cli.parsing import parse_values
from dropzoo.common.shell import quote

_FOLDER = "Data in a folder"


def _option(*flags: str, text: str, **more: Any) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel=_FOLDER, **more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """The fields of `Settings` that say how a folder is read."""

    images: Annotated[
        str | None, _option("--images", text='Folder or pattern of the images, as in "**/*_sat.jpg".')
    ] = None
    masks: Annotated[
        str | None, _option("--masks", text='Folder or pattern of the masks, as in "**/*_mask.png".')
    ] = None
    mask_suffix: Annotated[
        str | None,
        _option("--mask-suffix", text='The ending that mask names have after the image name, such as "_seg".'),
    ] = None
    masks_as: Annotated[
        str | None,
        _option(
            "--masks-as",
            text="Meaning of mask values: ids (class ids), instances (a number for each object, and each object "
            "is scored separately), threshold or threshold=128 (brighter pixels are foreground), palette or "
            "palette=FILE (each colour is a class), alpha (opaque pixels are foreground).",
        ),
    ] = None
    ignore_class: Annotated[
        int | None, _option("--ignore-class", text="Label of pixels that do not count, such as 255.")
    ] = None
    class_names: Annotated[
        str | None, _option("--class-names", text='Names of the classes: "sky,road,car", or a file.')
    ] = None
    split_file: Annotated[
        str | None,
        _option(
            "--split-file",
            text='CSV with a row for each image, or for each of its masks: a column "file", and any of "label", '
            '"mask", "split" and "group".',
        ),
    ] = None
    group_by: Annotated[
        str | None,
        _option(
            "--group-by",
            text='A pattern, such as "patient\\d+", or a column of the CSV. Images with the same match '
            "in their paths, or the same value in the column, stay in one split.",
        ),
    ] = None
    test_split: Annotated[
        float | None,
        _option(
            "--test-split", text="Fraction of test images, if the folder has no split of its own; 0.2 by default."
        ),
    ] = None
    pages: Annotated[
        str, _option("--pages", text="Meaning of the pages of TIFF stacks: images, channels, or auto.")
    ] = "auto"
    value_range: Annotated[
        str | None,
        _option(
            "--value-range",
            text="The stored values to read as black and as white, such as -1000,2000.",
            parser=parse_values,
        ),
    ] = None
    broken: Annotated[
        str, _option("--broken", text="What to do about files that cannot be read: refuse or skip.")
    ] = "refuse"
    cache: Annotated[
        str,
        _option(
            "--cache",
            text="Where to keep decoded images: memory, disk or none. auto: memory if they take up to 128 MB "
            "(512 MB for a TFDS set), else none.",
        ),
    ] = "auto"


def changed(options: FolderOptions) -> dict[str, Any]:
    """Returns the fields that differ from their defaults, with their values."""
    fields = dataclasses.fields(FolderOptions)
    return {each.name: value for each in fields if (value := getattr(options, each.name)) != each.default}


def flag_of(name: str) -> str:
    """Returns the option of a field of `FolderOptions`."""
    return f"--{name.replace('_', '-')}"


def given(options: FolderOptions) -> list[str]:
    """Returns the options that differ from their defaults, as they are written on the command line."""
    words = []
    for name, value in changed(options).items():
        text = ",".join(f"{each:g}" for each in value) if isinstance(value, tuple) else str(value)
        words.append(f"{flag_of(name)}={quote(text)}")  # with "=", a value may begin with a minus
    return words
