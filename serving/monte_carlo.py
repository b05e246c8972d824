"""Monte-Carlo dropout: predictions with the dropout left on, averaged, with their uncertainty."""

import contextlib
import fnmatch
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.layers import _masks, _samples
from dropzoo.layers._checks import check_rate, unknown
from dropzoo.layers._masks import Draw

_SAMPLINGS = ("balanced", "independent", "fixed")
# Layers are redirected while a function is traced, which two threads must not do at once.
_TRACING = threading.RLock()


@dataclass(frozen=True)
class _Active:
    """A layer that drops while sampling, and how."""

    layer: keras.Layer
    stream: str
    drop: Callable[..., Any]
    rate: Callable[[], Any]


class MonteCarlo:
    """Samples a model with its dropout on and reports mean and uncertainty.

    The spread of the samples shows where a model is unsure because it has not seen enough (mutual information),
    apart from where the classes themselves overlap. Only the dropout layers are on: BatchNorm and everything else
    are in inference mode, and the model's state is untouched, its seeds too.

    With `p_t` the softmax of sample `t`: `mean = avg p_t`, `variance = avg p_t**2 - mean**2` (divided by T, since
    balanced samples are not independent), `predictive_entropy = H(mean)` and
    `mutual_information = H(mean) - avg H(p_t)`, in nats. For one logit `p` is its sigmoid and the entropies are
    those of a coin.

    Args:
        model: A Functional or Sequential model of one image input and one output of logits, with dropout layers of
            ours or of Keras.
        num_samples: Int, T.
        sampling: `"balanced"`: over the T samples each unit's draws are stratified, which has the same
            distribution in each sample and a smaller error of the mean. `"independent"`. `"fixed"`: independent,
            with the same T masks for all images, so that tiles and frames agree. In the first two the masks of an
            image come from the seed and its content.
        sites: Which dropout layers are on: None for all, or a dict from patterns of site names (or of the layers'
            own names) to True, for the layer's live rate, or to another rate.
        seed: Int in [0, 2**32). Can be set or given with each call at no cost.

    Call arguments:
        images: Floating point `(batch, height, width, channels)`.
        seed: Int, instead of the object's.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; `predictive_entropy` and
        `mutual_information`, `(batch, ...)`.

    Raises:
        ValueError: for a model without dropout, a pattern that matches no site, and images of another shape.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> out = serving.MonteCarlo(model, num_samples=8)(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))

    Reference:
        Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016, arXiv:1506.02142; mutual information:
        Houlsby et al., 2011, arXiv:1112.5745; stratification: McKay, Beckman and Conover, 1979.
    """

    def __init__(
        self,
        model: keras.Model,
        num_samples: int = 30,
        sampling: str = "balanced",
        sites: dict[str, float | bool] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
            raise ValueError(f"`num_samples` must be a positive int. Received: num_samples={num_samples!r}")
        if sampling not in _SAMPLINGS:
            raise unknown("sampling", sampling, _SAMPLINGS)
        check_single(model)
        self.model = model
        self.num_samples = num_samples
        self.sampling = sampling
        self.seed = _check_seed(seed)
        self._active = _choose(model, sites)
        spec = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32), tf.TensorSpec([], tf.int64)]
        self._run = tf.function(self.sample, input_signature=spec, autograph=False)
        self._traced = False

    def __call__(self, images: Any, seed: int | None = None) -> dict[str, tf.Tensor]:
        images = tf.convert_to_tensor(images)
        expected = self.model.input_shape
        if len(images.shape) != len(expected) or not images.shape[1:].is_compatible_with(expected[1:]):
            raise ValueError(f"`images` must have the shape {expected}. Received: {tuple(images.shape)}")
        chosen = self.seed if seed is None else _check_seed(seed)
        if not self._traced:  # only tracing needs the lock: traced calls of many threads run side by side
            with _TRACING:
                self._run.get_concrete_function()
            self._traced = True
        return self._run(tf.cast(images, tf.float32), tf.constant(chosen, tf.int64))

    def sample(self, images: tf.Tensor, seed: tf.Tensor, plain: bool = False) -> dict[str, tf.Tensor]:
        """What a call computes, to be traced into a graph; `plain` leaves out what only XLA can run."""
        rows = _samples.content_keys(images)
        if self.sampling == "fixed":
            rows = tf.zeros_like(rows)
        rank = len(self.model.output_shape)
        grows = [tf.TensorShape([None] * rank)] * 2 + [tf.TensorShape([None] * (rank - 1))]

        def one_more(t: tf.Tensor, total: Any, squares: Any, entropy: Any) -> tuple[Any, ...]:
            with _redirected(self._active, lambda stream: self._draw(stream, seed, rows, t, plain)):
                p = probabilities(self.model(images, training=False))
            return t + 1, total + p, squares + p * p, entropy + _entropy(p)

        # The sums start as ones that broadcast: the output's size is known once there is a sample.
        start = (tf.zeros([1] * rank), tf.zeros([1] * rank), tf.zeros([1] * (rank - 1)))
        _, total, squares, entropy = tf.while_loop(
            lambda t, *_: t < self.num_samples,
            one_more,
            (tf.constant(0), *start),
            shape_invariants=(tf.TensorShape([]), *grows),
            parallel_iterations=1,
        )
        count = float(self.num_samples)
        mean = tf.ensure_shape(total / count, [None, *self.model.output_shape[1:]])
        predictive = _entropy(mean)
        return {
            "mean": mean,
            "variance": tf.maximum(squares / count - mean * mean, 0.0),
            "predictive_entropy": predictive,
            "mutual_information": tf.clip_by_value(predictive - entropy / count, 0.0, predictive),
        }

    def _draw(self, stream: str, seed: tf.Tensor, rows: tf.Tensor, t: tf.Tensor, plain: bool) -> Draw:
        """The source of one site's random bits in sample `t`; another stream at each call."""
        calls = iter(range(1 << 16))

        def draw(shape: Any) -> tf.Tensor:
            name = zlib.crc32(f"{stream} {next(calls)}".encode()) & 0x7FFFFFFF
            key = _masks.derive_key(tf.stack([tf.cast(seed, tf.uint32), tf.constant(name, tf.uint32)]))
            shared = isinstance(shape[0], int) and shape[0] == 1  # one mask for the whole batch
            keys = tf.zeros([1], tf.uint32) if shared else rows
            balanced = self.sampling == "balanced"
            return _samples.sample_bits(shape, key, keys, t, self.num_samples, balanced=balanced, plain=plain)

        return draw


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """The softmax of logits, or the sigmoid of a single one, in float32."""
    logits = tf.cast(logits, tf.float32)
    return tf.sigmoid(logits) if logits.shape[-1] == 1 else tf.nn.softmax(logits)


