"""The figures of samples of a model's answer, from sums: no sample is kept, unless it is asked for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.models.graph.endings import output_activation

TASKS = ("multi_class", "binary", "multi_label", "regression")


class Sums(NamedTuple):
    """Over samples: of the probabilities and of their squares, (batch, ..., classes); of the entropies.

    For regression: of the outputs, in float64, where their squares keep a variance that is small beside them; the
    entropies stay a zero that broadcasts.
    """

    p: tf.Tensor
    squares: tf.Tensor
    entropy: tf.Tensor

    @classmethod
    def zero(cls, rank: int, task: str) -> "Sums":
        """Of no samples. They broadcast: the output's size is known once there is a sample."""
        dtype = tf.float64 if task == "regression" else tf.float32
        return cls(*[tf.zeros([1] * n, dtype) for n in (rank, rank, rank - 1)])

    @classmethod
    def shapes(cls, rank: int) -> "Sums":
        """The shapes in a loop that starts with `zero`."""
        return cls(*[tf.TensorShape([None] * n) for n in (rank, rank, rank - 1)])

    def add(self, p: tf.Tensor, task: str) -> "Sums":
        """With more samples, (samples, batch, ..., classes)."""
        p = tf.cast(p, self.p.dtype)
        total, squares = self.p + tf.reduce_sum(p, 0), self.squares + tf.reduce_sum(p * p, 0)
        if task == "regression":
            return Sums(total, squares, self.entropy)
        return Sums(total, squares, self.entropy + tf.reduce_sum(entropy(p, task), 0))

    def figures(self, count: Any, output_shape: tuple[int | None, ...], task: str) -> dict[str, tf.Tensor]:
        """What `MonteCarlo` returns, for `count` samples: a number or `(batch,)`."""
        n = tf.cast(count, self.p.dtype)
        mean = tf.ensure_shape(self.p / _along(n, self.p), [None, *output_shape[1:]])
        variance = tf.maximum(self.squares / _along(n, self.p) - mean * mean, 0.0)
        out = {"mean": tf.cast(mean, tf.float32), "variance": tf.cast(variance, tf.float32)}
        if task == "regression":
            return out
        predictive = entropy(mean, task)
        information = predictive - self.entropy / _along(n, self.entropy)
        information = tf.clip_by_value(information, 0.0, predictive)
        return out | {"predictive_entropy": predictive, "mutual_information": information}


def sum_samples(
    samples: Callable[[Any, Any], Any], count: int, at_once: Any, rank: int, keep: bool, task: str
) -> Any:
    """The sums over `samples(start, stop)`, and all samples, `(count, batch, ..., classes)`, or None.

    Args:
        samples: gives the samples from `start` up to `stop`.
        count: Int, of the samples.
        at_once: Int or int tensor, how many to ask for at a time.
        rank: Int, of the model's output.
        keep: Bool, keep the samples.
        task: One of `TASKS`.
    """

    def more(t: Any, sums: Sums, kept: Any) -> Any:
        stop = tf.minimum(t + at_once, count)
        p = samples(t, stop)
        return stop, sums.add(p, task), [array.write(array.size(), p) for array in kept]

    arrays = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)] if keep else []
    _, sums, arrays = tf.while_loop(
        lambda t, *_: t < count,
        more,
        (tf.constant(0), Sums.zero(rank, task), arrays),
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
    task: str,
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
        task: One of `TASKS`.

    Returns:
        The sums, and an int32 tensor `(batch,)`.
    """

    zero = Sums.zero(rank, task)
    none = tf.zeros([], zero.p.dtype)

    def done(count: Any, sums: Sums, between: Any) -> Any:
        n = tf.cast(count, none.dtype)
        enough = standard_error(sums.p, sums.squares, n) <= tolerance
        if not stratified:
            return enough
        groups_so_far = n / size
        across = standard_error(sums.p / size, between, groups_so_far) <= tolerance
        return enough | (across & (groups_so_far >= 4.0))

    def more(group: Any, count: Any, finished: Any, sums: Sums, between: Any) -> Any:
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
    """Of the mean of `count` independent draws, `(batch,)`: the root mean square over all but the batch.

    A single draw says nothing of it: infinite.
    """
    n = _along(count, total)
    variance = tf.maximum(squares / n - (total / n) ** 2, 0.0) / tf.maximum(n - 1.0, 1.0)
    error = tf.sqrt(tf.reduce_mean(variance, list(range(1, len(total.shape)))))
    return tf.where(count > 1.0, error, tf.constant(float("inf"), error.dtype))


def probabilities_of(model: keras.Model, task: str = "multi_class") -> Callable[[tf.Tensor], tf.Tensor]:
    """What turns a model's output into what it means, in float32.

    The softmax of logits, or the sigmoid of a single one or of each label's own; what went through either in the
    model, and what regression gives, stays as it is.
    """
    turn: Callable[[tf.Tensor], tf.Tensor] = tf.nn.softmax
    if task == "regression" or output_activation(model):
        turn = tf.identity
    elif task == "multi_label" or model.output_shape[-1] == 1:
        turn = tf.sigmoid

    def probabilities(outputs: Any) -> tf.Tensor:
        (output,) = keras.tree.flatten(outputs)  # a dict, say
        return turn(tf.cast(output, tf.float32))

    return probabilities


def entropy(p: tf.Tensor, task: str = "multi_class") -> tf.Tensor:
    """In nats, over the last axis; of a coin where that has one entry, of a coin a label for several labels."""
    if task == "multi_label" or p.shape[-1] == 1:
        return -tf.reduce_sum(tf.math.xlogy(p, p) + tf.math.xlogy(1.0 - p, 1.0 - p), -1)
    return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def check_task(task: Any, model: keras.Model) -> str:
    """`task`, if it is one and the model's output fits it."""
    classes, ending = model.output_shape[-1], output_activation(model)
    if task not in TASKS:
        raise unknown("task", task, TASKS)
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
    """One value for each image, or a single one, to broadcast over the images' other axes."""
    values = tf.convert_to_tensor(values)
    return values if values.shape.rank == 0 else tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
