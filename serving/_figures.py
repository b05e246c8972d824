"""The figures of Monte-Carlo samples, from sums: no sample is kept, unless it is asked for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Sums(NamedTuple):
    """Over samples: of the probabilities and of their squares, (batch, ..., classes); of the entropies."""

    p: tf.Tensor
    squares: tf.Tensor
    entropy: tf.Tensor

    @classmethod
    def zero(cls, rank: int) -> "Sums":
        """Of no samples. They broadcast: the output's size is known once there is a sample."""
        return cls(tf.zeros([1] * rank), tf.zeros([1] * rank), tf.zeros([1] * (rank - 1)))

    @classmethod
    def shapes(cls, rank: int) -> "Sums":
        """The shapes in a loop that starts with `zero`."""
        return cls(*[tf.TensorShape([None] * n) for n in (rank, rank, rank - 1)])

    def add(self, p: tf.Tensor) -> "Sums":
        """With more samples, (samples, batch, ..., classes)."""
        more = Sums(tf.reduce_sum(p, 0), tf.reduce_sum(p * p, 0), tf.reduce_sum(entropy(p), 0))
        return Sums(*[a + b for a, b in zip(self, more, strict=True)])

    def figures(self, count: tf.Tensor, output_shape: tuple[int | None, ...]) -> dict[str, tf.Tensor]:
        """What `MonteCarlo` returns, for `count` samples: a float or `(batch,)`."""
        mean = tf.ensure_shape(self.p / _along(count, self.p), [None, *output_shape[1:]])
        variance = self.squares / _along(count, self.p) - mean * mean
        predictive = entropy(mean)
        information = predictive - self.entropy / _along(count, self.entropy)
        return {
            "mean": mean,
            "variance": tf.maximum(variance, 0.0),
            "predictive_entropy": predictive,
            "mutual_information": tf.clip_by_value(information, 0.0, predictive),
        }


def sum_samples(samples: Callable[[Any, Any], Any], count: int, at_once: Any, rank: int, keep: bool) -> Any:
    """The sums over `samples(start, stop)`, and all samples, `(count, batch, ..., classes)`, or None.

    Args:
        samples: gives the samples from `start` up to `stop`.
        count: Int, of the samples.
        at_once: Int or int tensor, how many to ask for at a time.
        rank: Int, of the model's output.
        keep: Bool, keep the samples.
    """

    def more(t: Any, sums: Sums, kept: Any) -> Any:
        stop = tf.minimum(t + at_once, count)
        p = samples(t, stop)
        return stop, sums.add(p), [array.write(array.size(), p) for array in kept]

    arrays = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)] if keep else []
    _, sums, arrays = tf.while_loop(
        lambda t, *_: t < count,
        more,
        (tf.constant(0), Sums.zero(rank), arrays),
        shape_invariants=(tf.TensorShape([]), Sums.shapes(rank), [tf.TensorShape(None) for _ in arrays]),
        parallel_iterations=1,
    )
    return sums, arrays[0].concat() if keep else None


def sum_until(
    sums_of: Callable[[Any], Sums],
    size: int,
    groups: int,
    tolerance: float,
    batch: Any,
    rank: int,
    stratified: bool,
) -> tuple[Sums, tf.Tensor]:
    """The sums over groups of samples until each image's mean is known well enough, and how many samples it took.

    An image that is done takes no more samples, so its figures do not depend on the others; the loop runs for the
    slowest. The standard error comes from the samples; where they are stratified within groups, their variance
    overstates it, and the means of at least four groups may show that the image is done.

    Args:
        sums_of: gives the sums of a group by its number.
        size: Int, samples in a group.
        groups: Int, the most groups.
        tolerance: Float, the standard error to reach.
        batch: the number of images.
        rank: Int, of the model's output.
        stratified: Bool, whether the samples of a group depend on each other.

    Returns:
        The sums, and an int32 tensor `(batch,)`.
    """

    def done(count: Any, sums: Sums, between: Any) -> Any:
        n = tf.cast(count, tf.float32)
        enough = standard_error(sums.p, sums.squares, n) <= tolerance
        if not stratified:
            return enough
        groups_so_far = n / size
        across = standard_error(sums.p / size, between, groups_so_far) <= tolerance
        return enough | (across & (groups_so_far >= 4.0))

    def more(group: Any, count: Any, finished: Any, sums: Sums, between: Any) -> Any:
        new = sums_of(group)
        sums = Sums(*[a + tf.where(_along(finished, b), 0.0, b) for a, b in zip(sums, new, strict=True)])
        between += tf.where(_along(finished, new.p), 0.0, (new.p / size) ** 2)
        count += tf.where(finished, 0, size)
        return group + 1, count, finished | done(count, sums, between), sums, between

    start = (tf.constant(0), tf.zeros([batch], tf.int32), tf.zeros([batch], tf.bool))
    loose = tf.TensorShape([None] * rank)
    _, count, _, sums, _ = tf.while_loop(
        lambda group, count, finished, *_: (group < 1) | ((group < groups) & ~tf.reduce_all(finished)),
        more,
        (*start, Sums.zero(rank), tf.zeros([1] * rank)),
        shape_invariants=(*[x.shape for x in start], Sums.shapes(rank), loose),
        parallel_iterations=1,
    )
    return sums, count


def standard_error(total: tf.Tensor, squares: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Of the mean of `count` independent draws, `(batch,)`: the root mean square over all but the batch.

    A single draw says nothing of it: infinite.
    """
    n = _along(count, total)
    variance = tf.maximum(squares / n - (total / n) ** 2, 0.0) / tf.maximum(n - 1.0, 1.0)
    error = tf.sqrt(tf.reduce_mean(variance, list(range(1, len(total.shape)))))
    return tf.where(count > 1.0, error, float("inf"))


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """The softmax of logits, or the sigmoid of a single one, in float32."""
    logits = tf.cast(logits, tf.float32)
    return tf.sigmoid(logits) if logits.shape[-1] == 1 else tf.nn.softmax(logits)


def entropy(p: tf.Tensor) -> tf.Tensor:
    """In nats, over the last axis; of a coin where that has one entry."""
    if p.shape[-1] == 1:
        p = tf.concat([p, 1.0 - p], -1)
    return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def _along(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """One value for each image, or a single one, to broadcast over the images' other axes."""
    values = tf.convert_to_tensor(values)
    return values if values.shape.rank == 0 else tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
