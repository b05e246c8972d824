"""The samples of a predictor: a model in one pass, Monte-Carlo dropout, or an ensemble."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dropzoo import models
from dropzoo.serving.calibration.facts import Facts, check_one_output, facts_of
from dropzoo.serving.calibration.sites import Sites, can_set, named_sites
from dropzoo.serving.montecarlo.ensembles import Ensemble
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks
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
    """One pass of a model, or of each member of an ensemble, without dropout.

    Args:
        models: The models.
        task: The output kind, as for `MonteCarlo`.
        from_logits: Whether the outputs are logits, as for `MonteCarlo`.
        example: Inputs of a few images.
    """

    def __init__(self, models: list[keras.Model], task: Tasks | None, from_logits: Said, example: Any) -> None:
        super().__init__(models, len(models), None, example)
        self.sites = {}
        self._options: dict[str, Any] = {"task": task, "from_logits": from_logits}
        self._passes = [Ensemble([each], **self._options) for each in models]
        self.readers = [_settled(one, example) for one in self._passes]

    def samples(self, inputs: Any) -> tf.Tensor:
        return tf.stack([self._of(one(inputs)["mean"]) for one in self._passes], 1)

    def _of(self, mean: tf.Tensor) -> tf.Tensor:
        return mean[:, None] if self.output.flat else mean

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        if not sites:
            return self
        return Samples(MonteCarlo(self.model, **self._options), sites, self.example, num_samples)

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
        self.sites = _rates(self._whole)

    def samples(self, inputs: Any) -> tf.Tensor:
        return self._whole(inputs)["samples"]

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        if sites:
            return Samples(self._mc, sites, self.example, num_samples)
        return Passes(self.models, self._mc.task, self._mc.from_logits, self.example)

    def cost(self) -> float:
        once = self._whole.cut().f
        return once + self.num_samples * (1.0 - once)


def source_of(predictor: Any, task: str | None, example: Any) -> Source:
    """Returns the source of a model (one pass), a `MonteCarlo` or an `Ensemble`.

    Args:
        predictor: The predictor.
        task: The output kind of a model; None for that of its compiled loss or `"multi_class"`, or for that of a
            sampler or an ensemble.
        example: Inputs of a few images.

    Raises:
        ValueError: If `predictor` is none of these or has a calibration, `task` is not that of the predictor, or
            the model has several outputs.
    """
    if isinstance(predictor, keras.Model):
        return Passes([predictor], task, None, example)
    if not isinstance(predictor, (MonteCarlo, Ensemble)):
        raise ValueError(f"`predictor` must be a model, a MonteCarlo or an Ensemble. Received: {predictor!r}")
    if task not in (None, predictor.task):
        raise ValueError(f"The predictor has task={predictor.task!r}. Received: task={task!r}")
    if predictor.calibration is not None:
        raise ValueError(
            "Calibrate the predictor without its calibration: make it again without `calibration=`. "
            "Received: a predictor with a calibration"
        )
    if isinstance(predictor, Ensemble):
        return Passes(predictor.models, predictor.task, predictor.from_logits, example)
    if predictor.auto:
        raise ValueError("Calibration needs a fixed number of samples. Received: num_samples='auto'")
    return Samples(predictor, predictor.sites, example)


def _settled(predictor: MonteCarlo | Ensemble, example: Any) -> Reader:
    """The reader of a predictor; a run on the example settles what no graph shows."""
    if not predictor.reader.settled:
        predictor(example)
    check_one_output(predictor.reader)
    return predictor.reader


def _rates(mc: MonteCarlo) -> Sites:
    """The rate of each site that drops, with patterns resolved as `MonteCarlo` does."""
    named = named_sites(mc.model)
    rates: dict[str, Any] = {}
    given: Mapping[str, Any] = dict.fromkeys(named, True) if mc.sites is None else mc.sites
    for pattern, value in given.items():
        try:
            matched = models.match_sites(mc.model, [pattern])[pattern]
        except ValueError:  # a step that is sampled by plain passes may have a name that is no site
            rates[pattern] = value
            continue
        for name, layer in named.items():
            if layer in matched:
                rates[name] = float(layer.rate) if value is True and can_set(layer) else value
    if mc.sites is None:
        rates |= {name: True for name, _ in mc.cut().plain if name not in rates}
    return rates
