"""Losses that measure overlap: soft Dice, alone and together with cross-entropy."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.common.checks import check_positive
from dropzoo.training.losses.base import PixelLoss, Pixels, mean_over_pixels
from dropzoo.training.losses.cross_entropy import check_smoothing, smoothed_cross_entropy


@keras.saving.register_keras_serializable(package="dropzoo")
class Dice(PixelLoss):
    """Soft Dice loss between logits and a mask of integer labels.

    Dice measures overlap, so a class of a hundred pixels counts as much as a background of a million. The loss of
    one image is one minus the mean over classes of `(2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)`, where `p`
    is the softmax of the logits, `g` is the one-hot mask, and the sums run over the pixels.

    The mean is over the classes that are present in the mask of the image. Absent classes do not count: their Dice
    would only be noise from tiny probabilities, and their false positives already lower the Dice of the classes
    that are present. For a single logit, `p` is its sigmoid, and only the foreground counts, even in images
    without foreground.

    The loss is computed for each image and averaged over the images. So it does not depend on how images are
    batched, and sample weights mean the same as in every Keras loss.

    Differs from the paper: the denominator sums `p` and `g` instead of their squares (as in nnU-Net), and every
    class counts, not only the foreground.

    Args:
        smooth: Float above 0. Keeps the ratio and its gradient finite where an image has no foreground.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result; the sums are float32 under every policy.

    Raises:
        ValueError: If `smooth` is not above 0.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels in [0, classes), or 0 and 1 for one logit.
        y_pred: Float tensor `(batch, ..., classes)`. Logits.
        sample_weight: Float tensor or None. One weight for each image, `(batch,)` or `(batch, 1, ...)`; or one for
            each pixel, `(batch, ...)` or `(batch, ..., 1)`, which multiplies the terms of this pixel in the sums.

    Output shape:
        A scalar in [0, 1] for unit weights; `(batch,)` if `reduction=None`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> mask = np.array([[[0, 1], [1, 1]]])  # (batch, height, width)
    >>> logits = 20.0 * np.eye(2)[mask] - 10.0  # (batch, height, width, classes)
    >>> float(training.Dice()(mask, logits)) < 1e-3
    True

    Reference:
        Milletari, Navab and Ahmadi, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
        Segmentation", 2016, arXiv:1606.04797.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        self.smooth = check_positive(smooth, "smooth")

    def image_loss(self, pixels: Pixels) -> tf.Tensor:
        weights = ops.expand_dims(pixels.weights, -1)
        if pixels.logits.shape[-1] == 1:
            probability, target = (
                ops.sigmoid(pixels.logits),
                ops.cast(ops.expand_dims(pixels.labels, -1), "float32"),
            )
            present = ops.ones_like(probability[:, 0])
        else:
            probability = ops.softmax(pixels.logits)
            target = ops.one_hot(pixels.labels, pixels.logits.shape[-1])
            present = ops.cast(ops.sum(weights * target, axis=1) > 0, "float32")
        overlap, predicted, actual = (
            ops.sum(weights * part, axis=1) for part in (probability * target, probability, target)
        )  # (batch, classes)
        loss = self.class_loss(overlap, predicted, actual)
        return ops.sum(loss * present, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0)

    def class_loss(self, overlap: tf.Tensor, predicted: tf.Tensor, actual: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each class of each image, `(batch, classes)`, from sums over its pixels.

        Args:
            overlap: Float tensor `(batch, classes)`. Sum of the predicted probabilities of the class over its own
                pixels.
            predicted: Float tensor `(batch, classes)`. Sum of the predicted probabilities.
            actual: Float tensor `(batch, classes)`. Number of pixels of the class.
        """
        return 1.0 - (2.0 * overlap + self.smooth) / (predicted + actual + self.smooth)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smooth": self.smooth}


@keras.saving.register_keras_serializable(package="dropzoo")
class DiceCrossEntropy(Dice):
    """Soft Dice and cross-entropy together: `dice_weight * dice + (1 - dice_weight) * cross_entropy`.

    This is the usual default for segmentation: cross-entropy gives every pixel a smooth, calibrated gradient, and
    Dice keeps small classes from being outweighed. The cross-entropy of an image is the mean over the pixels that
    count. Weights are used as in Keras (which divides by the number of pixels, not by the sum of the weights), so
    `dice_weight=0` is `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. One logit means binary
    cross-entropy.

    Differs from the paper: with the default weight, the loss is half of the sum of the two, and Dice is averaged
    as in `Dice`.

    Args:
        dice_weight: Float in [0, 1]. The share of Dice.
        smooth: Float above 0, see `Dice`.
        ignore_class: Int or None. Pixels with this label do not count.
        label_smoothing: Float in [0, 1). Smooths the labels of the cross-entropy, see `SmoothedCrossEntropy`.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result; the sums are float32 under every policy.

    Raises:
        ValueError: If an argument is out of its range.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels.
        y_pred: Float tensor `(batch, ..., classes)`. Logits.
        sample_weight: Float tensor or None. One weight for each image, `(batch,)`, or pixel, `(batch, ...)`.

    Output shape:
        A scalar in [0, inf); `(batch,)` if `reduction=None`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> mask = np.zeros((2, 4, 6), "int32")  # (batch, height, width)
    >>> logits = np.zeros((2, 4, 6, 1))  # one logit, undecided
    >>> float(training.DiceCrossEntropy(dice_weight=0.0)(mask, logits))  # log 2
    0.6931471824645996

    Reference:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        2021, arXiv:1904.08128.
    """

    def __init__(
        self,
        dice_weight: float = 0.5,
        smooth: float = 1.0,
        ignore_class: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice_cross_entropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(smooth=smooth, ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        if not 0 <= dice_weight <= 1:
            raise ValueError(f"`dice_weight` must be in [0, 1]. Received: dice_weight={dice_weight!r}")
        self.dice_weight = dice_weight
        self.label_smoothing = check_smoothing(label_smoothing)

    def image_loss(self, pixels: Pixels) -> tf.Tensor:
        if pixels.logits.shape[-1] == 1:
            labels = ops.cast(pixels.labels, "float32")
            target = labels * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
            entropy = ops.binary_crossentropy(target, pixels.logits[..., 0], from_logits=True)
        else:
            entropy = smoothed_cross_entropy(pixels.labels, pixels.logits, self.label_smoothing)
        dice = super().image_loss(pixels)
        return self.dice_weight * dice + (1.0 - self.dice_weight) * mean_over_pixels(entropy, pixels)

    def get_config(self) -> dict[str, Any]:
        own = {"dice_weight": self.dice_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}
