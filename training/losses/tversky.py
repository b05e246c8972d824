"""The Tversky loss, for classes that must not be missed."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.common.checks import check_positive
from dropzoo.training.losses.dice import Dice


@keras.saving.register_keras_serializable(package="dropzoo")
class Tversky(Dice):
    """Tversky loss: like `Dice`, but with different costs for missed pixels and for false alarms.

    The loss of one class of an image is `1 - (2 t + smooth) / (2 (t + alpha p + beta n) + smooth)`, where `t` is
    the overlap, `p` the sum of the false positives, and `n` the sum of the false negatives. The loss is raised to
    the power of `gamma`. With a `gamma` below 1, classes that are nearly right get a larger gradient.
    `alpha=beta=0.5` gives `Dice`. Classes and images are averaged as in `Dice`.

    Differs from the paper: every class counts, not only the foreground. The exponent is `gamma`, where Abraham and
    Khan write `1 / gamma`; their recommended value is `gamma=0.75` here.

    Args:
        alpha: Float, 0 or more. The weight of false positives.
        beta: Float, 0 or more. The weight of false negatives; use a larger value than `alpha` if recall matters.
        gamma: Float above 0. The exponent.
        smooth: Float above 0, see `Dice`.
        ignore_class: Int or None. Pixels with this label do not count.
        reduction: Str or None. How Keras combines the losses of the images.
        name: Str. The name of the loss.
        dtype: Dtype of the result; the sums are float32 under every policy.

    Raises:
        ValueError: If an argument is out of its range, or `alpha` and `beta` are both 0.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels.
        y_pred: Float tensor `(batch, ..., classes)`. Logits.
        sample_weight: Float tensor or None. One weight for each image, `(batch,)`, or pixel, `(batch, ...)`.

    Output shape:
        A scalar in [0, 1] for unit weights; `(batch,)` if `reduction=None`.

    Example:
    >>> import numpy as np
    >>> from dropzoo.training import Tversky
    >>> mask = np.array([[[0, 1], [1, 1]]])  # (batch, height, width)
    >>> logits = np.full((1, 2, 2, 1), -9.0)  # everything is missed
    >>> float(Tversky(alpha=0.3, beta=0.7)(mask, logits)) > float(Tversky(alpha=0.7, beta=0.3)(mask, logits))
    True

    Reference:
        Salehi, Erdogmus and Gholipour, "Tversky loss function for image segmentation using 3D fully convolutional
        deep networks", 2017, arXiv:1706.05721; Abraham and Khan, "A Novel Focal Tversky loss function with
        improved Attention U-Net for lesion segmentation", 2018, arXiv:1810.07842.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1.0,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(smooth=smooth, ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        if alpha < 0 or beta < 0 or not alpha + beta > 0:
            raise ValueError(
                f"`alpha` and `beta` must not be negative, and not both 0. Received: alpha={alpha}, beta={beta}"
            )
        self.alpha, self.beta, self.gamma = alpha, beta, check_positive(gamma, "gamma")

    def class_loss(self, overlap: tf.Tensor, predicted: tf.Tensor, actual: tf.Tensor) -> tf.Tensor:
        weighed = overlap + self.alpha * (predicted - overlap) + self.beta * (actual - overlap)
        loss = 1.0 - (2.0 * overlap + self.smooth) / (2.0 * weighed + self.smooth)
        if self.gamma == 1:
            return loss
        return ops.power(ops.maximum(loss, 1e-7), self.gamma)  # at 0 a root has no finite gradient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
