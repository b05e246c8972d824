"""The facts of a predictor: the sites, the outputs and the weights of its model, and how it is sampled."""

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import keras


@dataclass(frozen=True)
class Facts:
    """The facts of the predictor that a calibration was made for.

    Attributes:
        task: The output kind.
        input_shapes: The shapes of the inputs without the batch axis, with None for sizes that are not fixed.
        output_shape: The shape of the output without the batch axis.
        sites: Dict from the dropout sites of the model to the classes of their layers.
        members: The number of models of an ensemble; 1 for a single model.
        num_samples: The number of samples of an answer; 1 for one pass.
        sampling: How masks are drawn; None if nothing drops.
        weights: A checksum of the weights.
        transforms: The names of the transforms of test-time augmentation; empty for other predictors.
    """

    task: str
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shape: tuple[int | None, ...]
    sites: dict[str, str]
    members: int
    num_samples: int
    sampling: str | None
    weights: int
    transforms: tuple[str, ...] = ()


def checksum(models: Sequence[keras.Model]) -> int:
    """Returns a number that changes if any weight of the models changes."""
    number = 0
    for model in models:
        for weight in model.weights:
            number = zlib.crc32(weight.numpy().tobytes(), number)
    return number


def differences(made_for: Facts, found: Facts) -> list[str]:
    """Returns, in words, the differences that make a calibration unfit for a predictor; an empty list if it fits.

    Args:
        made_for: The facts of the predictor that the calibration was made for.
        found: The facts of the predictor that is to use it.
    """
    known, other = asdict(made_for), asdict(found)
    words = {
        "task": "task",
        "input_shapes": "shape of the input",
        "output_shape": "shape of the output (the last number counts the classes)",
        "members": "number of members",
        "num_samples": "number of samples",
        "sampling": "sampling",
        "transforms": "transforms",
    }
    found_differences = [
        f"{text}: {known[name]} in the calibration, {other[name]} here"
        for name, text in words.items()
        if known[name] != other[name]
    ]
    missing = sorted(made_for.sites.keys() - found.sites.keys())
    more = sorted(found.sites.keys() - made_for.sites.keys())
    changed = sorted(n for n in made_for.sites.keys() & found.sites.keys() if made_for.sites[n] != found.sites[n])
    if missing:
        found_differences.append(f"sites that are missing here: {', '.join(missing)}")
    if more:
        found_differences.append(f"sites that are new here: {', '.join(more)}")
    for name in changed:
        found_differences.append(
            f"site {name}: {made_for.sites[name]} in the calibration, {found.sites[name]} here"
        )
    return found_differences
