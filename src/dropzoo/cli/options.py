"""Options that several commands have, how they are read, and where commands print."""

import ast
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# A file or a pipe has no width that a table would have to be cut to.
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)
given: list[str] = []
"""What the command line was given; workers are started with the same."""

DataOption = Annotated[str, typer.Option("--data", help="digits, digit_scenes, a TFDS name, or a folder.")]
AugmentOption = Annotated[
    str | None, typer.Option("--augment", help='"yes" (mild), or "flip_horizontal,rotation=15,crop=128".')
]
DropoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dropout",
        help='A rate, a plan\'s name, or, repeatable, "pattern=spec" such as "decoder*=spatial_dropout2d:0.2".',
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help='Repeatable: an option of the model, "depth=3" or "filters=(32, 64)".'),
]
RateScheduleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rate-schedule",
        help='Repeatable: "pattern=schedule" such as "decoder*=linear:0.0,0.3", the rate over the run in place of '
        "a fixed one; or one for all. constant, linear, cosine, step, curriculum, early, late.",
    ),
]
_HOW = "How it is trained"
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, rich_help_panel=_HOW)]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, rich_help_panel=_HOW)]
LearningRateOption = Annotated[float, typer.Option("--learning-rate", help="Of Adam.", rich_help_panel=_HOW)]
ScheduleOption = Annotated[
    str,
    typer.Option("--schedule", help="Of the learning rate: cosine (down to 0) or constant.", rich_help_panel=_HOW),
]
ImageSizeOption = Annotated[
    int | None, typer.Option("--image-size", help="Resize images to this square.", rich_help_panel=_HOW)
]
ChannelsOption = Annotated[
    int | None, typer.Option("--channels", help="1 or 3: turn images grey or RGB.", rich_help_panel=_HOW)
]
ValidationSplitOption = Annotated[
    float, typer.Option("--validation-split", help="Of the training images.", rich_help_panel=_HOW)
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", help="Train on the first so many images.", rich_help_panel=_HOW)
]
ManualDirOption = Annotated[
    str | None, typer.Option("--manual-dir", help="Folder with a TFDS set's archives.", rich_help_panel=_HOW)
]
DataDirOption = Annotated[
    str | None, typer.Option("--data-dir", help="Where TFDS keeps prepared sets.", rich_help_panel=_HOW)
]
SamplesOption = Annotated[int, typer.Option("--num-samples", "--mc", min=1, help="Number of Monte-Carlo samples.")]


def say(text: str) -> None:
    """Prints a line as it is: square brackets, as of a path, are no markup, and a long line is not broken."""
    console.print(text, soft_wrap=True, markup=False)


def data_name(data: str) -> str:
    """What a folder is called that is made for a data set, or for a folder of images: "." has a name, too."""
    return Path(os.path.abspath(data)).name


def parse_augment(value: str | None) -> bool | str:
    """`--augment` as `load_data` takes it: False for nothing or "none", True for "yes", else the text."""
    return {None: False, "none": False, "yes": True}.get(value, value or False)


def training_arguments(context: typer.Context) -> dict[str, Any]:
    """What a command was given that says how a model is trained, by the names of `RunConfig`."""
    names = ("epochs", "batch_size", "learning_rate", "schedule", "image_size", "validation_split", "limit")
    found = {name: context.params[name] for name in (*names, "manual_dir", "data_dir")}
    return {**found, "num_channels": context.params["channels"]}


def parse_dropout(values: list[str] | None) -> Any:
    """`--dropout` as `build_model` takes it: None, a rate, a plan's name, or a dict of patterns."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return _number(values[0])
    return _by_pattern("--dropout", "pattern=spec", values)


def parse_rate_schedule(values: list[str] | None) -> dict[str, Any] | None:
    """`--rate-schedule` as `RateSchedule` takes it, in text: a dict of patterns, or None."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0].partition(":")[0]:
        return {"*": _number(values[0])}
    return _by_pattern("--rate-schedule", "pattern=schedule", values)


def parse_options(values: list[str] | None) -> dict[str, Any]:
    """`--option name=value`, where the value is a Python literal or a bare word."""
    options: dict[str, Any] = {}
    for value in values or ():
        name, equals, literal = value.partition("=")
        if not equals:
            raise ValueError(f'--option must be "name=value". Received: {value!r}')
        try:
            options[name.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            options[name.strip()] = literal.strip()
    return options


def parse_resources(values: list[str] | None) -> dict[str, float] | None:
    """`--resource name=amount`, of Ray; None where none is given."""
    found = {}
    for value in values or ():
        name, _, amount = value.partition("=")
        number = _number(amount)
        if not name or not isinstance(number, float) or not 0 <= number < math.inf:
            raise ValueError(f'--resource must be "name=amount", as in "cpu=2". Received: {value!r}')
        found[name.strip()] = number
    return found or None


def _by_pattern(option: str, form: str, values: list[str]) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    for value in values:
        pattern, equals, spec = value.partition("=")
        if not equals or not pattern or not spec:
            raise ValueError(f'Several {option} must each be "{form}". Received: {value!r}')
        plan[pattern] = None if spec == "none" else _number(spec)
    return plan


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
