"""Samplers use a calibration here: they check that it fits, temper each sample, and add the answers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.facts import Facts, checksum
from dropzoo.serving.calibration.sites import named_sites
from dropzoo.serving.montecarlo.reader import Reader


def sampling_of(
    calibration: Calibration,
    num_samples: int | str,
    sampling: str,
    sites: dict[str, float | bool] | None,
    defaults: tuple[int, str],
) -> tuple[int, str, dict[str, float | bool]]:
    """Returns the number of samples, the sampling and the sites of a calibration.

    Args:
        calibration: The calibration.
        num_samples: The number of samples that the user asks for.
        sampling: The sampling that the user asks for.
        sites: The sites that the user asks for, which must be None.
        defaults: The default number of samples, and the default sampling.

    Raises:
        ValueError: If `calibration` is no `Calibration`, or was made for another number of samples or another
            sampling, or sites are asked for.
    """
    check_type(calibration)
    if sites is not None:
        raise ValueError(
            f"The calibration determines which sites drop: leave `sites` out. Received: sites={sites!r}"
        )
    facts = calibration.facts
    if num_samples not in (defaults[0], facts.num_samples):
        raise ValueError(
            f"The calibration was made for num_samples={facts.num_samples}: leave `num_samples` out, or calibrate "
            f"again. Received: num_samples={num_samples!r}"
        )
    if facts.sampling is not None and sampling not in (defaults[1], facts.sampling):
        raise ValueError(
            f"The calibration was made for sampling={facts.sampling!r}: leave `sampling` out, or calibrate a "
            f"MonteCarlo with this sampling. Received: sampling={sampling!r}"
        )
    return facts.num_samples, facts.sampling or "fixed", dict(calibration.sites)


def is_of_samples(calibration: Calibration, members: int) -> bool:
    """Returns whether a calibration was made for samples of this number of models with their dropout on.

    Args:
        calibration: The calibration.
        members: Int, the number of models.

    Raises:
        ValueError: If `calibration` is no `Calibration`.
    """
    check_type(calibration)
    facts = calibration.facts
    return facts.sampling is not None and facts.members == members


def check_calibration(
    calibration: Calibration,
    readers: Sequence[Reader],
    num_samples: int,
    sampling: str | None,
    transforms: tuple[str, ...] = (),
) -> None:
    """Raises a ValueError if a calibration was made for another predictor, and warns if the weights have changed.

    Args:
        calibration: The calibration.
        readers: The model, or the members of an ensemble, with inputs and outputs known.
        num_samples: Int, the number of samples of an answer.
        sampling: How masks are drawn; None if nothing drops.
        transforms: The transforms of test-time augmentation.
    """
    check_type(calibration)
    calibration.check(facts_of(readers, num_samples, sampling, transforms))


def check_sites(calibration: Calibration, model: keras.Model) -> None:
    """Raises the ValueError of `check_calibration` if a model has other sites than the calibrated one.

    Args:
        calibration: The calibration.
        model: The model, or the first member of an ensemble. Nothing is checked if it is not built.
    """
    if model.built:
        calibration.check(dataclasses.replace(calibration.facts, sites=_sites_of(model)))


def _sites_of(model: keras.Model) -> dict[str, str]:
    return {name: type(layer).__name__ for name, layer in named_sites(model).items()}


def facts_of(
    readers: Sequence[Reader], num_samples: int, sampling: str | None, transforms: tuple[str, ...] = ()
) -> Facts:
    """Returns the facts of a predictor.

    Args:
        readers: The model of the predictor, or the members of an ensemble, with inputs and outputs known.
        num_samples: Int, the number of samples of an answer.
        sampling: How masks are drawn; None if nothing drops.
        transforms: The transforms of test-time augmentation.

    Raises:
        ValueError: If the model has several outputs.
    """
    first = readers[0]
    check_one_output(first)
    return Facts(
        first.outputs[0].kind,
        tuple(tuple(shape[1:]) for shape in first.inputs.shapes),
        tuple(first.outputs[0].shape[1:]),
        _sites_of(first.model),
        len(readers),
        num_samples,
        sampling,
        checksum([reader.model for reader in readers]),
        transforms,
    )


def check_one_output(reader: Reader) -> None:
    """Raises a ValueError if a model has several outputs."""
    if len(reader.outputs) != 1:
        raise ValueError(f"A calibration is for a model of one output. Received: {', '.join(reader.names)}")


def tempered(each: Sequence[tf.Tensor], calibration: Calibration | None) -> list[tf.Tensor]:
    """Returns the probabilities of the samples of each output at the temperature of a calibration.

    Args:
        each: Float32 tensors `(..., classes)`.
        calibration: The calibration, or None.
    """
    return [p if calibration is None else calibration.temper(p) for p in each]


def answered(out: Any, calibration: Calibration | None) -> Any:
    """Returns statistics with the answers of a calibration; without a calibration it returns them unchanged.

    Args:
        out: The statistics of the only output.
        calibration: The calibration, or None.
    """
    return out if calibration is None else calibration.apply(out)


def answered_whole(found: Any, calibration: Calibration | None) -> Any:
    """Returns the statistics of one image, NumPy arrays without the batch axis, with the answers of a calibration.

    Args:
        found: The statistics of the only output.
        calibration: The calibration, or None.
    """
    if calibration is None:
        return found
    out = calibration.apply({name: tf.convert_to_tensor(x[None]) for name, x in found.items()})
    return {name: x[0].numpy() for name, x in out.items()}


def check_type(calibration: object) -> None:
    """Raises a ValueError if the argument `calibration` is not a `Calibration`."""
    if not isinstance(calibration, Calibration):
        raise ValueError(
            f"`calibration` must be a Calibration, see Calibration.load. Received: calibration={calibration!r}"
        )
