"""The samples of a predictor: of a model in one pass, of Monte-Carlo dropout, or of an ensemble."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dropzoo import layers, models
from dropzoo.serving.montecarlo.ensembles import Ensemble
from dropzoo.serving.montecarlo.sampler import MonteCarlo

#: For each site that drops, its rate, or True for a layer whose rate cannot be set. Empty for one pass.
Sites = dict[str, float | bool]


class Source:
    """A predictor whose samples can be read one by one; a subclass for passes and one for Monte-Carlo samples.

    Attributes:
        models: The model, or the members of an ensemble.
        kind: The output kind.
        num_samples: The number of samples of an answer.
        sites: The sites that drop and their rates.
        sampling: How masks are drawn; None if nothing drops.
    """

    models: list[keras.Model]
    kind: str
    num_samples: int
    sites: Sites
    sampling: str | None

    @property
    def model(self) -> keras.Model:
        """The model, or the first member of an ensemble."""
        return self.models[0]

    def samples(self, inputs: Any) -> tf.Tensor:
        """Returns the samples for inputs, `(batch, samples, ..., outputs)`."""
        raise NotImplementedError

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> "Source":
        """Returns the source in which these sites drop; rates may be variables. Without sites it is one pass."""
        raise NotImplementedError

    def cost(self) -> float:
        """Returns the multiplications of an answer, in passes."""
        raise NotImplementedError


class Passes(Source):
    """One pass of a model, or of each member of an ensemble, without dropout.

    Args:
        models: The models.
        kind: The output kind.
    """

    def __init__(self, models: list[keras.Model], kind: str) -> None:
        self.models, self.kind, self.num_samples = models, kind, len(models)
        self.sites, self.sampling = {}, None
        self._passes = [Ensemble([each], task=kind) for each in models]

    def samples(self, inputs: Any) -> tf.Tensor:
        return tf.stack([one(inputs)["mean"] for one in self._passes], 1)

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        if not sites:
            return self
        return Samples(MonteCarlo(self.model, task=self.kind), sites, num_samples)

    def cost(self) -> float:
        return float(self.num_samples)


class Samples(Source):
    """Monte-Carlo samples of a model.

    Args:
        mc: A `MonteCarlo` with a fixed number of samples, which is left as it is.
        sites: The sites that drop, as `MonteCarlo` takes them.
        num_samples: Int, another number of samples; None for that of `mc`.
    """

    def __init__(self, mc: MonteCarlo, sites: Mapping[str, Any] | None, num_samples: int | None = None) -> None:
        self.models, self.kind, self.sampling = [mc.model], mc.task, mc.sampling
        self.num_samples = num_samples or int(mc.num_samples)
        self.sites = _rates(mc.model, sites)
        self._mc = mc
        options: dict[str, Any] = {"sampling": mc.sampling, "seed": mc.seed, "task": mc.task}
        some = None if sites is None else dict(sites)
        self._whole = MonteCarlo(mc.model, self.num_samples, sites=some, return_samples=True, **options)

    def samples(self, inputs: Any) -> tf.Tensor:
        return self._whole(inputs)["samples"]

    def with_sites(self, sites: Mapping[str, Any], num_samples: int | None = None) -> Source:
        return Samples(self._mc, sites, num_samples) if sites else Passes(self.models, self.kind)

    def cost(self) -> float:
        once = self._whole.cut().f
        return once + self.num_samples * (1.0 - once)


def source_of(predictor: Any, task: str | None) -> Source:
    """Returns the source of a model (one pass), a `MonteCarlo` or an `Ensemble`.

    Args:
        predictor: The predictor.
        task: The output kind for a model; None for that of the predictor, or `"multi_class"`.

    Raises:
        ValueError: If `predictor` is none of these, or `task` is not that of the predictor.
    """
    if isinstance(predictor, keras.Model):
        return Passes([predictor], task or "multi_class")
    if not isinstance(predictor, (MonteCarlo, Ensemble)):
        raise ValueError(f"`predictor` must be a model, a MonteCarlo or an Ensemble. Received: {predictor!r}")
    if task not in (None, predictor.task):
        raise ValueError(f"The predictor has task={predictor.task!r}. Received: task={task!r}")
    if isinstance(predictor, Ensemble):
        return Passes(predictor.models, predictor.task)
    if predictor.auto:
        raise ValueError("Calibration needs a fixed number of samples. Received: num_samples='auto'")
    return Samples(predictor, predictor.sites)


def named_sites(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the dropout layers of a model by the names of their sites, as `MonteCarlo(sites=)` takes them."""
    found = layers.dropouts(model)
    names: dict[str, keras.Layer] = {}
    sites = [site.name for site in models.list_sites(model) if site.spec]
    for name in sites:
        (first, *_) = models.match_sites(model, [name])[name]
        if first not in names.values():
            names[name] = first
    for layer in found:
        if layer not in names.values():
            names[layer.name] = layer
    return names


def can_set(layer: keras.Layer) -> bool:
    """Returns whether a dropout layer has a rate that Monte-Carlo sampling can set."""
    return hasattr(layers.counterpart(layer), "drop")


def _rates(model: keras.Model, sites: Mapping[str, Any] | None) -> Sites:
    """The rate of each site that drops, with patterns resolved as `MonteCarlo` does."""
    names, rates = named_sites(model), {}
    given: Mapping[str, Any] = dict.fromkeys(names, True) if sites is None else sites
    for pattern, matched in models.match_sites(model, given).items():
        for name, layer in names.items():
            if layer in matched:
                own = given[pattern] is True
                rates[name] = (float(layer.rate) if own else given[pattern]) if can_set(layer) else True
    return rates
