"""Mean, variance and entropies of samples of a model's output, from running sums, so that no sample is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.models.graph.endings import output_activation

#: Output kinds: what a model's output means. The public argument for it is `task`.
KINDS = ("multi_class", "binary", "multi_label", "regression")

#: A function from a model's output, or from a dict with one output, to a float32 tensor of the same shape.
Reading = Callable[[Any], tf.Tensor]


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
    def zero(cls, rank: int, kind: str) -> "Sums":
        """Returns the sums of no samples. They broadcast, since the size of the output is not known yet."""
        dtype = tf.float64 if kind == "regression" else tf.float32
        return cls(*[tf.zeros([1] * n, dtype) for n in (rank, rank, rank - 1)])

    @classmethod
    def shapes(cls, rank: int) -> "Sums":
        """Returns the shapes for a loop that starts with `zero`."""
        return cls(*[tf.TensorShape([None] * n) for n in (rank, rank, rank - 1)])

    def add(self, p: tf.Tensor, kind: str) -> "Sums":
        """Returns the sums after the samples `p`, `(samples, batch, ..., classes)`, are added."""
        p = tf.cast(p, self.p.dtype)
        total, squares = self.p + tf.reduce_sum(p, 0), self.squares + tf.reduce_sum(p * p, 0)
        if kind == "regression":
            return Sums(total, squares, self.entropy)
        return Sums(total, squares, self.entropy + tf.reduce_sum(entropy(p, kind), 0))

    def statistics(
        self, count: int | tf.Tensor, output_shape: tuple[int | None, ...], kind: str
    ) -> dict[str, tf.Tensor]:
        """Returns the statistics that `MonteCarlo` returns, float32 tensors by name.

        Args:
            count: Int or int tensor `(batch,)`, the number of samples.
            output_shape: Shape of the model's output, with the batch.
            kind: One of `KINDS`.
        """
        n = tf.cast(count, self.p.dtype)
        mean = tf.ensure_shape(self.p / _along(n, self.p), [None, *output_shape[1:]])
        variance = tf.maximum(self.squares / _along(n, self.p) - mean * mean, 0.0)
        out = {"mean": tf.cast(mean, tf.float32), "variance": tf.cast(variance, tf.float32)}
        if kind == "regression":
            return out
        predictive = entropy(mean, kind)
        information = predictive - self.entropy / _along(n, self.entropy)
        information = tf.clip_by_value(information, 0.0, predictive)
        return out | {"predictive_entropy": predictive, "mutual_information": information}


def sum_samples(
    samples: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    count: int,
    at_once: int | tf.Tensor,
    rank: int,
    keep: bool,
    kind: str,
) -> tuple[Sums, tf.Tensor | None]:
    """Sums samples in a loop inside the graph.

    Args:
        samples: Function of `start` and `stop` that returns these samples, `(stop - start, batch, ..., classes)`.
        count: Int, the number of samples.
        at_once: Int or int tensor, how many samples to ask for at a time.
        rank: Int, the rank of the model's output.
        keep: Bool, whether to keep the samples.
        kind: One of `KINDS`.

    Returns:
        The sums, and all samples, `(count, batch, ..., classes)`, or None.
    """

    def more(t: tf.Tensor, sums: Sums, kept: list[tf.TensorArray]) -> tuple[tf.Tensor, Sums, list[tf.TensorArray]]:
        stop = tf.minimum(t + at_once, count)
        p = samples(t, stop)
        return stop, sums.add(p, kind), [array.write(array.size(), p) for array in kept]

    arrays = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)] if keep else []
    _, sums, arrays = tf.while_loop(
        lambda t, *_: t < count,
        more,
        (tf.constant(0), Sums.zero(rank, kind), arrays),
        shape_invariants=(tf.TensorShape([]), Sums.shapes(rank), [tf.TensorShape(None) for _ in arrays]),
        parallel_iterations=1,
    )
    return sums, arrays[0].concat() if keep else None


def sum_until(
    sums_of: Callable[[tf.Tensor], Sums],
    size: int,
    groups: int,
    tolerance: float,
    batch: int | tf.Tensor,
    rank: int,
    stratified: bool,
    kind: str,
) -> tuple[Sums, tf.Tensor]:
    """Sums groups of samples until the mean of each image is known well enough.

    An image that is done takes no more samples, so its statistics do not depend on the other images. The loop runs
    until the slowest image is done. The standard error is estimated from the variance of the samples. If the
    samples of a group are stratified, this estimate is too large. An image is then done too if the standard error
    between the means of at least four groups is small enough.

    Args:
        sums_of: Function of the number of a group that returns the sums of its samples.
        size: Int, the number of samples in a group.
        groups: Int, the largest number of groups.
        tolerance: Float, the standard error to reach.
        batch: Int or int tensor, the number of images.
        rank: Int, the rank of the model's output.
        stratified: Bool, whether the samples of a group depend on each other.
        kind: One of `KINDS`.

    Returns:
        The sums, and the number of samples that each image took, int32 `(batch,)`.
    """
    zero = Sums.zero(rank, kind)
    none = tf.zeros([], zero.p.dtype)

    def done(count: tf.Tensor, sums: Sums, between: tf.Tensor) -> tf.Tensor:
        n = tf.cast(count, none.dtype)
        enough = standard_error(sums.p, sums.squares, n) <= tolerance
        if not stratified:
            return enough
        groups_so_far = n / size
        across = standard_error(sums.p / size, between, groups_so_far) <= tolerance
        return enough | (across & (groups_so_far >= 4.0))

    def more(
        group: tf.Tensor, count: tf.Tensor, finished: tf.Tensor, sums: Sums, between: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Sums, tf.Tensor]:
        new = sums_of(group)
        sums = Sums(*[a + tf.where(_along(finished, b), none, b) for a, b in zip(sums, new, strict=True)])
        between += tf.where(_along(finished, new.p), none, (new.p / size) ** 2)
        count += tf.where(finished, 0, size)
        return group + 1, count, finished | done(count, sums, between), sums, between

    start = (tf.constant(0), tf.zeros([batch], tf.int32), tf.zeros([batch], tf.bool))
    loose = tf.TensorShape([None] * rank)
    _, count, _, sums, _ = tf.while_loop(
        lambda group, count, finished, *_: (group < 1) | ((group < groups) & ~tf.reduce_all(finished)),
        more,
        (*start, zero, zero.p),
        shape_invariants=(*[x.shape for x in start], Sums.shapes(rank), loose),
        parallel_iterations=1,
    )
    return sums, count


def standard_error(total: tf.Tensor, squares: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the standard error of the mean of `count` independent draws, `(batch,)`.

    It is the root mean square over all axes but the batch, and infinite for a single draw, which does not show the
    spread.

    Args:
        total: Float tensor `(batch, ..., classes)`, the sum of the draws.
        squares: Float tensor `(batch, ..., classes)`, the sum of their squares.
        count: Float tensor `(batch,)`, the number of draws.
    """
    n = _along(count, total)
    variance = tf.maximum(squares / n - (total / n) ** 2, 0.0) / tf.maximum(n - 1.0, 1.0)
    error = tf.sqrt(tf.reduce_mean(variance, list(range(1, len(total.shape)))))
    return tf.where(count > 1.0, error, tf.constant(float("inf"), error.dtype))


