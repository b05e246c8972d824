"""Mean, variance and entropies of samples of a model's output, from running sums, so that no sample is kept."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from dropzoo.serving.montecarlo.outputs import Output


class Sums(NamedTuple):
    """Sums over samples, from which the statistics follow.

    For regression the sums are in float64, because a variance that is small beside the squares would be lost in
    float32, and `entropy` stays a zero that broadcasts.

    Attributes:
        p: Sum of the probabilities (of the outputs, for regression), `(batch, ..., classes)`.
        squares: Sum of their squares, `(batch, ..., classes)`.
        entropy: Sum of the entropies of the samples, `(batch, ...)`.
    """

    p: tf.Tensor
    squares: tf.Tensor
    entropy: tf.Tensor

    @classmethod
    def zero(cls, output: Output) -> "Sums":
        """Returns the sums of no samples. They broadcast, since the size of the output is not known yet."""
        rank, dtype = len(output.shape), tf.float64 if output.kind == "regression" else tf.float32
        return cls(*[tf.zeros([1] * n, dtype) for n in (rank, rank, rank - 1)])

    @classmethod
    def shapes(cls, output: Output) -> "Sums":
        """Returns the shapes for a loop that starts with `zero`."""
        rank = len(output.shape)
        return cls(*[tf.TensorShape([None] * n) for n in (rank, rank, rank - 1)])

    def add(self, p: tf.Tensor, kind: str) -> "Sums":
        """Returns the sums after the samples `p`, `(samples, batch, ..., classes)`, are added."""
        p = tf.cast(p, self.p.dtype)
        total, squares = self.p + tf.reduce_sum(p, 0), self.squares + tf.reduce_sum(p * p, 0)
        if kind == "regression":
            return Sums(total, squares, self.entropy)
        return Sums(total, squares, self.entropy + tf.reduce_sum(entropy(p, kind), 0))

    def statistics(self, count: int | tf.Tensor, output: Output) -> dict[str, tf.Tensor]:
        """Returns the statistics that `MonteCarlo` returns, float32 tensors by name.

        Args:
            count: Int or int tensor `(batch,)`, the number of samples.
            output: The model's output.
        """
        n = tf.cast(count, self.p.dtype)
        mean = self.p / _along(n, self.p)
        mean.set_shape([None, *output.shape[1:]])  # without an operation, for runtimes that have none for it
        variance = tf.maximum(self.squares / _along(n, self.p) - mean * mean, 0.0)
        out = {"mean": tf.cast(mean, tf.float32), "variance": tf.cast(variance, tf.float32)}
        if output.flat:
            out = {name: value[:, 0] for name, value in out.items()}
        if output.kind == "regression":
            return out
        predictive = entropy(mean, output.kind)
        information = predictive - self.entropy / _along(n, self.entropy)
        information = tf.clip_by_value(information, 0.0, predictive)
        return out | {"predictive_entropy": predictive, "mutual_information": information}


class Differences(NamedTuple):
    """Sums of the differences between the samples of a regression and the first one, for runtimes without 64 bits.

    The differences are as small as the spread of the samples, so float32 holds their squares well enough.

    Attributes:
        p: Sum of the differences, `(batch, ..., values)`.
        squares: Sum of their squares, `(batch, ..., values)`.
        first: The first sample, `(batch, ..., values)`.
    """

    p: tf.Tensor
    squares: tf.Tensor
    first: tf.Tensor

    @classmethod
    def zero(cls, output: Output) -> "Differences":
        """Returns the sums of no samples. They broadcast, since the size of the output is not known yet."""
        return cls(*[tf.zeros([1] * len(output.shape)) for _ in cls._fields])

    def add(self, p: tf.Tensor, turn: tf.Tensor) -> "Differences":
        """Returns the sums after samples are added.

        Args:
            p: Float32 tensor `(samples, batch, ..., values)`.
            turn: Int32 scalar, 0 for the first samples.
        """
        first = tf.where(turn == 0, p[0], self.first)
        p = p - first
        return Differences(self.p + tf.reduce_sum(p, 0), self.squares + tf.reduce_sum(p * p, 0), first)

    def statistics(self, count: int, output: Output) -> dict[str, tf.Tensor]:
        """Returns the statistics that `MonteCarlo` returns, float32 tensors by name.

        Args:
            count: Int, the number of samples.
            output: The model's output.
        """
        found = Sums(*self).statistics(count, output)
        return found | {"mean": found["mean"] + (self.first[:, 0] if output.flat else self.first)}


def sums_of(output: Output) -> type[Sums] | type[Differences]:
    """Returns the class of the sums of an output, for runtimes that have no 64 bits.

    Args:
        output: The model's output.
    """
    return Differences if output.kind == "regression" else Sums


def added(sums: Sums | Differences, p: tf.Tensor, turn: tf.Tensor, output: Output) -> Sums | Differences:
    """Returns sums after samples are added.

    Args:
        sums: The sums.
        p: Float32 tensor `(samples, batch, ..., classes)`, the samples.
        turn: Int32 scalar, 0 for the first samples.
        output: The model's output.
    """
    return sums.add(p, turn) if isinstance(sums, Differences) else sums.add(p, output.kind)


def sum_samples(
    samples: Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]],
    count: int,
    at_once: int | tf.Tensor,
    outputs: Sequence[Output],
    keep: bool,
) -> tuple[list[Sums], list[tf.Tensor]]:
    """Sums samples in a loop inside the graph.

    Args:
        samples: Function of `start` and `stop` that returns these samples of each output,
            `(stop - start, batch, ..., classes)`.
        count: Int, the number of samples.
        at_once: Int or int tensor, how many samples to ask for at a time.
        outputs: The outputs of the model.
        keep: Bool, whether to keep the samples.

    Returns:
        The sums of each output, and all samples of each output, `(count, batch, ..., classes)`, if they are kept.
    """

    def more(t: tf.Tensor, sums: list[Sums], kept: list[tf.TensorArray]) -> tuple[Any, ...]:
        stop = tf.minimum(t + at_once, count)
        drawn = samples(t, stop)
        sums = [each.add(p, output.kind) for each, p, output in zip(sums, drawn, outputs, strict=True)]
        return stop, sums, [array.write(array.size(), p) for array, p in zip(kept, drawn, strict=False)]

    arrays = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False) for _ in outputs if keep]
    shapes = [Sums.shapes(output) for output in outputs]
    _, sums, arrays = tf.while_loop(
        lambda t, *_: t < count,
        more,
        (tf.constant(0), [Sums.zero(output) for output in outputs], arrays),
        shape_invariants=(tf.TensorShape([]), shapes, [tf.TensorShape(None) for _ in arrays]),
        parallel_iterations=1,
    )
    return sums, [array.concat() for array in arrays]


def sum_until(
    sums_of: Callable[[tf.Tensor], list[Sums]],
    size: int,
    groups: int,
    tolerances: Sequence[float],
    batch: int | tf.Tensor,
    outputs: Sequence[Output],
    stratified: bool,
) -> tuple[list[Sums], tf.Tensor]:
    """Sums groups of samples until the means of each image are known well enough.

    An image that is done takes no more samples, so its statistics do not depend on the other images. The loop runs
    until the slowest image is done. The standard error is estimated from the variance of the samples. If the
    samples of a group are stratified, this estimate is too large. An output is then done too if the standard error
    between the means of at least four groups is small enough.

    Args:
        sums_of: Function of the number of a group that returns the sums of its samples for each output.
        size: Int, the number of samples in a group.
        groups: Int, the largest number of groups.
        tolerances: The standard error to reach, for each output.
        batch: Int or int tensor, the number of images.
        outputs: The outputs of the model.
        stratified: Bool, whether the samples of a group depend on each other.

    Returns:
        The sums of each output, and the number of samples that each image took, int32 `(batch,)`.
    """

    def done(count: tf.Tensor, sums: Sums, between: tf.Tensor, tolerance: float) -> tf.Tensor:
        n = tf.cast(count, sums.p.dtype)
        enough = standard_error(sums.p, sums.squares, n) <= tolerance
        if not stratified:
            return enough
        groups_so_far = n / size
        across = standard_error(sums.p / size, between, groups_so_far) <= tolerance
        return enough | (across & (groups_so_far >= 4.0))

    def more(
        group: tf.Tensor, count: tf.Tensor, finished: tf.Tensor, sums: list[Sums], between: list[tf.Tensor]
    ) -> tuple[Any, ...]:
        def kept(values: tf.Tensor) -> tf.Tensor:
            return tf.where(_along(finished, values), tf.zeros([], values.dtype), values)

        new = sums_of(group)
        sums = [Sums(*[a + kept(b) for a, b in zip(s, n, strict=True)]) for s, n in zip(sums, new, strict=True)]
        between = [b + kept((n.p / size) ** 2) for b, n in zip(between, new, strict=True)]
        count += tf.where(finished, 0, size)
        ready = [done(count, *each) for each in zip(sums, between, tolerances, strict=True)]
        return group + 1, count, finished | tf.reduce_all(ready, 0), sums, between

    zeros = [Sums.zero(output) for output in outputs]
    start = (tf.constant(0), tf.zeros([batch], tf.int32), tf.zeros([batch], tf.bool))
    loose = [tf.TensorShape([None] * len(output.shape)) for output in outputs]
    _, count, _, sums, _ = tf.while_loop(
        lambda group, count, finished, *_: (group < 1) | ((group < groups) & ~tf.reduce_all(finished)),
        more,
        (*start, zeros, [zero.p for zero in zeros]),
        shape_invariants=(*[x.shape for x in start], [Sums.shapes(output) for output in outputs], loose),
        parallel_iterations=1,
    )
    return sums, count


def standard_error(total: tf.Tensor, squares: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the standard error of the mean of `count` independent draws, `(batch,)`.

    It is the root mean square over all axes except the batch, and infinite for a single draw, which does not show
    the spread.

    Args:
        total: Float tensor `(batch, ..., classes)`, the sum of the draws.
        squares: Float tensor `(batch, ..., classes)`, the sum of their squares.
        count: Float tensor `(batch,)`, the number of draws.
    """
    n = _along(count, total)
    variance = tf.maximum(squares / n - (total / n) ** 2, 0.0) / tf.maximum(n - 1.0, 1.0)
    error = tf.sqrt(tf.reduce_mean(variance, list(range(1, len(total.shape)))))
    return tf.where(count > 1.0, error, tf.constant(float("inf"), error.dtype))


def entropy(p: tf.Tensor, kind: str = "multi_class") -> tf.Tensor:
    """Returns the entropy over the last axis, in nats.

    A single probability is that of a coin. Each label is a coin too, and the entropies of the labels are summed.

    Args:
        p: Float tensor `(..., classes)` of probabilities.
        kind: One of `KINDS`, except `"regression"`.
    """
    p = tf.clip_by_value(p, 0.0, 1.0)  # a resize after the softmax may overshoot
    if kind == "multi_label" or p.shape[-1] == 1:
        return -tf.reduce_sum(tf.math.xlogy(p, p) + tf.math.xlogy(1.0 - p, 1.0 - p), -1)
    return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def _along(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A scalar as it is, or one value for each image, reshaped to broadcast over the other axes of `like`."""
    values = tf.convert_to_tensor(values)
    return values if values.shape.rank == 0 else tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
