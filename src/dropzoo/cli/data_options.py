"""The options on how a folder of images is read, which train, sweep, evaluate and inspect share."""

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
        str | None, _option("--mask-suffix", text='What names of masks have behind those of images: "_seg".')
    ] = None
    masks_as: Annotated[
        str | None,
        _option(
            "--masks-as",
            text="What masks hold: ids, instances, threshold or threshold=128, palette or palette=FILE, alpha.",
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
        _option("--split-file", text="CSV with the columns file and label, mask, split or group, a row an image."),
    ] = None
    group_by: Annotated[
        str | None,
        _option("--group-by", text='What names of images that belong together share, "patient\\d+"; or a column.'),
    ] = None
    test_split: Annotated[
        float | None, _option("--test-split", text="Share of a folder without a split that tests; 0.2 by default.")
    ] = None
    pages: Annotated[str, _option("--pages", text="What pages of TIFF stacks are: images, channels, or auto.")] = (
        "auto"
    )
    value_range: Annotated[
        str | None,
        _option("--value-range", text="Values that become black and white: -1000,2000.", parser=parse_values),
    ] = None
    broken: Annotated[
        str, _option("--broken", text="What to do about files that cannot be read: refuse or skip.")
    ] = "refuse"
    cache: Annotated[
        str,
        _option("--cache", text="Where decoded images stay: memory, disk, none; auto: memory for up to 128 MB."),
    ] = "auto"


def given(options: FolderOptions) -> list[str]:
    """Returns the options that differ from their defaults, as they are written on the command line."""
    words = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            text = ",".join(f"{each:g}" for each in value) if isinstance(value, tuple) else str(value)
            # With "=", a value may begin with a minus.
            words.append(f"--{field.name.replace('_', '-')}={quote(text)}")
    return words
