"""The options that several commands share."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dropzoo.cli.data_options import FolderOptions
from dropzoo.cli.parsing import parse_augment, parse_size, parse_values

DataOption = Annotated[str, typer.Option("--data", help="digits, digit_scenes, a TFDS name, or a folder.")]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        "--augment", help='Random augmentation: "yes" (mild), or your own, as in "rotation=15,crop=128".'
    ),
]
DropoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dropout",
        help='A rate, a plan\'s name, or "pattern=spec" (repeatable), such as "decoder*=0.2". '
        "A spec is a rate, or a layer (dropzoo list layers).",
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help='Repeatable: an option of the model, such as "depth=3" or "filters=(32, 64)".'),
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
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Number of images in a batch.", rich_help_panel=_HOW)
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size", help="Resize images: 256, or HEIGHTxWIDTH.", rich_help_panel=_HOW, parser=parse_size
    ),
]
ChannelsOption = Annotated[
    int | None, typer.Option("--channels", help="Convert images to grey (1) or RGB (3).", rich_help_panel=_HOW)
]
ManualDirOption = Annotated[
    str | None,
    typer.Option(
        "--manual-dir", help="Folder with the downloaded archives of a TFDS data set.", rich_help_panel=_HOW
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option("--data-dir", help="Folder where TFDS keeps prepared data sets.", rich_help_panel=_HOW),
]
ValueRangeOption = Annotated[
    str | None,
    typer.Option(
        "--value-range",
        help="The stored values to read as black and as white, such as -1000,2000, for large integers and for "
        "floats beyond 0 to 1. By default, those of the training images.",
        parser=parse_values,
    ),
]
InputRangeOption = Annotated[
    str | None,
    typer.Option(
        "--input-range",
        help="The values that mean black and white to the model, such as 0,255. By default, they are read "
        "from the model.",
    ),
]
FromLogitsOption = Annotated[
    bool | None,
    typer.Option(
        "--from-logits/--probabilities",
        help="Whether the model's output is logits or probabilities. By default, this is read from the model.",
        show_default=False,
    ),
]
NoCalibrationOption = Annotated[
    bool,
    typer.Option(
        "--no-calibration",
        help="Ignore the model's calibration (from dropzoo calibrate).",
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--mc",
        "--num-samples",
        min=1,
        help="Number of Monte-Carlo samples; 30 by default. A calibration has a number of its own, which "
        "this option does not change; the same holds for a SavedModel, but only in dropzoo predict without "
        "--tile. For an ensemble, the number of samples of all members together; by default, each member answers "
        "once, without dropout.",
        show_default=False,
    ),
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Number of epochs.", rich_help_panel=_HOW)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The fields of `Settings` as options of the command line, except the name of the data."""

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
        typer.Option(
            "--warmup", help="Number of epochs in which the learning rate rises from 0.", rich_help_panel=_HOW
        ),
    ] = 0.0
    clip_norm: Annotated[
        float | None,
        typer.Option(
            "--clip-norm", help="Clip the global norm of the gradients to this value.", rich_help_panel=_HOW
        ),
    ] = None
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema",
            help="Momentum of an exponential moving average of the weights, such as 0.99.",
            rich_help_panel=_HOW,
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option("--precision", help="float32, mixed_bfloat16 or mixed_float16.", rich_help_panel=_HOW),
    ] = "float32"
    mixup: Annotated[
        float,
        typer.Option("--mixup", help="Strength of mixup (for classifiers), such as 0.2.", rich_help_panel=_HOW),
    ] = 0.0
    cutmix: Annotated[
        float,
        typer.Option("--cutmix", help="Strength of CutMix (for classifiers), such as 1.0.", rich_help_panel=_HOW),
    ] = 0.0
    deep_supervision: Annotated[
        bool,
        typer.Option(
            "--deep-supervision", help="Add a loss at each stage of a U-Net's decoder.", rich_help_panel=_HOW
        ),
    ] = False
    learning_rate_schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            "--learning-rate-schedule",
            help="Learning-rate schedule: cosine (down to 0), constant, one_cycle, polynomial.",
            rich_help_panel=_HOW,
        ),
    ] = "cosine"
    image_size: ImageSizeOption = None
    num_channels: ChannelsOption = None
    validation_split: Annotated[
        float,
        typer.Option(
            "--validation-split",
            help="Fraction of the training images that is kept for validation.",
            rich_help_panel=_HOW,
        ),
    ] = 0.1
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", help="Use only this many training images, counted from the first.", rich_help_panel=_HOW
        ),
    ] = None
    manual_dir: ManualDirOption = None
    data_dir: DataDirOption = None
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            help="For rare classes. weights: weight each class in the loss by the median frequency of all "
            "classes, divided by its own frequency (counted in images, or in pixels of masks); sampling: show "
            "images of all classes equally often; none.",
            rich_help_panel=_HOW,
        ),
    ] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions(FolderOptions):
    """The options that say how images are read, for the commands that measure."""

    batch_size: BatchSizeOption = 32
    augment: AugmentOption = None
    image_size: ImageSizeOption = None
    num_channels: ChannelsOption = None
    manual_dir: ManualDirOption = None
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
