"""The settings that a run and a whole sweep have in common: the data, and how models are trained on them."""

import dataclasses
import inspect
import re
from typing import Any, TypeVar

from dropzoo.common.checks import check_choice, check_count, check_positive
from dropzoo.runs.recipe import SCHEDULES, check_optimizer
from dropzoo.training.loop.mixing import check_mix

_T = TypeVar("_T")
#: The line in whose place `with_settings` puts the arguments of `Settings`.
_PLACE = "        ...: See `Settings`."

#: The fields that say how a folder is read.
READING = ("images", "masks", "mask_suffix", "masks_as", "ignore_class", "class_names", "pages", "value_range")
#: Those of them that hold for other folders too; the others name files of the folder itself.
READING_ELSEWHERE = ("masks_as", "ignore_class", "class_names", "pages", "value_range")

#: Fields that have another name in files, so that existing files stay readable.
FILE_NAMES = {"learning_rate_schedule": "schedule"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The data of a run or a sweep, and how models are trained on them.

    Args:
        data: Str, the name of a data set, such as `"digits"`, or the path of a folder. `load_data` explains this
            and all other settings of the data in detail.
        epochs: Positive int, the number of epochs.
        batch_size: Positive int, the number of images in a training step.
        learning_rate: Positive float, the largest learning rate.
        learning_rate_schedule: `"constant"`; `"cosine"` or `"polynomial"` (of power 0.9), which fall to 0; or
            `"one_cycle"`, which rises for 30 % of the steps and then falls almost to 0.
        warmup: Float of at least 0, less than `epochs`: the epochs in which the learning rate grows from 0 before
            its schedule begins.
        optimizer: Str, the name of an optimizer; arguments of Keras may follow after a colon, as in
            `"adamw:weight_decay=0.05"`.
        clip_norm: Positive float or None, the largest norm of all gradients together (`global_clipnorm` in Keras).
            Larger gradients are scaled down; None does not change them.
        ema: Float in [0, 1) or None, the momentum of a moving average of the weights, which replaces them after
            training; None for no average.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`, the dtype policy of the model.
        mixup: Float of at least 0. Trains classifiers on weighted means of two images, with weights from
            Beta(mixup, mixup), as for `Trainer`; 0 for none.
        cutmix: Float of at least 0. Trains classifiers on images with a box from another image, whose area comes
            from Beta(cutmix, cutmix), as for `Trainer`; 0 for none.
        deep_supervision: Bool. Whether a U-Net also learns at the end of each stage of its decoder, see
            `DeepSupervision`.
        image_size: Positive int, `(height, width)` or None. The size in pixels to which all images are resized;
            None keeps their sizes.
        num_channels: 1, 3 or None. Converts images to grey (1) or to RGB (3); None keeps their channels.
        validation_split: Float in [0, 1), the fraction of the training images that are kept for validation.
        limit: Positive int or None, the number of training images to use, counted from the first; None for all.
        manual_dir: Str or None, a folder with the original archives of a TFDS set; None downloads them.
        data_dir: Str or None, the folder in which TFDS keeps prepared sets; None for its default.
        cache: `"memory"`, `"disk"` or `"none"`, where decoded images stay; `"auto"` chooses by their size.
        test_split: Float in [0, 1] or None, the fraction of test images in a folder without its own split; None
            means 0.2.
        images: Str or None, the folder or pattern of the images within the folder, such as `"**/*_sat.jpg"`; None
            finds them by the layout of the folder.
        masks: Str or None, the folder or pattern of the masks, such as `"gt"`; None finds them by the layout of
            the folder.
        mask_suffix: Str or None, the text that the name of a mask adds to the name of its image, such as `"_seg"`;
            None finds it in the names of the files.
        masks_as: `"ids"`, `"instances"`, `"threshold"`, `"palette"` or `"alpha"`: the meaning of the values in
            masks. None is for masks of class ids, or of only 0 and 255.
        ignore_class: Int or None, the label of pixels that losses and metrics ignore, such as 255; None for no
            label.
        class_names: Str or None, the names of the classes, separated by commas, or a file with one name per line;
            None takes the names of class folders, or a file such as `classes.txt` next to the masks.
        split_file: Str or None, the path of a CSV file that gives the split, label, mask or group of each image.
        group_by: Str or None, a regular expression for the paths of images, such as `"patient\\d+"`, or a column
            of `split_file`. Images of one group stay in one split.
        pages: `"images"` or `"channels"`, the meaning of the pages of TIFF stacks; `"auto"` for the one that a
            file states.
        value_range: Pair of floats `(low, high)` or None. The stored values that become 0 and 1, which is needed
            for floats beyond [0, 1], and for integers other than uint8 and uint16.
        broken: `"refuse"`, which raises an error for files that cannot be read; or `"skip"`, which leaves them out
            with a warning.
        balance: `"none"`; `"weights"`, which gives each class the weight `median / frequency`, from the
            frequencies of the classes among images or pixels; or `"sampling"`, which shows all classes equally
            often.

    Raises:
        ValueError: If a setting of the training is out of its range. `load_data` checks the settings of the data.
    """

    data: str
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "cosine"
    warmup: float = 0.0
    optimizer: str = "adam"
    clip_norm: float | None = None
    ema: float | None = None
    precision: str = "float32"
    mixup: float = 0.0
    cutmix: float = 0.0
    deep_supervision: bool = False
    image_size: int | tuple[int, int] | None = None
    num_channels: int | None = None
    validation_split: float = 0.1
    limit: int | None = None
    manual_dir: str | None = None
    data_dir: str | None = None
    cache: str = "auto"
    test_split: float | None = None
    images: str | None = None
    masks: str | None = None
    mask_suffix: str | None = None
    masks_as: str | None = None
    ignore_class: int | None = None
    class_names: str | None = None
    split_file: str | None = None
    group_by: str | None = None
    pages: str = "auto"
    value_range: tuple[float, float] | None = None
    broken: str = "refuse"
    balance: str = "none"

    def __post_init__(self) -> None:
        for name in ("image_size", "value_range"):  # pairs are lists in files
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_count(self.epochs, "epochs")
        check_count(self.batch_size, "batch_size")
        check_positive(self.learning_rate, "learning_rate")
        check_choice(self.balance, "balance", ("none", "weights", "sampling"))
        check_choice(self.learning_rate_schedule, "learning_rate_schedule", SCHEDULES)
        check_choice(self.precision, "precision", ("float32", "mixed_bfloat16", "mixed_float16"))
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(
                f"`warmup` must be at least 0 and less than the number of epochs. Received: {self.warmup}"
            )
        if self.clip_norm is not None:
            check_positive(self.clip_norm, "clip_norm")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"`ema` must be in [0, 1). Received: ema={self.ema}")
        if not isinstance(self.deep_supervision, bool):
            raise ValueError(
                f"`deep_supervision` must be True or False. Received: deep_supervision={self.deep_supervision!r}"
            )
        check_optimizer(self.optimizer, self.learning_rate)
        for name in ("mixup", "cutmix"):
            check_mix(getattr(self, name), name)

    def settings(self) -> dict[str, Any]:
        """Returns the fields of this class by name, without those of a subclass."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}


def with_settings(cls: type[_T]) -> type[_T]:
    """Class decorator that lists the arguments of `Settings` in a subclass: in its docstring and its signature.

    The docstring has the line `...: See `Settings`.` in their place. An argument that it describes itself is not
    listed again. The arguments are keyword-only, and the subclass' own come first.
    """
    if cls.__doc__ and Settings.__doc__:  # there are none under `python -OO`
        section = Settings.__doc__.partition("Args:\n")[2].partition("\n\n")[0]
        known = set(re.findall(r"^ {8}(\w+):", cls.__doc__, re.M))
        entries = re.split(r"\n(?= {8}\w)", section)
        listed = [entry for entry in entries if entry.partition(":")[0].strip() not in known]
        cls.__doc__ = cls.__doc__.replace(_PLACE, "\n".join(listed))
    inherited = {field.name for field in dataclasses.fields(Settings)}
    fields = sorted(dataclasses.fields(cls), key=lambda field: field.name in inherited)  # type: ignore[arg-type]
    cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.type
            )
            for field in fields
        ]
    )
    return cls


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def renamed(entry: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Returns a copy of a dict with renamed keys; a key that is not in `names` stays."""
    return {names.get(key, key): value for key, value in entry.items()}
