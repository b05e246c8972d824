"""The focal loss, for classes that are rare or hard."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from dropzoo.common.words import count_of
from dropzoo.training.losses.base import PixelLoss, Pixels, mean_over_pixels


@keras.saving.register_keras_serializable(package="dropzoo")
class FocalCrossEntropy(PixelLoss):
    """Focal loss: cross-entropy that gives little weight to predictions that are already right.

    The loss of a pixel is `-(1 - p)**gamma log p`, where `p` is the probability of the true class, and the loss of
    an image is the mean over its pixels that count. Labels of shape `(batch,)` make it a loss for classification.
    `gamma=0` is cross-entropy. For one logit, the values are those of `keras.losses.BinaryFocalCrossentropy`. For
    several classes, they are those of `keras.losses.CategoricalFocalCrossentropy`, which takes one-hot labels;
    without `alpha`, they are those with `alpha=1` in Keras.

    Args:
        gamma: Float, 0 or more; 2 in the paper.
        alpha: None, or the weight of each class. For one logit it is a float in (0, 1), the weight of the
            foreground (0.25 in the paper); the background has `1 - alpha`. Otherwise a list or array with one
            weight for each class.
        ignore_class: Int or None. Pixels with this label do not count.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result; the sums are float32 under every policy.

    Raises:
        ValueError: If `gamma` is negative, if `alpha` does not have one of these forms, or, when the loss is
            called, if `alpha` does not fit the number of outputs.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels.
        y_pred: Float tensor `(batch, ..., classes)`. Logits.
        sample_weight: Float tensor or None. One weight for each image, `(batch,)`, or pixel, `(batch, ...)`.

    Output shape:
        A scalar in [0, inf); `(batch,)` if `reduction=None`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> logits = np.array([[0.0, 0.0]])  # (batch, classes), undecided
    >>> round(float(training.FocalCrossEntropy()(np.array([0]), logits)), 4)  # 0.5**2 * log 2
    0.1733

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | np.ndarray | None = None,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "focal_cross_entropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        if not gamma >= 0:
            raise ValueError(f"`gamma` must not be negative. Received: gamma={gamma}")
        alpha = alpha.tolist() if isinstance(alpha, (np.ndarray, np.generic)) else alpha
        if not (alpha is None or isinstance(alpha, (list, tuple)) or (isinstance(alpha, float) and 0 < alpha < 1)):
            raise ValueError(
                "`alpha` must be None, a float in (0, 1) for one logit, or a list with a weight for each class. "
                f"Received: alpha={alpha!r}"
            )
        self.gamma, self.alpha = gamma, alpha

    def image_loss(self, pixels: Pixels) -> tf.Tensor:
        logits = pixels.logits
        table = self._class_weights(logits.shape[-1])
        if logits.shape[-1] == 1:
            logits = ops.concatenate([ops.zeros_like(logits), logits], -1)
        entropy = ops.sparse_categorical_crossentropy(pixels.labels, logits, from_logits=True)  # -log p
        loss = ops.power(ops.maximum(-ops.expm1(-entropy), 1e-7), self.gamma) * entropy
        if table is not None:
            loss = loss * ops.take(ops.convert_to_tensor(table, "float32"), pixels.labels)
        return mean_over_pixels(loss, pixels)

    def _class_weights(self, classes: int) -> Sequence[float] | None:
        """Returns the weight of each class; one logit has two, background and foreground."""
        if self.alpha is None:
            return None
        if isinstance(self.alpha, float):
            if classes == 1:
                return [1.0 - self.alpha, self.alpha]
        elif len(self.alpha) == classes > 1:
            return self.alpha
        form = "a float in (0, 1)" if classes == 1 else f"a list of {classes} weights"
        raise ValueError(
            f"`alpha` must be {form}: the model has {count_of(classes, 'output')}. Received: alpha={self.alpha!r}"
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}
