"""The promises by name. Each reads the held-out images and then settles its thresholds."""

from collections.abc import Mapping, Sequence

from dropzoo.common.checks import unknown
from dropzoo.serving.calibration.fitting.promise import Promise, Terms
from dropzoo.serving.calibration.fitting.promises_of_classes import ErrorPromise, SetPromise
from dropzoo.serving.calibration.fitting.promises_of_masks import MaskPromise
from dropzoo.serving.calibration.fitting.promises_of_values import IntervalPromise

#: For each promise, the output kinds that it is for.
KINDS = {
    "set": ("multi_class", "binary"),
    "miss": ("multi_class", "binary", "multi_label"),
    "false": ("multi_class", "binary", "multi_label"),
    "error": ("multi_class", "binary", "multi_label"),
    "interval": ("regression",),
}
_OF_IMAGES = {"multi_class": "class labels", "binary": "class labels", "multi_label": "multi-label models"}


def promises_of(
    guarantee: Mapping[str, float],
    kind: str,
    output_shape: tuple[int | None, ...],
    confidence: float,
    classes: Sequence[int],
) -> dict[str, Promise]:
    """Returns the promises that are asked for, before they have read any image.

    Args:
        guarantee: Dict from names to levels.
        kind: The output kind.
        output_shape: The shape of the model's output, with the batch.
        confidence: Float in (0, 1).
        classes: The classes that the promises are about.

    Raises:
        ValueError: If a name is unknown or does not fit the output, or a level is not in (0, 1).
    """
    made: dict[str, Promise] = {}
    maps = len(output_shape) > 2
    for name, level in guarantee.items():
        if name not in KINDS:
            raise unknown("guarantee", name, KINDS)
        if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
            raise ValueError(f"The level of `{name}` must be in (0, 1). Received: {level!r}")
        _check_fits(name, kind, maps)
        terms = Terms(float(level), confidence, kind, output_shape[-1] or 1, tuple(classes), maps)
        if name == "set":
            made[name] = SetPromise(terms)
        elif name == "error":
            made[name] = ErrorPromise(terms, binary=not maps and kind != "multi_label")
        elif name == "interval":
            made[name] = IntervalPromise(terms)
        else:
            made[name] = MaskPromise(name, terms)
    return made


def _check_fits(name: str, kind: str, maps: bool) -> None:
    fitting = [each for each, kinds in KINDS.items() if kind in kinds]
    if not maps and kind in ("multi_class", "binary"):
        fitting = [each for each in fitting if each not in ("miss", "false")]
    if maps and "set" in fitting:
        fitting.remove("set")  # pixels are not exchangeable
    if name not in fitting:
        what = kind if kind == "regression" else "masks" if maps else _OF_IMAGES[kind]
        raise ValueError(f"`{name}` is not a guarantee for {what}. Choose from: {', '.join(fitting)}")
