"""Monte-Carlo dropout: predictions with the dropout left on, averaged, with their uncertainty."""

import math
from functools import partial

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from dropzoo.common.checks import check_count, check_seed, unknown
from dropzoo.common.keras_internals import mask_of, put_mask
from dropzoo.layers.draws import Draw
from dropzoo.layers.draws.samples import SampleDraw, SharedMaskError, content_keys
from dropzoo.serving.montecarlo.active import TRACING, choose, redirected
from dropzoo.serving.montecarlo.cut import Cut, costs_or_none, fill_shape, make_cut
from dropzoo.serving.montecarlo.statistics import Sums, check_kind, probabilities_of, sum_samples, sum_until
from dropzoo.serving.montecarlo.trunk import Trunk

_SAMPLINGS = ("balanced", "independent", "fixed")
_GROUP = 8  # with num_samples="auto", samples are balanced within groups of this size, and compared group by group


class MonteCarlo:
    """Samples a model with its dropout on and returns the mean and the uncertainty.

    The spread of the samples (mutual information) shows where a model is unsure because it has not seen enough
    data. It does not grow where the classes themselves overlap. Only the dropout layers are on. BatchNorm and all
    other layers run in inference mode, and the state of the model, including its seeds, does not change.

    Let `p_t` be the probabilities of sample `t` of T. Then
    `mean = avg p_t`, `variance = avg p_t**2 - mean**2` (divided by T, since balanced samples are not independent),
    `predictive_entropy = H(mean)` and `mutual_information = H(mean) - avg H(p_t)`, in nats. For a single logit,
    `p_t` is its sigmoid, and the entropies are those of a coin. See `task` for other outputs.

    Layers that no active dropout reaches are computed once instead of T times, and small samples are computed
    several at a time. Neither changes the masks, and the statistics change only by rounding. `cut()` returns how
    much the first of these saves.

    A warning names the dropout that sampling cannot turn on, such as the dropout inside the cells of an RNN.

    Args:
        model: A Functional or Sequential model of one image input and one output, with dropout layers of ours or
            of Keras. The output is logits, or the result of a last softmax or sigmoid.
        num_samples: Int, the number T of samples, or `"auto"` for as many as each image needs.
        sampling: `"balanced"`: each unit's draws are stratified over the T samples. Each sample has the same
            distribution as an independent one, and the mean has a smaller error. `"independent"`: independent
            masks. `"fixed"`: independent masks, the same T for all images, so that tiles and video frames agree.
            Unless this is `"fixed"`, the masks of an image depend on the seed and on the content of the image.
        sites: Dict that selects the dropout layers that are on; None for all. The keys are names or patterns of
            sites, as in `models.list_sites`. The values are True, for the layer's live rate, or another rate in
            [0, 1).
        seed: Int in [0, 2**32). Neither setting it later nor passing one to a call traces the model again.
        cache: Bool, whether layers that no active dropout reaches are computed once.
        fold: Int, how many samples are computed at a time, as one larger batch, or `"auto"` for as many as
            `memory_budget` allows.
        memory_budget: Int, bytes of activations that `fold="auto"` may use; a single sample may need more. On a
            CPU, budgets well above 32 MiB are slower, because activations no longer fit in the cache.
        tolerance: Float of at least 0, for `num_samples="auto"`. An image has enough samples when the standard
            error of its mean, as the root mean square over classes and pixels, is at most `tolerance`. For
            regression it is in the unit of the output. Defaults to 0.01.
        max_samples: Int, the largest number of samples for `num_samples="auto"`. Samples are taken in groups of 8,
            so a larger number is rounded down to a multiple of 8. Defaults to 128.
        return_samples: Bool, whether to return the probabilities of each sample too.
        task: What the model's output means. `"multi_class"`: logits of classes that exclude each other, or one
            logit for the second of two classes. `"binary"`: only one logit, for the second of two classes.
            `"multi_label"`: one logit for each label; several labels may be on together, and the entropies are
            summed over the labels. `"regression"`: values; there are no entropies.

    Call arguments:
        images: Floating point tensor `(batch, height, width, channels)`.
        seed: Int in [0, 2**32), which replaces the object's seed for this call.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. With `return_samples` also `samples`,
        `(batch, T, ..., classes)`. With `num_samples="auto"` also `num_samples`, int32 `(batch,)`.

    Raises:
        ValueError: If an argument is bad, the model has no dropout, a pattern matches no site, the output does not
            fit the task, or the images do not have the model's input shape.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> mc = serving.MonteCarlo(model, num_samples=8)
    >>> out = mc(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))
    >>> mc.cut().frontier
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
        self.num_samples, self.auto = num_samples, num_samples == "auto"
        if self.auto:
            self.max_samples = check_count(128 if max_samples is None else max_samples, "max_samples")
        else:
            self.max_samples = _check_count_or_auto(num_samples, "num_samples")
        self.fold = fold if fold == "auto" else _check_count_or_auto(fold, "fold")
        self.memory_budget = check_count(memory_budget, "memory_budget")
        if sampling not in _SAMPLINGS:
            raise unknown("sampling", sampling, _SAMPLINGS)
        self.sampling = sampling
        self.tolerance = _check_auto(num_samples, tolerance, max_samples, return_samples)
        check_single(model)
        self.task = check_kind(task, model)
        self.model = model
        self.sites = sites
        self.seed = check_seed(seed)
        self.return_samples = return_samples
        self._probabilities = probabilities_of(model, task)
        self._group_size = min(_GROUP, self.max_samples) if self.auto else self.max_samples
        self._balanced = sampling == "balanced"
        self._active = choose(model, sites)
        self._trunk = Trunk(model, [each.layer for each in self._active], cache)
        if not self._trunk.foldable and fold not in ("auto", 1):
            raise ValueError(f"The model mixes the images of a batch; pass fold=1. Received: fold={fold!r}")
        spec = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32), tf.TensorSpec([], tf.int64)]
        self._run = tf.function(self.sample, input_signature=spec, autograph=False)
        self._traced = False

    def __call__(self, images: ArrayLike, seed: int | None = None) -> dict[str, tf.Tensor]:
        checked = check_images(images, self.model.input_shape)
        chosen = self.seed if seed is None else check_seed(seed)
        if not self._traced:  # only tracing needs the lock: traced calls of many threads run side by side
            with TRACING:
                self._run.get_concrete_function()
            self._traced = True
        return self._run(checked, tf.constant(chosen, tf.int64))

    def cut(self, size: tuple[int, ...] | None = None) -> Cut:
        """Returns where the model is cut for sampling, and how much the cut saves.

        Args:
            size: `(height, width)` of the images, for a model that takes any size; 256 x 256 by default.

        Returns:
            A `Cut`. Printing it gives a summary.

        Raises:
            ValueError: If `size` does not fit the model.
        """
        return make_cut(self._trunk, fill_shape(self.model, size), self.max_samples)

    def plan(self, size: tuple[int, ...] | None = None) -> Cut:
        """Returns `cut(size)`; this is an alias of `cut`."""
        return self.cut(size)

    def sample(self, images: tf.Tensor, seed: tf.Tensor, plain: bool = False) -> dict[str, tf.Tensor]:
        """Returns the same statistics as a call, for use inside a graph.

        Args:
            images: Float32 tensor `(batch, height, width, channels)`.
            seed: Int64 scalar tensor, in [0, 2**32).
            plain: Bool, whether to leave out operations that only XLA can run.

        Raises:
            ValueError: If a dropout layer draws one mask for the whole batch, and `fold` is an int above 1.
        """
        try:
            return self._sample(images, seed, plain, self._at_once(images))
        except SharedMaskError:
            if self.fold != "auto":
                raise ValueError(
                    "A dropout layer draws one mask for the whole batch, in which samples cannot differ; "
                    f"pass fold=1. Received: fold={self.fold!r}"
                ) from None
            return self._sample(images, seed, plain, 1)

    def _sample(
        self, images: tf.Tensor, seed: tf.Tensor, plain: bool, at_once: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        batch, output_shape = tf.shape(images)[0], self.model.output_shape
        rank = len(output_shape)
        fixed = self.sampling == "fixed"
        rows = tf.zeros([batch], tf.uint32) if fixed else content_keys(images, plain)
        frontier = self._trunk.run_trunk(images)

        def samples(group: int | tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
            """Probabilities of the samples of a group from `start` to `stop`, (samples, batch, ..., classes)."""
            if isinstance(at_once, int) and at_once == 1:
                count, keys, inputs, t = 1, rows, frontier, start
            else:
                count = stop - start
                keys, inputs = tf.tile(rows, [count]), [_tile(x, count) for x in frontier]
                t = tf.repeat(tf.range(start, stop), batch)[:, None]  # (samples * batch, 1)
            if not self._balanced:  # one sequence over all groups
                t, group = t + group * self._group_size, 0
            with redirected(self._active, lambda stream: self._draw(stream, seed, keys, t, plain, group)):
                p = self._probabilities(self._trunk.run_head(inputs))
            shape = [None, None, *p.shape[1:]]
            return tf.ensure_shape(tf.reshape(p, tf.concat([[count, batch], tf.shape(p)[1:]], 0)), shape)

        def sums_of(group: int | tf.Tensor) -> tuple[Sums, tf.Tensor | None]:
            keep = self.return_samples
            return sum_samples(partial(samples, group), self._group_size, at_once, rank, keep, self.task)

        if self.auto:
            size, groups = self._group_size, self.max_samples // self._group_size
            sums, count = sum_until(
                lambda g: sums_of(g)[0], size, groups, self.tolerance, batch, rank, self._balanced, self.task
            )
            return sums.statistics(count, output_shape, self.task) | {"num_samples": count}
        sums, kept = sums_of(0)
        out = sums.statistics(self._group_size, output_shape, self.task)
        if self.return_samples:
            out["samples"] = tf.experimental.numpy.moveaxis(kept, 0, 1)  # (batch, samples, ..., classes)
        return out

    def _at_once(self, images: tf.Tensor) -> int | tf.Tensor:
        """How many samples to compute at a time: an int, or a tensor if it depends on the images."""
        if isinstance(self.fold, int):
            return min(self.fold, self._group_size)
        shape = fill_shape(self.model)
        costs = costs_or_none(self._trunk, shape) if self._trunk.foldable and self._group_size > 1 else None
        if costs is None:
            return 1
        each = tf.size(images, tf.int64) * max(costs.head_bytes, 1) // math.prod(shape)  # bytes in one sample
        fitting = tf.clip_by_value(self.memory_budget // tf.maximum(each, 1), 1, self._group_size)
        chunks = -(-self._group_size // fitting)  # rounded up, here and below
        return tf.cast(-(-self._group_size // chunks), tf.int32)  # so that all chunks have about the same size

    def _draw(
        self,
        stream: str,
        seed: tf.Tensor,
        rows: tf.Tensor,
        t: tf.Tensor,
        plain: bool,
        group: int | tf.Tensor = 0,
    ) -> Draw:
        """The draws of one stream in sample `t`, an int scalar, or `(rows, 1)` if each row has its own sample."""
        return SampleDraw(stream, seed, group, rows, t, self._group_size, self._balanced, plain)


def check_single(model: keras.Model) -> None:
    """Raises a ValueError if a model has several inputs or outputs, or has no graph."""
    if not hasattr(model, "inputs") or not model.built:
        raise ValueError(f"The model must be Functional or Sequential, and built. Received: {model!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "The model must have one image input and one output. "
            f"Received: {len(model.inputs)} inputs, {len(model.outputs)} outputs"
        )


def check_images(images: ArrayLike, expected: tuple[int | None, ...]) -> tf.Tensor:
    """Returns `images` as a float32 tensor, or raises a ValueError if they have another shape than expected."""
    tensor = tf.convert_to_tensor(images)
    if len(tensor.shape) != len(expected) or not tensor.shape[1:].is_compatible_with(expected[1:]):
        raise ValueError(f"`images` must have the shape {expected}. Received: {tuple(tensor.shape)}")
    return tf.cast(tensor, tf.float32)


def _tile(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A batch repeated `count` times. The mask that Keras may have put on it is repeated too."""
    tiled = tf.tile(x, tf.concat([[count], tf.ones([len(x.shape) - 1], tf.int32)], 0))
    tiled = tf.ensure_shape(tiled, [None, *x.shape[1:]])
    if (mask := mask_of(x)) is not None:
        put_mask(tiled, _tile(mask, count))
    return tiled


def _check_count_or_auto(value: int | str, name: str) -> int:
    """Returns a positive int; the error for other values says that 'auto' is possible too."""
    try:
        return check_count(value, name)
    except ValueError:
        raise ValueError(f"`{name}` must be a positive int or 'auto'. Received: {name}={value!r}") from None


def _check_auto(
    num_samples: int | str, tolerance: float | None, max_samples: int | None, return_samples: bool
) -> float:
    """Returns the tolerance, or raises a ValueError if these options do not go together."""
    if num_samples != "auto" and (tolerance, max_samples) != (None, None):
        raise ValueError(
            "`tolerance` and `max_samples` are for num_samples='auto'. "
            f"Received: num_samples={num_samples!r}, tolerance={tolerance!r}, max_samples={max_samples!r}"
        )
    if num_samples == "auto" and return_samples:
        raise ValueError("`return_samples` needs a number of samples. Received: num_samples='auto'")
    if tolerance is None:
        return 0.01
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise ValueError(f"`tolerance` must be a float of at least 0. Received: tolerance={tolerance!r}")
    return tolerance
