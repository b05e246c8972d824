"""Options that several commands share, how they are read, and where commands print."""

import ast
import dataclasses
import functools
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# A file or a pipe has no width, so no table is cut there.
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)

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
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, rich_help_panel=_HOW)]
ImageSizeOption = Annotated[
    int | None, typer.Option("--image-size", help="Resize images to this square.", rich_help_panel=_HOW)
]
DataDirOption = Annotated[
    str | None, typer.Option("--data-dir", help="Where TFDS keeps prepared sets.", rich_help_panel=_HOW)
]
SamplesOption = Annotated[int, typer.Option("--num-samples", "--mc", min=1, help="Number of Monte-Carlo samples.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is trained, and on which images: the fields of `Settings` but for the data's name."""

    epochs: Annotated[int, typer.Option("--epochs", min=1, rich_help_panel=_HOW)] = 10
    batch_size: BatchSizeOption = 32
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Learning rate of Adam.", rich_help_panel=_HOW)
    ] = 1e-3
    learning_rate_schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            "--learning-rate-schedule",
            help="Of the learning rate: cosine (down to 0) or constant.",
            rich_help_panel=_HOW,
        ),
    ] = "cosine"
    image_size: ImageSizeOption = None
    num_channels: Annotated[
        int | None, typer.Option("--channels", help="1 or 3: turn images grey or RGB.", rich_help_panel=_HOW)
    ] = None
    validation_split: Annotated[
        float, typer.Option("--validation-split", help="Share of the training images.", rich_help_panel=_HOW)
    ] = 0.1
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Train on the first images only: how many.", rich_help_panel=_HOW),
    ] = None
    manual_dir: Annotated[
        str | None, typer.Option("--manual-dir", help="Folder with a TFDS set's archives.", rich_help_panel=_HOW)
    ] = None
    data_dir: DataDirOption = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How images are read, for the commands that measure."""

    batch_size: BatchSizeOption = 32
    augment: AugmentOption = None
    image_size: ImageSizeOption = None
    data_dir: DataDirOption = None

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of `load_data` and `RunConfig`."""
        return {**vars(self), "augment": parse_augment(self.augment)}


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Lets a command take dataclasses of options: each field is an option of the command line.

    Typer reads the options off a signature, so the command shows it one in which the fields stand by themselves.
    """
    signature = inspect.signature(command)
    annotations: dict[str, Any] = {name: each.annotation for name, each in signature.parameters.items()}
    groups = {name: group for name, group in annotations.items() if hasattr(group, "__dataclass_fields__")}
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            for field in dataclasses.fields(groups[parameter.name]):
                kind = inspect.Parameter.KEYWORD_ONLY
                flag = inspect.Parameter(field.name, kind, default=field.default, annotation=field.type)
                parameters.append(flag)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    flat.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return flat


def say(text: str) -> None:
    """Prints a line as it is: square brackets are not markup, and a long line is not broken."""
    console.print(text, soft_wrap=True, markup=False)


def data_name(data: str) -> str:
    """Returns a name for a folder of results: that of the data set or of the folder of images, also for "."."""
    return Path(os.path.abspath(data)).name


def parse_augment(value: str | None) -> bool | str:
    """Reads `--augment` as `load_data` takes it: False for nothing or "none", True for "yes", else the text."""
    return {None: False, "none": False, "yes": True}.get(value, value or False)


def parse_dropout(values: list[str] | None) -> Any:
    """Reads `--dropout` as `build_model` takes it: None, a rate, a plan's name, or a dict of patterns."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return _number(values[0])
    return _by_pattern("--dropout", "pattern=spec", values)


def parse_rate_schedule(values: list[str] | None) -> dict[str, Any] | None:
    """Reads `--rate-schedule` as `RateSchedule` takes it: a dict of patterns, or None."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0].partition(":")[0]:
        return {"*": _number(values[0])}
    return _by_pattern("--rate-schedule", "pattern=schedule", values)


def parse_options(values: list[str] | None) -> dict[str, Any]:
    """Reads `--option name=value`, where the value is a Python literal or a bare word."""
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
    """Reads `--resource name=amount`; None if there is none."""
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
