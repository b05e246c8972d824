"""Monte-Carlo dropout: predictions with the dropout left on, averaged, with their uncertainty."""

import math
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.common.keras_internals import mask_of, put_mask
from dropzoo.layers.draws import Draw
from dropzoo.layers.draws.samples import SampleDraw, SharedMaskError, content_keys
from dropzoo.serving.montecarlo.active import TRACING, choose, redirected
from dropzoo.serving.montecarlo.cut import Cut, costs_or_none, fill_shape, make_cut
from dropzoo.serving.montecarlo.statistics import check_kind, probabilities_of, sum_samples, sum_until
from dropzoo.serving.montecarlo.trunk import Trunk

_SAMPLINGS = ("balanced", "independent", "fixed")
# With num_samples="auto", balanced samples are stratified in groups of so many, and compared group by group.
_GROUP = 8


class MonteCarlo:
    """Samples a model with its dropout on and reports mean and uncertainty.

    The spread of the samples shows where a model is unsure because it has not seen enough (mutual information),
    apart from where the classes themselves overlap. Only the dropout layers are on: BatchNorm and everything else
    are in inference mode, and the model's state is untouched, its seeds too.

    With `p_t` the probabilities of sample `t`: `mean = avg p_t`, `variance = avg p_t**2 - mean**2` (divided by T,
    since balanced samples are not independent), `predictive_entropy = H(mean)` and
    `mutual_information = H(mean) - avg H(p_t)`, in nats. For one logit `p` is its sigmoid and the entropies are
    those of a coin; other tasks below.

    What no active dropout reaches is computed once and not T times (`plan()` says what that is worth), and small
    samples are computed several at a time. Neither changes the masks, nor the figures beyond rounding.

    Args:
        model: A Functional or Sequential model of one image input and one output, with dropout layers of ours or
            of Keras. The output is logits, or what a last softmax or sigmoid makes of them.
        num_samples: Int, T. Or `"auto"`: as many as it takes, for each image on its own.
        sampling: `"balanced"`: over the T samples each unit's draws are stratified, which has the same
            distribution in each sample and a smaller error of the mean. `"independent"`. `"fixed"`: independent,
            with the same T masks for all images, so that tiles and frames agree. In the first two the masks of an
            image come from the seed and its content.
        sites: Which dropout layers are on: None for all, or a dict from patterns of site names (or of the layers'
            own names) to True, for the layer's live rate, or to another rate.
        seed: Int in [0, 2**32). Can be set or given with each call at no cost.
        cache: Bool, compute once what no active dropout reaches.
        fold: How many samples are computed at a time, as one larger batch: an int, or `"auto"`, as many as the
            memory budget allows.
        memory_budget: Int, the bytes of activations that `fold="auto"` may use; one sample may need more. On a
            CPU much more than 32 MiB is slower: it falls out of the cache.
        tolerance: Float, for `num_samples="auto"`: an image has enough samples when the standard error of its mean
            is below this, as the root mean square over classes and pixels. 0.01 by default;
            for regression in the output's unit.
        max_samples: Int, the most for `num_samples="auto"`, 128 by default; taken in groups of 8.
        return_samples: Bool, keep the probabilities of each sample too.
        task: What the model's output means. `"multi_class"`: logits of classes that exclude each other, or the one
            logit of a coin. `"binary"`: that one logit, and nothing else. `"multi_label"`: each logit a coin of
            its own; the entropies are summed over the labels. `"regression"`: the outputs themselves; mean and
            variance are theirs, and there are no entropies.

    Call arguments:
        images: Floating point `(batch, height, width, channels)`.
        seed: Int, instead of the object's.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; `predictive_entropy` and
        `mutual_information`, `(batch, ...)`, but for regression. With `return_samples` also `samples`,
        `(batch, T, ..., classes)`; with `num_samples="auto"` also `num_samples`, int32 `(batch,)`.

    Raises:
        ValueError: for a model without dropout, a pattern that matches no site, images of another shape, and an
            output that does not fit the task.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> mc = serving.MonteCarlo(model, num_samples=8)
    >>> out = mc(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))
    >>> mc.plan().frontier
    ('dense1',)

    Reference:
        Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016, arXiv:1506.02142; mutual information:
        Houlsby et al., 2011, arXiv:1112.5745; stratification: McKay, Beckman and Conover, 1979.
    """

    def __init__(
        self,
        model: keras.Model,
        num_samples: int | str = 30,
        sampling: str = "balanced",
        sites: dict[str, float | bool] | None = None,
        seed: int = 0,
        *,
        cache: bool = True,
        fold: int | str = "auto",
        memory_budget: int = 1 << 25,
        tolerance: float | None = None,
        max_samples: int | None = None,
        return_samples: bool = False,
        task: str = "multi_class",
    ) -> None:
        self.auto = num_samples == "auto"
        most = (128 if max_samples is None else max_samples) if self.auto else num_samples
        self.max_samples = check_count(most, *("max_samples",) if self.auto else ("num_samples", "auto"))
        self.fold = fold if fold == "auto" else check_count(fold, "fold", "auto")
        self.memory_budget = check_count(memory_budget, "memory_budget")
        if sampling not in _SAMPLINGS:
            raise unknown("sampling", sampling, _SAMPLINGS)
        if not self.auto and (tolerance, max_samples) != (None, None):
            raise ValueError(
                "`tolerance` and `max_samples` are for num_samples='auto'. "
                f"Received: num_samples={num_samples!r}, tolerance={tolerance!r}, max_samples={max_samples!r}"
            )
        if self.auto and return_samples:
            raise ValueError("`return_samples` needs a number of samples. Received: num_samples='auto'")
        self.tolerance = 0.01 if tolerance is None else tolerance
        if not isinstance(self.tolerance, (int, float)) or not self.tolerance >= 0:
            raise ValueError(f"`tolerance` must be a float of at least 0. Received: tolerance={tolerance!r}")
        check_single(model)
        self.task = check_kind(task, model)
        self._probabilities = probabilities_of(model, task)
        self.model = model
        self.num_samples = num_samples
        self.sampling = sampling
        self.seed = _check_seed(seed)
        self.return_samples = return_samples
        self._size = min(_GROUP, self.max_samples) if self.auto else self.max_samples  # of a group
        self._balanced = sampling == "balanced"
        self._active = choose(model, sites)
        self._trunk = Trunk(model, [each.layer for each in self._active], cache)
        if not self._trunk.foldable and fold not in ("auto", 1):
            raise ValueError(f"The model mixes the images of a batch; pass fold=1. Received: fold={fold!r}")
        spec = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32), tf.TensorSpec([], tf.int64)]
        self._run = tf.function(self.sample, input_signature=spec, autograph=False)
        self._traced = False

    def __call__(self, images: Any, seed: int | None = None) -> dict[str, tf.Tensor]:
        images = check_images(images, self.model.input_shape)
        chosen = self.seed if seed is None else _check_seed(seed)
        if not self._traced:  # only tracing needs the lock: traced calls of many threads run side by side
            with TRACING:
                self._run.get_concrete_function()
            self._traced = True
        return self._run(images, tf.constant(chosen, tf.int64))

    def plan(self, size: tuple[int, ...] | None = None) -> Cut:
        """Where the model is cut and what that gains, for images of the model's size.

        Args:
            size: `(height, width)` where the model takes any; 256 x 256 by default.
        """
        return make_cut(self._trunk, fill_shape(self.model, size), self.max_samples)

    def sample(self, images: tf.Tensor, seed: tf.Tensor, plain: bool = False) -> dict[str, tf.Tensor]:
        """What a call computes, to be traced into a graph; `plain` leaves out what only XLA can run."""
        try:
            return self._sample(images, seed, plain, self._at_once(images))
        except SharedMaskError:
            if self.fold != "auto":
                raise ValueError(
                    "A dropout layer draws one mask for the whole batch, in which samples cannot differ; "
                    f"pass fold=1. Received: fold={self.fold!r}"
                ) from None
            return self._sample(images, seed, plain, 1)

    def _sample(self, images: tf.Tensor, seed: tf.Tensor, plain: bool, at_once: Any) -> dict[str, tf.Tensor]:
        batch, output_shape = tf.shape(images)[0], self.model.output_shape
        fixed = self.sampling == "fixed"
        rows = tf.zeros([batch], tf.uint32) if fixed else content_keys(images, plain)
        frontier = self._trunk.run_trunk(images)

        def softmax(group: Any, start: Any, stop: Any) -> tf.Tensor:
            """Samples of a group, (samples, batch, ..., classes)."""
            one = isinstance(at_once, int) and at_once == 1
            count = 1 if one else stop - start
            keys, inputs = (
                (rows, frontier) if one else (tf.tile(rows, [count]), [_tile(x, count) for x in frontier])
            )
            t = start if one else tf.repeat(tf.range(start, stop), batch)[:, None]  # (samples * batch, 1)
            if not self._balanced:  # one sequence over all groups
                t, group = t + group * self._size, 0
            with redirected(self._active, lambda stream: self._draw(stream, seed, keys, t, plain, group)):
                p = self._probabilities(self._trunk.run_head(inputs))
            shape = [None, None, *p.shape[1:]]
            return tf.ensure_shape(tf.reshape(p, tf.concat([[count, batch], tf.shape(p)[1:]], 0)), shape)

        def sums_of(group: Any) -> Any:
            count, rank = self._size, len(output_shape)
            return sum_samples(partial(softmax, group), count, at_once, rank, self.return_samples, self.task)

        if not self.auto:
            sums, kept = sums_of(0)
            out = sums.figures(self._size, output_shape, self.task)
            if self.return_samples:
                out["samples"] = tf.experimental.numpy.moveaxis(kept, 0, 1)  # (batch, samples, ..., classes)
            return out
        groups, rank = self.max_samples // self._size, len(output_shape)
        sums, count = sum_until(
            lambda g: sums_of(g)[0], self._size, groups, self.tolerance, batch, rank, self._balanced, self.task
        )
        return sums.figures(count, output_shape, self.task) | {"num_samples": count}

    def _at_once(self, images: tf.Tensor) -> Any:
        """How many samples to compute at a time: an int, or a tensor where it depends on the images."""
        if isinstance(self.fold, int):
            return min(self.fold, self._size)
        shape = fill_shape(self.model)
        costs = costs_or_none(self._trunk, shape) if self._trunk.foldable and self._size > 1 else None
        if costs is None:
            return 1
        each = tf.size(images, tf.int64) * max(costs.head_bytes, 1) // math.prod(shape)  # bytes in one sample
        fitting = tf.clip_by_value(self.memory_budget // tf.maximum(each, 1), 1, self._size)
        return tf.cast(-(-self._size // -(-self._size // fitting)), tf.int32)  # chunks of about one size

    def _draw(self, stream: str, seed: tf.Tensor, rows: tf.Tensor, t: Any, plain: bool, group: Any = 0) -> Draw:
        """The bits of one site in sample `t`; for several samples at once `(rows, 1)`, a number for each row."""
        return SampleDraw(stream, seed, group, rows, t, self._size, self._balanced, plain)


def check_single(model: keras.Model) -> None:
    """Refuses models of several inputs or outputs, and those without a graph."""
    if not hasattr(model, "inputs") or not model.built:
        raise ValueError(f"The model must be Functional or Sequential, and built. Received: {model!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Models of one image input and one output are supported so far. "
            f"Received: {len(model.inputs)} inputs, {len(model.outputs)} outputs"
        )


def check_images(images: Any, expected: tuple[int | None, ...]) -> tf.Tensor:
    """`images` as a float32 tensor, if they have the expected shape."""
    images = tf.convert_to_tensor(images)
    if len(images.shape) != len(expected) or not images.shape[1:].is_compatible_with(expected[1:]):
        raise ValueError(f"`images` must have the shape {expected}. Received: {tuple(images.shape)}")
    return tf.cast(images, tf.float32)


def _tile(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The batch `count` times, one after the other; with its mask, if Keras has put one on it."""
    tiled = tf.tile(x, tf.concat([[count], tf.ones([len(x.shape) - 1], tf.int32)], 0))
    tiled = tf.ensure_shape(tiled, [None, *x.shape[1:]])
    if (mask := mask_of(x)) is not None:
        put_mask(tiled, _tile(mask, count))
    return tiled


def _check_seed(seed: Any) -> int:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be an int in [0, 2**32). Received: seed={seed!r}")
    return seed


def check_count(value: Any, name: str, also: str | None = None) -> int:
    """`value`, if it is a positive int; `also` is another value that the caller takes."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        choice = f" or {also!r}" if also else ""
        raise ValueError(f"`{name}` must be a positive int{choice}. Received: {name}={value!r}")
    return value
