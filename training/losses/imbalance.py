"""Losses for classes that are rare or hard: Tversky and focal, on logits and integer labels."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dropzoo.training.losses.dice import Dice


@keras.saving.register_keras_serializable(package="dropzoo")
class Tversky(Dice):
    """The Tversky loss: `Dice` in which a pixel missed and a false alarm may cost differently.

    `1 - (2 t + smooth) / (2 (t + alpha p + beta n) + smooth)` for each class of an image, with `t` the overlap,
    `p` what is predicted and not there, `n` what is there and not predicted; raised to `gamma`, which below 1
    gives classes that are nearly right more of the gradient. `alpha=beta=0.5` is `Dice`. Classes and images are
    averaged as there.

    Differs from the paper: each class is scored, not the foreground alone. The focal form's exponent is `gamma`,
    where Abraham and Khan write `1 / gamma`; theirs is `gamma=0.75`.

    Args:
        alpha: not negative; of false positives.
        beta: not negative; of false negatives: more than `alpha` where recall matters.
        gamma: positive; the exponent.
        smooth: as for `Dice`.
        ignore_class: as for `Dice`.
        reduction: as for `Dice`.
        name: the loss's name.
        dtype: as for `Dice`.

    Call arguments:
        As for `Dice`.

    Output shape:
        A scalar in [0, 1] for unit weights; `(batch,)` if `reduction=None`.

    Example:

    >>> mask = np.array([[[0, 1], [1, 1]]])  # (batch, height, width)
    >>> logits = np.full((1, 2, 2, 1), -9.0)  # everything is missed
    >>> float(Tversky(alpha=0.3, beta=0.7)(mask, logits)) > float(Tversky(alpha=0.7, beta=0.3)(mask, logits))
    True

    Reference:
        Salehi, Erdogmus and Gholipour, 2017, arXiv:1706.05721; focal: Abraham and Khan, 2018, arXiv:1810.07842.
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
        dtype: Any = None,
    ) -> None:
        super().__init__(smooth=smooth, ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        if alpha < 0 or beta < 0 or not alpha + beta > 0:
            raise ValueError(
                f"`alpha` and `beta` must not be negative, and not both 0. Received: alpha={alpha}, beta={beta}"
            )
        if not gamma > 0:
            raise ValueError(f"`gamma` must be positive. Received: gamma={gamma}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def _class_loss(self, overlap: Any, predicted: Any, actual: Any) -> Any:
        weighed = overlap + self.alpha * (predicted - overlap) + self.beta * (actual - overlap)
        loss = 1.0 - (2.0 * overlap + self.smooth) / (2.0 * weighed + self.smooth)
        if self.gamma == 1:
            return loss
        return ops.power(ops.maximum(loss, 1e-7), self.gamma)  # at 0 a root has no finite gradient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="dropzoo")
class FocalCrossEntropy(Dice):
    """Cross-entropy in which what is right already counts little: `-(1 - p)**gamma log p` of the true class.

    For images and, with labels of shape `(batch,)`, for classification. Each image's loss is the mean over its
    pixels that count. `gamma=0` is cross-entropy. Keras' own focal losses want one-hot labels; these values are
    the same.

    Args:
        gamma: not negative; 2 in the paper.
        alpha: None, or the weight of each class: for one logit a float in (0, 1), of the foreground, the
            background's being `1 - alpha` (0.25 in the paper); else a list or array, one for each class.
        ignore_class: as for `Dice`.
        reduction: as for `Dice`.
        name: the loss's name.
        dtype: as for `Dice`.

    Call arguments:
        As for `Dice`.

    Output shape:
        A scalar in [0, inf); `(batch,)` if `reduction=None`.

    Example:

    >>> logits = np.array([[0.0, 0.0]])  # (batch, classes); no idea
    >>> round(float(FocalCrossEntropy()(np.array([0]), logits)), 4)  # 0.5**2 * log 2
    0.1733

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "focal_cross_entropy",
        dtype: Any = None,
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

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels, logits, weights, valid = self._pixels(y_true, y_pred)
        table = self._weights(logits.shape[-1])
        if logits.shape[-1] == 1:
            logits = ops.concatenate([ops.zeros_like(logits), logits], -1)
        entropy = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)  # -log p
        loss = ops.power(ops.maximum(-ops.expm1(-entropy), 1e-7), self.gamma) * entropy
        if table is not None:
            loss = loss * ops.take(ops.convert_to_tensor(table, "float32"), labels)
        return ops.sum(weights * loss, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1.0)  # (batch,)

    def _weights(self, classes: int) -> Sequence[float] | None:
        """Of each class; for one logit of background and foreground."""
        if self.alpha is None:
            return None
        if isinstance(self.alpha, float):
            if classes == 1:
                return [1.0 - self.alpha, self.alpha]
        elif len(self.alpha) == classes > 1:
            return self.alpha
        form = "a float in (0, 1)" if classes == 1 else f"a list of {classes} weights"
        raise ValueError(f"`alpha` must be {form}: there are {classes} outputs. Received: alpha={self.alpha!r}")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["smooth"]
        return {**config, "gamma": self.gamma, "alpha": self.alpha}
