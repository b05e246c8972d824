"""Cross-entropy with label smoothing for integer labels."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="dropzoo")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy between logits and integer labels, with label smoothing.

    The loss does not fully trust the labels, so that logits do not grow without limit. The target is
    `1 - label_smoothing` at the label, plus `label_smoothing` spread evenly over all classes. For several classes,
    Keras supports label smoothing only for one-hot labels.

    Args:
        label_smoothing: Float in [0, 1). The share that is spread.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result.

    Raises:
        ValueError: If `label_smoothing` is not in [0, 1).

    Call arguments:
        y_true: Int tensor `(batch, ...)`. Labels.
        y_pred: Float tensor `(batch, ..., classes)`. Logits.

    Output shape:
        A scalar in [0, inf); `(batch, ...)` if `reduction=None`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> loss = training.SmoothedCrossEntropy(0.1)
    >>> round(float(loss(np.array([0]), np.array([[2.0, 0.0]]))), 4)  # 0.95 * 0.1269 + 0.05 * 2.1269
    0.2269

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015, arXiv:1512.00567.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_cross_entropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = check_smoothing(label_smoothing)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return smoothed_cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def smoothed_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns the loss of each label, `(batch, ...)`; without smoothing it is exactly Keras' function."""
    entropy = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if not label_smoothing:
        return entropy
    even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
    return (1.0 - label_smoothing) * entropy + label_smoothing * even


def check_smoothing(value: object) -> float:
    """Returns a float in [0, 1), or raises a ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"`label_smoothing` must be a number in [0, 1). Received: label_smoothing={value!r}")
    return float(value)