def check_single(model: keras.Model) -> None:
    """Refuses models of several inputs or outputs, and those without a graph."""
    if not hasattr(model, "inputs") or not model.built:
        raise ValueError(f"The model must be Functional or Sequential, and built. Received: {model!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Models of one image input and one output are supported so far. "
            f"Received: {len(model.inputs)} inputs, {len(model.outputs)} outputs"
        )


def _entropy(p: tf.Tensor) -> tf.Tensor:
    """In nats, over the last axis; of a coin where that has one entry."""
    if p.shape[-1] == 1:
        p = tf.concat([p, 1.0 - p], -1)
    return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def _check_seed(seed: Any) -> int:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be an int in [0, 2**32). Received: seed={seed!r}")
    return seed


def _choose(model: keras.Model, sites: dict[str, float | bool] | None) -> list[_Active]:
    """The dropout layers that are on. A site is the name of its layer without `_dropout`."""
    found = [layer for layer in model._flatten_layers(include_self=False) if layers.is_stochastic(layer)]
    if not found:
        raise ValueError(
            "The model has no dropout layer to sample. Build it with one: "
            "models.build_model(..., dropout={'head': 0.5})"
        )
    if sites is not None and not sites:
        raise ValueError("`sites` must name at least one site, or be None for all of them. Received: sites={}")
    names = [layer.name.removesuffix("_dropout") for layer in found]
    chosen: dict[int, float | bool] = {}
    for pattern, value in ({"*": True} if sites is None else sites).items():
        rate = value if value is True else check_rate(value, f"sites[{pattern!r}]")
        both = [(name, layer.name) for name, layer in zip(names, found, strict=True)]
        matching = [i for i, pair in enumerate(both) if any(fnmatch.fnmatchcase(n, pattern) for n in pair)]
        if not matching:
            raise unknown("site", pattern, set(names))
        chosen |= dict.fromkeys(matching, rate)
    # Two nested models may each have a layer of one name: a stream for each, or they would draw the same masks.
    streams = [name if (n := names[:i].count(name)) == 0 else f"{name}#{n}" for i, name in enumerate(names)]
    return [_activate(streams[i], found[i], rate) for i, rate in chosen.items()]


def _activate(stream: str, layer: keras.Layer, rate: float | bool) -> _Active:
    ours = layers.counterpart(layer)
    if rate is True and ours is layer:
        return _Active(layer, stream, ours.drop, ours.live_rate)
    fixed = layer.rate if rate is True else rate
    return _Active(layer, stream, ours.drop, lambda: tf.constant(fixed, tf.float32))


@contextlib.contextmanager
def _redirected(active: list[_Active], source: Callable[[str], Any]) -> Iterator[None]:
    """While the block runs, calls of the active layers drop, whatever `training` says.

    Their `call` is shadowed in the instance: nothing of the model is cloned or called anew, so its graph, and the
    layers' inbound nodes, stay as they are.
    """
    with _TRACING:
        before = [vars(each.layer).get("call") for each in active]
        try:
            for each in active:
                vars(each.layer)["call"] = _stand_in(each, source(each.stream))
            yield
        finally:
            for each, call in zip(active, before, strict=True):
                vars(each.layer).pop("call", None)
                if call is not None:
                    vars(each.layer)["call"] = call


def _stand_in(active: _Active, draw: Draw) -> Callable[..., Any]:
    original, tracer = active.layer.call, threading.get_ident()

    def call(inputs: Any, training: bool = False) -> Any:
        if threading.get_ident() != tracer:  # somebody else's call, while this thread traces
            return original(inputs, training=training)
        return active.drop(inputs, tf.convert_to_tensor(active.rate()), draw)

    return call
