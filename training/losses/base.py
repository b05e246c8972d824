"""The base class of the losses that score pixels, which brings labels, logits and weights into one form."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops


class Pixels(NamedTuple):
    """A batch in the form with which the losses compute.

    Attributes:
        labels: int32, `(batch, pixels)`; 0 where a pixel is ignored.
        logits: float32, `(batch, pixels, classes)`.
        weights: float32, `(batch, pixels)`; 0 where a pixel is ignored.
        valid: float32, `(batch, pixels)`; 1, or 0 where a pixel is ignored.
    """

    labels: tf.Tensor
    logits: tf.Tensor
    weights: tf.Tensor
    valid: tf.Tensor


class PixelLoss(keras.losses.Loss):
    """Base class for losses between logits and one integer label for each pixel.

    A subclass implements `image_loss`. The loss is computed for each image and then averaged over the images, so
    it does not depend on how images are batched, and weights of images mean the same as in every Keras loss.

    Args:
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result; the sums are float32 under every policy.
    """

    def __init__(
        self,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore_class = ignore_class

    def __call__(
        self,
        y_true: tf.Tensor | np.ndarray,
        y_pred: tf.Tensor | np.ndarray,
        sample_weight: tf.Tensor | np.ndarray | None = None,
    ) -> tf.Tensor:
        # Keras multiplies weights onto what `call` returns, one value per image. That is too late for weights of
        # pixels, which therefore travel with the labels.
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight)
            if any(size != 1 for size in sample_weight.shape[1:]):
                return super().__call__((y_true, sample_weight), y_pred)
            if len(sample_weight.shape) > 1:  # (batch, 1, ...) against losses (batch,)
                sample_weight = ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: tf.Tensor | tuple[tf.Tensor, tf.Tensor], y_pred: tf.Tensor) -> tf.Tensor:
        labels, weights = y_true if isinstance(y_true, tuple) else (y_true, None)
        return self.image_loss(self._pixels(labels, y_pred, weights))

    def image_loss(self, pixels: Pixels) -> tf.Tensor:
        """Returns the loss of each image, `(batch,)`."""
        raise NotImplementedError

    def _pixels(self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None) -> Pixels:
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        if len(y_true.shape) != len(y_pred.shape) - 1:
            raise ValueError(
                "`y_true` must hold one integer label for each pixel, in the shape of `y_pred` without its last "
                "axis. "
                f"Received: y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"
            )
        batch, classes = ops.shape(y_pred)[0], y_pred.shape[-1]
        labels = ops.cast(ops.reshape(y_true, (batch, -1)), "int32")
        valid = ops.ones_like(labels, "float32")
        if self.ignore_class is not None:
            valid = ops.cast(labels != self.ignore_class, "float32")
            labels = ops.where(labels != self.ignore_class, labels, 0)
        weights = valid if weights is None else valid * ops.cast(ops.reshape(weights, (batch, -1)), "float32")
        return Pixels(labels, ops.cast(ops.reshape(y_pred, (batch, -1, classes)), "float32"), weights, valid)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}


def mean_over_pixels(losses: tf.Tensor, pixels: Pixels) -> tf.Tensor:
    """Returns the weighted mean of `losses`, `(batch, pixels)`, over the valid pixels of each image, `(batch,)`.

    Like Keras, it divides by the number of pixels and not by the sum of the weights.
    """
    return ops.sum(pixels.weights * losses, axis=1) / ops.maximum(ops.sum(pixels.valid, axis=1), 1.0)
