"""The options that several commands share, and the functions that parse them."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dropzoo.cli.console import console
from dropzoo.cli.data_options import parse_size

DataOption = Annotated[str, typer.Option("--data", help="digits, digit_scenes, a TFDS name, or a folder.")]
AugmentOption = Annotated[str | None, typer.Option("--augment", help='"yes" (mild), or "rotation=15,crop=128".')]
DropoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dropout",
        help='A rate, a plan\'s name, or "pattern=spec" (repeatable), such as "decoder*=0.2". '
        "Specs: dropzoo list layers.",
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
        help='Changes rates during training. Repeatable: "pattern=schedule", such as "skip*=linear:0,0.3"; '
        "or one schedule for all sites. Schedules: constant, linear, cosine, step, curriculum, early, late.",
    ),
]
_HOW = "Data and training"
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, rich_help_panel=_HOW)]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size", help="Resize images: 256, or HEIGHTxWIDTH.", rich_help_panel=_HOW, parser=parse_size
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option("--data-dir", help="Folder where TFDS keeps prepared data sets.", rich_help_panel=_HOW),
]
InputRangeOption = Annotated[
    str | None,
    typer.Option(
        "--input-range",
        help="The values of a black and a white pixel that the model takes, such as 0,255. "
        "Without it, the model or its training images show them.",
    ),
]
FromLogitsOption = Annotated[
    bool | None,
    typer.Option(
        "--from-logits/--probabilities",
        help="Whether the model's output is logits, or probabilities. Without it, the model shows which.",
        show_default=False,
    ),
]
NoCalibrationOption = Annotated[
    bool,
    typer.Option(
        "--no-calibration",
        help="Leave out the calibration that dropzoo calibrate has made for the model.",
    ),
]
SamplesOption = Annotated[int, typer.Option("--mc", "--num-samples", min=1, help="Number of Monte-Carlo samples.")]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, rich_help_panel=_HOW)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The fields of `Settings` as options of the command line, except for the name of the data."""

    epochs: EpochsOption = 10
    batch_size: BatchSizeOption = 32
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="The largest learning rate.", rich_help_panel=_HOW)
    ] = 1e-3
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer", help='adam, adamw, sgd, lion; with settings: "sgd:momentum=0.9".', rich_help_panel=_HOW
        ),
    ] = "adam"
    warmup: Annotated[
        float,
        typer.Option("--warmup", help="Epochs in which the learning rate grows from 0.", rich_help_panel=_HOW),
    ] = 0.0
    clip_norm: Annotated[
        float | None,
        typer.Option("--clip-norm", help="Largest norm of all gradients together.", rich_help_panel=_HOW),
    ] = None
    ema: Annotated[
        float | None,
        typer.Option("--ema", help="Momentum of a moving average of the weights: 0.99.", rich_help_panel=_HOW),
    ] = None
    precision: Annotated[
        str,
        typer.Option("--precision", help="float32, mixed_bfloat16 or mixed_float16.", rich_help_panel=_HOW),
    ] = "float32"
    mixup: Annotated[
        float,
        typer.Option("--mixup", help="Mixes images and labels of classifiers: 0.2.", rich_help_panel=_HOW),
    ] = 0.0
    cutmix: Annotated[
        float,
        typer.Option("--cutmix", help="Puts boxes of one image into another: 1.0.", rich_help_panel=_HOW),
    ] = 0.0
    deep_supervision: Annotated[
        bool,
        typer.Option(
            "--deep-supervision", help="Losses at each stage of a U-Net's decoder.", rich_help_panel=_HOW
        ),
    ] = False
    learning_rate_schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            "--learning-rate-schedule",
            help="Schedule of the learning rate: cosine (down to 0), constant, one_cycle, polynomial.",
            rich_help_panel=_HOW,
        ),
    ] = "cosine"
    image_size: ImageSizeOption = None
    num_channels: Annotated[
        int | None, typer.Option("--channels", help="1 or 3: turn images grey or RGB.", rich_help_panel=_HOW)
    ] = None
    validation_split: Annotated[
        float,
        typer.Option(
            "--validation-split", help="Share of the training images kept for validation.", rich_help_panel=_HOW
        ),
    ] = 0.1
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Number of training images to use, from the first.", rich_help_panel=_HOW),
    ] = None
    manual_dir: Annotated[
        str | None,
        typer.Option("--manual-dir", help="Folder with the archives of a TFDS data set.", rich_help_panel=_HOW),
    ] = None
    data_dir: DataDirOption = None
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            help="For rare classes. weights: by median frequency, of images or pixels; sampling: images of all "
            "classes equally often; none.",
            rich_help_panel=_HOW,
        ),
    ] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The options on how images are read, for the commands that measure."""

    batch_size: BatchSizeOption = 32
    augment: AugmentOption = None
    image_size: ImageSizeOption = None
    data_dir: DataDirOption = None

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of `load_data` and `RunConfig`."""
        return {**vars(self), "augment": parse_augment(self.augment)}


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Lets a command take dataclasses of options: each field is an option of the command line.

    Typer reads options from the signature of a function, so the function that is returned has a signature with one
    parameter for each field.
    """
    signature = inspect.signature(command)
    annotations: dict[str, Any] = {name: each.annotation for name, each in signature.parameters.items()}
    groups = {name: group for name, group in annotations.items() if hasattr(group, "__dataclass_fields__")}
    # All keyword-only: an option, which has a default, may come before a parameter without one.
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
    """Returns a name for results on a data set: the name of the set or of its folder, even if that is ".".

    The version of a set, as in `cifar10:3.0.2`, follows a hyphen: names of files may have no colon on Windows.
    """
    return Path(os.path.abspath(data)).name.replace(":", "-")


def parse_augment(value: str | None) -> bool | str:
    """Reads `--augment` as `load_data` takes it: False for nothing or "none", True for "yes", else the text."""
    return {None: False, "none": False, "yes": True}.get(value, value or False)


#: The options of the command line that replace arguments of the API in errors.
_OPTIONS = {
    "overwrite=True": "--overwrite",
    "num_samples=0": "--num-samples 0",
    "`num_samples`": "--num-samples",
    "(`value_range`)": "(--value-range)",
    "image_dtype=": "--image-dtype ",
    "input_range=": "--input-range ",
    "from_logits=True": "--from-logits",
    "from_logits=False": "--probabilities",
    "task=": "--task ",
    "sites='search'": "--sites search",
    "temperature='per_class'": "--temperature per_class",
    "temperature=True in place of 'per_class'": "--temperature one in place of per_class",
    "`classes`": "--classes",
    " format=": " --format ",
    " precision=": " --precision ",
    "`precision`": "--precision",
}


@contextlib.contextmanager
def options_in_errors() -> Iterator[None]:
    """Replaces the arguments of the API by the options of the command line in the errors of the block."""
    try:
        yield
    except (ValueError, ImportError) as error:
        said = str(error)
        for argument, option in _OPTIONS.items():
            said = said.replace(argument, option)
        raise ValueError(said) from error


def parse_range(value: str | None) -> tuple[float, float] | None:
    """Reads `--input-range` as `export_model` takes it: a pair of numbers, or None."""
    if value is None:
        return None
    from dropzoo.common.pixels import check_range

    low, _, high = value.strip("()[] ").partition(",")
    try:
        return check_range((float(low), float(high)))
    except ValueError:
        raise ValueError(
            f"--input-range must be the values of a black and of a white pixel, such as 0,255. Received: {value!r}"
        ) from None


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
    if len(values) == 1 and "=" not in values[0].partition(":")[0]:  # behind the colon it sets an option
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
    """Reads `--resource name=amount` as a dict of amounts; None if there is no such option."""
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
