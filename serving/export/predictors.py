"""The predictors of an export: a model, the members of an ensemble, or their Monte-Carlo samples."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from dropzoo.common.checks import check_keras_model
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.export.checks import check_samples
from dropzoo.serving.montecarlo.active import NothingDraws
from dropzoo.serving.montecarlo.calibrated import check_type
from dropzoo.serving.montecarlo.ensembles import Ensemble, Rival, samplers_behind
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.sampler import MonteCarlo


@dataclass(frozen=True)
class Predictors:
    """The predictors that the signatures of an export call.

    Attributes:
        models: The model, or the members of an ensemble.
        reader: The model, or the first member, which knows what the outputs mean.
        default: The predictor behind `serving_default` and `predict_bytes`; None for one pass of the model.
        sampled: The predictor behind `predict_mc`, or None.
        calibration: The calibration by which `predict_mc` answers, or None.
    """

    models: list[keras.Model]
    reader: Reader
    default: MonteCarlo | Rival | None
    sampled: MonteCarlo | Ensemble | None
    calibration: Calibration | None

    @property
    def readers(self) -> list[Reader]:
        """The model or the members, which know what their outputs mean."""
        return self.default.readers if isinstance(self.default, Rival) else [self.reader]

    @property
    def samplers(self) -> Sequence[MonteCarlo]:
        """The Monte-Carlo samplers behind `predict_mc`: of the model, or of each member; none without dropout."""
        return samplers_behind(self.sampled)

    def card(self) -> dict[str, object]:
        """Returns the section of the card on the samples; empty if there are none."""
        if not self.samplers or self.samplers[0].sites == {}:
            return {}
        first, count = self.samplers[0], len(self.samplers)
        members = {"members": count, "samples_of_each": first.max_samples} if count > 1 else {}
        return {"num_samples": self.num_samples, **members, "sampling": first.sampling, "seed": first.seed}

    @property
    def num_samples(self) -> int:
        """The number of samples behind `predict_mc`; 0 if there is no such signature."""
        if self.sampled is None:
            return 0
        return self.sampled.num_samples if isinstance(self.sampled, Ensemble) else self.sampled.max_samples


def predictors_of(
    model: keras.Model | Ensemble,
    num_samples: int,
    sampling: str,
    seed: int,
    calibration: Calibration | None,
    said: dict[str, Any],
) -> Predictors:
    """Returns the predictors of an export.

    Args:
        model: The model or the ensemble.
        num_samples: The number of samples that the user asks for.
        sampling: The sampling that the user asks for.
        seed: The seed of the masks.
        calibration: The calibration that the user gives, or None.
        said: The arguments `task` and `from_logits` of the user.

    Raises:
        ValueError: If the arguments do not go together, or the model has nothing to sample.
    """
    check_samples(num_samples, sampling, seed)
    if calibration is not None:
        check_type(calibration)
    if isinstance(model, Ensemble):
        if (sampling, seed) != ("fixed", 0):
            raise ValueError(
                "The sampling and the seed of an ensemble are set in the ensemble: leave them out here, and pass "
                "Ensemble(models, num_samples=..., sampling=..., seed=...). "
                f"Received: sampling={sampling!r}, seed={seed}"
            )
        return _of_ensemble(model, num_samples, calibration, said)
    _refuse_predictors(model)
    check_keras_model(model)
    if calibration is None:
        with or_without_samples():
            mc = MonteCarlo(model, num_samples, sampling, seed=seed, **said) if num_samples else None
        return Predictors([model], Reader(model, **said) if mc is None else mc.reader, None, mc, None)
    facts = calibration.facts
    if sampling not in ("fixed", facts.sampling):
        raise ValueError(
            f"The calibration was made for sampling={facts.sampling!r}: leave `sampling` out. "
            f"Received: sampling={sampling!r}"
        )
    if not num_samples and facts.num_samples > 1:
        raise ValueError(
            f"The calibration was made for num_samples={facts.num_samples}: leave `num_samples` out, or calibrate "
            "the model without samples. Received: num_samples=0"
        )
    mc = MonteCarlo(model, num_samples or facts.num_samples, seed=seed, calibration=calibration, **said)
    one_pass = mc if not calibration.sites else None
    return Predictors([model], mc.reader, one_pass, mc if num_samples else None, calibration)


def _refuse_predictors(model: object) -> None:
    """Raises a ValueError for a predictor that is no `Ensemble`, and says how to export its model."""
    if isinstance(model, MonteCarlo):
        raise ValueError(
            "`export_model` takes the model of a MonteCarlo: pass `mc.model`, and num_samples, sampling, seed and "
            f"calibration as in the MonteCarlo. Received: {type(model)}"
        )
    if isinstance(model, Rival):
        raise ValueError(
            "`export_model` takes a keras.Model or an Ensemble. The transforms of test-time augmentation cannot "
            "be exported: pass the model alone, and average its answers to the transformed images yourself. "
            f"Received: {type(model)}"
        )


def _of_ensemble(
    ensemble: Ensemble, num_samples: int, calibration: Calibration | None, said: dict[str, Any]
) -> Predictors:
    """The predictors of an ensemble: the mean of its members, and its samples or, without dropout, its members."""
    if any(value is not None for value in said.values()):
        raise ValueError(
            f"The meaning of the outputs is set in the ensemble: leave these arguments out. Received: {said}"
        )
    if calibration is not None and ensemble.calibration not in (None, calibration):
        raise ValueError(
            "The ensemble already has a different calibration: leave `calibration` out. Received: two calibrations"
        )
    if calibration is not None and ensemble.calibration is None:
        ensemble = _calibrated(ensemble, calibration)
    if num_samples not in (0, 30, ensemble.num_samples):
        what = "set in the ensemble" if ensemble.samplers else f"its {len(ensemble.models)} members"
        more = "" if ensemble.samplers else ", pass an Ensemble with `num_samples` to sample its dropout"
        raise ValueError(
            f"The samples of an ensemble are {what}: leave `num_samples` out{more}, or pass 0 to leave out "
            f"`predict_mc`. Received: num_samples={num_samples}"
        )
    if not num_samples and ensemble.samplers and ensemble.calibration is not None:
        raise ValueError(
            f"The calibration was made for num_samples={ensemble.num_samples}: leave `num_samples` out, or export "
            "the ensemble without its calibration. Received: num_samples=0"
        )
    sampled = ensemble if num_samples else None
    return Predictors(ensemble.models, ensemble.reader, ensemble.without_dropout, sampled, ensemble.calibration)


def _calibrated(ensemble: Ensemble, calibration: Calibration) -> Ensemble:
    """The same ensemble with a calibration, which determines the samples of an ensemble without dropout."""
    said: dict[str, Any] = {}
    if ensemble.samplers:
        said = {"num_samples": ensemble.num_samples, "sampling": ensemble.sampling, "seed": ensemble.seed}
    return Ensemble(ensemble.models, ensemble.task, ensemble.from_logits, calibration, **said)


@contextlib.contextmanager
def or_without_samples() -> Iterator[None]:
    """Adds to the error for a model that draws nothing how to export it without `predict_mc`."""
    try:
        yield
    except NothingDraws as error:
        raise ValueError(
            "The model has no dropout layer to sample; pass num_samples=0 to leave out `predict_mc`"
        ) from error