def probabilities_of(model: keras.Model, kind: str = "multi_class") -> Reading:
    """Returns a function that turns a model's output into probabilities, or into values for regression.

    Logits of classes go through a softmax. A single logit and the logits of labels go through a sigmoid. The
    output stays as it is for regression, and if the model ends in a softmax or sigmoid itself.

    Args:
        model: A built model of one output.
        kind: One of `KINDS`.
    """
    turn = {None: tf.identity, "softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[_missing_activation(model, kind)]
    return lambda outputs: turn(_single(outputs))


def log_probabilities_of(model: keras.Model) -> Reading:
    """Returns a function that turns a model's output into log-probabilities of classes.

    They are exact if the output is logits. If it is probabilities `p`, they are `log(p + 1e-12)`.

    Args:
        model: A built model of one output.

    Raises:
        ValueError: If the model's output does not fit the output kind `"multi_class"`.
    """
    check_kind("multi_class", model)
    turn: Reading = tf.nn.log_softmax if output_activation(model) is None else lambda p: tf.math.log(p + 1e-12)
    return lambda outputs: turn(_single(outputs))


def _missing_activation(model: keras.Model, kind: str) -> str | None:
    """The activation that turns the model's output into its meaning; None if the output needs none."""
    if kind == "regression" or output_activation(model):
        return None
    return "sigmoid" if kind == "multi_label" or model.output_shape[-1] == 1 else "softmax"


def _single(outputs: Any) -> tf.Tensor:
    (output,) = keras.tree.flatten(outputs)  # the output may be a dict with one entry
    return tf.cast(output, tf.float32)


def entropy(p: tf.Tensor, kind: str = "multi_class") -> tf.Tensor:
    """Returns the entropy over the last axis, in nats.

    A single probability is that of a coin. Each label is a coin too, and the entropies of the labels are summed.

    Args:
        p: Float tensor `(..., classes)` of probabilities.
        kind: One of `KINDS`, except `"regression"`.
    """
    if kind == "multi_label" or p.shape[-1] == 1:
        return -tf.reduce_sum(tf.math.xlogy(p, p) + tf.math.xlogy(1.0 - p, 1.0 - p), -1)
    return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def check_kind(task: Any, model: keras.Model) -> str:
    """Returns `task` if it is an output kind that fits the model's output, or raises a ValueError."""
    classes, ending = model.output_shape[-1], output_activation(model)
    if task not in KINDS:
        raise unknown("task", task, KINDS)
    if task == "binary" and classes != 1:
        raise ValueError(
            f"task='binary' needs a model of one logit. Received: an output of the shape {model.output_shape}"
        )
    fitting = {
        "multi_class": "sigmoid" if classes == 1 else "softmax",
        "binary": "sigmoid",
        "multi_label": "sigmoid",
    }
    if ending is not None and ending != fitting.get(task, ending):
        raise ValueError(
            f"task={task!r} needs a model of logits, or one that ends in a {fitting[task]}. Received: a model of "
            f"{classes} outputs that ends in a {ending}; sigmoids of several outputs are task='multi_label'"
        )
    return task


def _along(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A scalar as it is, or one value for each image, reshaped to broadcast over the other axes of `like`."""
    values = tf.convert_to_tensor(values)
    return values if values.shape.rank == 0 else tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
