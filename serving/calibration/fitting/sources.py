"""The samples of a predictor: a model in one pass, Monte-Carlo dropout, or an ensemble."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dropzoo import models
from dropzoo.serving.calibration.facts import Facts
from dropzoo.serving.calibration.sites import Sites, can_set, named_sites
from dropzoo.serving.montecarlo.calibrated import check_one_output, facts_of
from dropzoo.serving.montecarlo.ensembles import Ensemble, Rival
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.sampler import MonteCarlo


class Source:
    """A predictor whose samples can be read one by one. Its subclasses are `Passes` and `Samples`.

    Args:
        models: The model, or the members of an ensemble.
        num_samples: The number of samples of an answer.
        sampling: How masks are drawn; None if nothing drops.
        example: Inputs of a few images; a run on them shows what the graph of a model does not.

    Attributes:
        readers: The inputs and outputs of each of `models`.
        sites: The sites that drop and their rates.
    """

    readers: list[Reader]
    sites: Sites

    def __init__(self, models: list[keras.Model], num_samples: int, sampling: str | None, example: Any) -> None:
        self.models, self.num_samples, self.sampling, self.example = models, num_samples, sampling, example

    @property
    def model(self) -> keras.Model:
        """The model, or the first member of an ensemble."""
        return self.models[0]

    @property
    def output(self) -> Output:
        """The output of the model."""
        return self.readers[0].outputs[0]

    @property
    def kind(self) -> str:
        """The output kind."""
        return self.output.kind

    def facts(self) -> Facts:
        """Returns the facts that a calibration of this predictor is made for."""
        return facts_of(self.readers, self.num_samples, self.sampling)

    @property
    def searchable(self) -> bool:
        """Whether sites can be chosen."""
        return True

    def samples(self, inputs: Any) -> tf.Tensor:
        """Returns the samples for inputs, `(batch, samples, ..., outputs)`."""
        raise NotImplementedError

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> "Source":
        """Returns a source in which these sites drop; rates may be variables. Without sites, it is one pass."""
        raise NotImplementedError

    def cost(self) -> float:
        """Returns the multiplications of an answer, as a number of passes."""
        raise NotImplementedError


class Passes(Source):
    """Passes of a model, of the members of an ensemble, or for each transform.

    Dropout is off, except in an ensemble whose members draw samples.

    Args:
        rival: The passes.
        example: Inputs of a few images.

    Raises:
        ValueError: If members that draw samples differ in the sites that drop, or in their rates.
    """

    def __init__(self, rival: Rival, example: Any) -> None:
        super().__init__([each.model for each in rival.readers], rival.num_samples, rival.sampling, example)
        self._rival, self.readers = rival, rival.readers
        if not all(reader.settled for reader in self.readers):
            rival(example)
        check_one_output(self.readers[0])
        self.sites = _shared_rates(rival.samplers)

    def facts(self) -> Facts:
        return facts_of(self.readers, self.num_samples, self.sampling, self._rival.transforms)

    @property
    def searchable(self) -> bool:
        return self.num_samples == 1 and self.sampling is None and not self._rival.transforms

    def samples(self, inputs: Any) -> tf.Tensor:
        return tf.stack([outputs[0] for outputs in self._rival.each(inputs)], 1)

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        if not sites:
            return self
        options: dict[str, Any] = {"task": self._rival.task, "from_logits": self._rival.from_logits}
        return Samples(MonteCarlo(self.model, **options), sites, self.example, num_samples)

    def cost(self) -> float:
        return float(self.num_samples)


class Samples(Source):
    """Monte-Carlo samples of a model.

    Args:
        mc: A `MonteCarlo` with a fixed number of samples. It is not changed.
        sites: The sites that drop, as `MonteCarlo` takes them.
        example: Inputs of a few images.
        num_samples: Int, the number of samples; None for that of `mc`.
    """

    def __init__(
        self, mc: MonteCarlo, sites: Mapping[str, Any] | None, example: Any, num_samples: int | None = None
    ) -> None:
        super().__init__([mc.model], num_samples or mc.max_samples, mc.sampling, example)
        self._mc = mc
        options: dict[str, Any] = {name: getattr(mc, name) for name in ("sampling", "seed", "task", "from_logits")}
        some = None if sites is None else dict(sites)
        self._whole = MonteCarlo(mc.model, self.num_samples, sites=some, return_samples=True, **options)
        self.readers = [_settled(self._whole, example)]
        self.sites = rates_of(self._whole)

    def samples(self, inputs: Any) -> tf.Tensor:
        return self._whole(inputs)["samples"]

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        if sites:
            return Samples(self._mc, sites, self.example, num_samples)
        return Passes(Ensemble(self.models, self._mc.task, self._mc.from_logits), self.example)

    def cost(self) -> float:
        once = self._whole.cut().f
        return once + self.num_samples * (1.0 - once)


def source_of(predictor: Any, task: str | None, example: Any, from_logits: bool | None = None) -> Source:
    """Returns the source of a model (one pass), a `MonteCarlo`, an `Ensemble` or a `TestTimeAugmentation`.

    Args:
        predictor: The predictor.
        task: The output kind of a model; None for that of its compiled loss or `"multi_class"`, or for that of a
            sampler or an ensemble.
        example: Inputs of a few images.
        from_logits: Whether the output of a model is logits. If None, the model shows it, or a sampler or an
            ensemble has its own setting.

    Raises:
        ValueError: If `predictor` is none of these or has a calibration, `task` or `from_logits` is not that of
            the predictor, or the model has several outputs.
    """
    if isinstance(predictor, keras.Model):
        return Passes(Ensemble([predictor], task, from_logits), example)
    if not isinstance(predictor, (MonteCarlo, Rival)):
        raise ValueError(
            "`predictor` must be a model, a MonteCarlo, an Ensemble or a TestTimeAugmentation. "
            f"Received: {predictor!r}"
        )
    if task not in (None, predictor.task):
        raise ValueError(f"`task` must be the task of the predictor, {predictor.task!r}. Received: task={task!r}")
    if from_logits not in (None, predictor.from_logits):
        raise ValueError(
            f"The predictor has from_logits={predictor.from_logits!r}: leave `from_logits` out here, or create "
            f"the predictor with from_logits={from_logits!r}. Received: from_logits={from_logits!r}"
        )
    if predictor.calibration is not None:
        raise ValueError(
            "A predictor that already has a calibration cannot be calibrated: create it without `calibration=`. "
            "Received: a predictor with a calibration"
        )
    if isinstance(predictor, Rival):
        return Passes(predictor, example)
    if predictor.auto:
        raise ValueError("Calibration needs a fixed number of samples. Received: num_samples='auto'")
    return Samples(predictor, predictor.sites, example)


def _settled(predictor: MonteCarlo, example: Any) -> Reader:
    """The reader of a predictor; a run on the example settles what no graph shows."""
    if not predictor.reader.settled:
        predictor(example)
    check_one_output(predictor.reader)
    return predictor.reader


def _shared_rates(samplers: Sequence[MonteCarlo]) -> Sites:
    """The rate of each site that drops, which must be the same in all members; empty without samplers."""
    first, *others = [rates_of(each) for each in samplers] or [{}]
    for number, other in enumerate(others, 2):
        if other != first:
            raise ValueError(
                "A calibration sets the same sites and rates for all members. Train the members with the same "
                "dropout, set their rates to the same values, or calibrate the ensemble without `num_samples`. "
                f"Received: {dict(first)} for the first, {dict(other)} for number {number}"
            )
    return first


def rates_of(mc: MonteCarlo) -> Sites:
    """Returns the rate of each site that drops, with patterns resolved as `MonteCarlo` does.

    Args:
        mc: The sampler.
    """
    named = named_sites(mc.model)
    drawn = {id(each.layer) for each in mc.stage.active}  # others are sampled by plain passes, at their own rates
    rates: dict[str, Any] = {}
    if mc.sites is None:  # without suspected layers that draw nothing
        rates = {name: float(x.rate) if can_set(x) else True for name, x in named.items() if id(x) in drawn}
        plain = [name for name, _ in mc.stage.plain]
        return rates | {name: True for name in plain if name.removesuffix("_dropout") not in rates}
    for pattern, value in mc.sites.items():
        try:
            matched = models.match_sites(mc.model, [pattern])[pattern]
        except ValueError:  # a step that is sampled by plain passes may have a name that is not a site
            rates[pattern] = value
            continue
        for name, layer in named.items():
            if layer in matched:
                sets = value is True and can_set(layer) and id(layer) in drawn
                rates[name] = float(layer.rate) if sets else value
    return rates
