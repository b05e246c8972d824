"""Answers in TensorFlow: sets, outer and inner masks, deferrals and intervals, from the statistics of samples.

They are pure operations, so a traced function or an export can hold them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dropzoo.serving.calibration.grids import probability_grid
from dropzoo.serving.calibration.temperature import is_coins

ANSWERS = ("set", "defer", "outer", "inner", "lower", "upper")
"""The names of the answers that guarantees are about."""
KEEP_ALL = 2.0  # above the doubt of any image
NEVER = 2.0  # above any probability


class WholeImage(NamedTuple):
    """The facts about a whole image that the answers for each of its pixels need.

    Attributes:
        share: Float32 tensor `(batch, 1, ..., 1, classes)`, the mean probability of each class.
        seen: Bool tensor of this shape, whether the class is the likeliest one of some pixel or, for labels and
            for a single output unit, has a probability of at least 0.5 at some pixel.
        doubt: Float32 tensor `(batch,)`, how unsure the model is about the image: one minus the largest
            probability, on average over all pixels and labels.
    """

    share: tf.Tensor
    seen: tf.Tensor
    doubt: tf.Tensor

    @classmethod
    def of(cls, mean: tf.Tensor, kind: str) -> "WholeImage":
        """Returns the facts about images from the probabilities of all their pixels.

        Args:
            mean: Float32 tensor `(batch, ..., classes)`, the mean of the samples.
            kind: The output kind, such as `"multi_class"`; `calibration.facts.task` of a `Calibration`.
        """
        return cls(_share(mean), sees(mean, kind), doubt(mean, kind))

    @classmethod
    def of_parts(cls, parts: Sequence["WholeImage"], pixels: Sequence[int]) -> "WholeImage":
        """Returns the facts about an image from those about its parts.

        Args:
            parts: The facts about each part.
            pixels: How many pixels each part has.
        """
        weights = tf.constant(pixels, tf.float64) / sum(pixels)

        def mean(each: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.cast(tf.tensordot(weights, tf.cast(tf.stack(each), tf.float64), 1), tf.float32)

        seen = tf.reduce_any(tf.stack([part.seen for part in parts]), 0)
        return cls(mean([part.share for part in parts]), seen, mean([part.doubt for part in parts]))


def class_probabilities(mean: tf.Tensor) -> tf.Tensor:
    """Returns the probabilities of all classes; a single output is the probability of the second of two classes.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
    """
    return tf.concat([1.0 - mean, mean], -1) if mean.shape[-1] == 1 else mean


def doubt(mean: tf.Tensor, kind: str) -> tf.Tensor:
    """Returns the share of wrong answers that the probabilities themselves imply, `(batch,)`.

    It is one minus the largest probability, on average over the positions of a mask and over labels.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
        kind: The output kind.
    """
    if is_coins(kind, mean.shape[-1]):
        wrong = tf.minimum(mean, 1.0 - mean)
    else:
        wrong = 1.0 - tf.reduce_max(mean, -1)
    return tf.reduce_mean(wrong, list(range(1, len(wrong.shape))))


def sees(mean: tf.Tensor, kind: str) -> tf.Tensor:
    """Returns whether the model sees each class somewhere in an image, bool `(batch, 1, ..., 1, classes)`.

    The model sees a class where it is the likeliest class. If each output is a probability of its own, the model
    sees the class where that probability is at least 0.5.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
        kind: The output kind.
    """
    if is_coins(kind, mean.shape[-1]):
        here = mean >= 0.5
    else:
        here = tf.one_hot(tf.argmax(mean, -1), mean.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_any(here, list(range(1, len(mean.shape) - 1)), keepdims=True)


def by_size(mean: tf.Tensor, floors: Sequence[float], share: tf.Tensor | None = None) -> tf.Tensor:
    """Returns probabilities divided by the expected size of their class in the image, in [0, 1].

    A pixel of a small object is a larger share of its object than a pixel of a large one. With
    `a = max(mean over the image of p, floor)`, the score of a pixel is `p * floor / a`. This score is proportional
    to the share of the object that the pixel is expected to add. So one threshold for all scores gives smaller
    masks than one threshold for all probabilities, while the same mean share is missed. The floor keeps masks
    small in images that do not seem to hold the class. At a floor of 1, the scores are the probabilities.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
        floors: For each class, a share of the image in (0, 1].
        share: The mean over the image of p, as in `WholeImage`; None if `mean` is that of the whole image.
    """
    least = tf.constant(floors, tf.float32)
    share = _share(mean) if share is None else share
    return mean * (least / tf.maximum(share, least))


def _share(mean: tf.Tensor) -> tf.Tensor:
    """The mean probability of each class over an image; 0 for an answer that has no pixels."""
    axes = list(range(1, len(mean.shape) - 1))
    return tf.reduce_mean(mean, axes, keepdims=True) if axes else tf.zeros_like(mean)


def within(mean: tf.Tensor, floors: Sequence[float], thresholds: Sequence[float], share: tf.Tensor) -> tf.Tensor:
    """Returns a mask that lies in the outer mask and that one threshold of the grid gives in each image.

    Its pixels are those whose probability reaches the least threshold of `probability_grid` at which no pixel lies
    outside the outer mask. The promise about inner masks bounds the loss at every threshold of the grid, so it
    also holds for inner masks that are cut to this one.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
        floors: The floors of the outer masks, as for `by_size`.
        thresholds: The thresholds of the outer masks, one for each class.
        share: The mean over the whole image, as in `WholeImage`.
    """
    least = tf.constant(floors, tf.float32)
    # A little more than the threshold of the outer mask, so that rounding lets no pixel out of it.
    wanted = tf.constant(thresholds, tf.float32) * (tf.maximum(share, least) / least) * (1.0 + 1e-6)
    grid = tf.constant(probability_grid())
    places = tf.minimum(tf.searchsorted(grid, tf.reshape(wanted, [-1])), grid.shape[0] - 1)
    return mean >= tf.reshape(tf.gather(grid, places), tf.shape(wanted))


def deviation(variance: tf.Tensor, floors: Sequence[float]) -> tf.Tensor:
    """Returns the standard deviation of the samples plus a floor, the unit of the intervals of a regression.

    Args:
        variance: Float32 tensor `(batch, ..., outputs)`.
        floors: A float above 0 for each output.
    """
    return tf.sqrt(variance) + tf.constant(floors, tf.float32)


def reaches(mean: tf.Tensor, thresholds: Sequence[float]) -> tf.Tensor:
    """Returns where probabilities are at least their threshold, a bool tensor of the same shape.

    Args:
        mean: Float32 tensor `(batch, ..., classes)`.
        thresholds: One float, or one for each class; no probability reaches `NEVER`.
    """
    return mean >= tf.constant(thresholds, tf.float32)
