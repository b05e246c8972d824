"""The command that looks at data before training: inspect."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from dropzoo.cli.console import console, say
from dropzoo.cli.data_options import FolderOptions, given
from dropzoo.cli.errors import options_in_errors
from dropzoo.cli.options import with_groups
from dropzoo.common.shell import quote
from dropzoo.common.words import count_of


@with_groups
def inspect(
    data: Annotated[Path, typer.Argument(help="A folder of images.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write an HTML page with the tables and some images of each class."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="Convert images to grey (1) or RGB (3).")
    ] = None,
    validation_split: Annotated[
        float,
        typer.Option("--validation-split", help="Fraction of the training images that is kept for validation."),
    ] = 0.1,
    *,
    reading: FolderOptions,
) -> None:
    """Shows how a folder is read: classes, sizes, splits, and likely mistakes. Decodes every file.

    The options --broken and --cache do not change the output, except for the command in the last line.

    Example: dropzoo inspect cells --out sheet.html
    """
    from dropzoo import training
    from dropzoo.common.checks import check_choice
    from dropzoo.pages.inspection import save_sheet
    from dropzoo.runs.description import show
    from dropzoo.training.data.cache import CACHES

    check_choice(reading.broken, "--broken", ("refuse", "skip"))
    check_choice(reading.cache, "--cache", CACHES)
    options = {**vars(reading), "cache": "none", "broken": "skip"}
    with options_in_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the doubts are printed below
        found = training.load_data(
            data, batch_size=1, num_channels=channels, validation_split=validation_split, **options
        )
    summary = found.summary
    if summary is None:
        raise ValueError(f"`inspect` needs a folder of images. Received: {str(data)!r}")
    show(found, console.print, say, every=True)
    for path, reason in summary.unreadable.items():
        say(reason if str(path) in reason else f"{path}: {reason}")
    if out is not None:
        say(f"Saved {save_sheet(out, summary, found.info)}")
    if broken := summary.unreadable:
        raise ValueError(_advice(list(broken.values())))
    if found.info.num_train:
        model = "unet" if summary.task == "segmentation" else "simple_cnn"
        said = given(reading) + [f"--channels={channels}"] * (channels is not None)
        said += [f"--validation-split={validation_split:g}"] * (validation_split != 0.1)
        # Images of different sizes cannot form a batch.
        said += ["--image-size HEIGHTxWIDTH"] * (len({size[:2] for size in summary.sizes}) > 1)
        say(" ".join([f"Next: dropzoo train {model} --data {quote(str(data))}", *said]))


def _advice(reasons: list[str]) -> str:
    """Returns what to do about files that cannot be read, from the reason for each file."""
    from dropzoo.common.images import lacks_package

    files = f"{count_of(len(reasons), 'file')} cannot be read"
    lacking = sum(map(lacks_package, reasons))
    if lacking == len(reasons):
        return f"{files}, because a package is missing. Install it: pip install imagecodecs"
    first = f"For {lacking:,} of them, install a package: pip install imagecodecs. " if lacking else ""
    rest = "the rest" if lacking else "it" if len(reasons) == 1 else "them"
    return f"{files}. {first}Replace or remove {rest}, or train with --broken skip"
