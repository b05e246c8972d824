"""Segmentation losses on logits, and the loss each task gets when none is named."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="dropzoo")
class Dice(keras.losses.Loss):
    """Soft Dice loss between logits and a mask of integer labels.

    Dice measures overlap, so a class of a hundred pixels counts as much as a background of a million. The
    loss of one image is one minus the mean over classes of `(2 sum(p g) + smooth) / (sum(p) + sum(g) +
    smooth)`, with `p` the softmax of the logits, `g` the one-hot mask and sums over the pixels.

    Which classes: those present in the image's mask. An absent class has no overlap to gain: its Dice is
    noise of the last tiny probabilities, while its false positives already lower the Dice of the classes
    that are there. One logit means a sigmoid and the foreground only, counted also where it is absent.
    Which batch average: per image, then the mean over images. So the loss does not depend on how images
    are batched, and weights per image mean what they mean in every Keras loss.

    Differs from the paper: the denominator sums `p` and `g`, not their squares (as nnU-Net does), and each
    class is scored, not the foreground alone.

    Args:
        smooth: positive; keeps the ratio and its gradient finite where an image has no foreground.
        ignore_class: a label, say 255, whose pixels do not count.
        reduction: how Keras combines the images' losses.
        name: the loss's name.
        dtype: the dtype of the result; the sums are float32 under every policy.

    Call arguments:
        y_true: labels in [0, classes), or 0 and 1 for one logit; `(batch, ..., [1])`.
        y_pred: logits, any range; `(batch, ..., classes)`.
        sample_weight: `(batch,)` or `(batch, 1, ...)` weighs images, `(batch, ..., [1])` weighs pixels inside
            the sums.

    Output shape:
        A scalar in [0, 1] for unit weights; `(batch,)` if `reduction=None`.

    Example:

    >>> mask = np.array([[[0, 1], [1, 1]]])  # (batch, height, width)
    >>> logits = 20.0 * np.eye(2)[mask] - 10.0  # (batch, height, width, classes)
    >>> float(Dice()(mask, logits)) < 1e-3
    True

    Reference:
        Milletari, Navab and Ahmadi, 2016: V-Net, arXiv:1606.04797.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not smooth > 0:
            raise ValueError(f"`smooth` must be positive. Received: smooth={smooth}")
        self.smooth = smooth
        self.ignore_class = ignore_class

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras multiplies weights onto what `call` returns, one value per image: too late for weights per
        # pixel, which therefore travel with the labels.
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight)
            if any(size != 1 for size in sample_weight.shape[1:]):
                return super().__call__((y_true, sample_weight), y_pred)
            if len(sample_weight.shape) > 1:  # (batch, 1, ...) against losses (batch,)
                sample_weight = ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._dice(*self._pixels(y_true, y_pred))

    def _pixels(self, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any, Any]:
        """Labels, logits, weights and validity, each (batch, pixels), the logits (batch, pixels, classes)."""
        y_true, weights = y_true if isinstance(y_true, tuple) else (y_true, None)
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        if len(y_true.shape) != len(y_pred.shape) - 1:
            raise ValueError(
                "`y_true` must hold one integer label a pixel: the shape of `y_pred` without its last axis. "
                f"Received: y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"
            )
        batch, classes = ops.shape(y_pred)[0], y_pred.shape[-1]
        labels = ops.cast(ops.reshape(y_true, (batch, -1)), "int32")
        valid = ops.ones_like(labels, "float32")
        if self.ignore_class is not None:
            valid = ops.cast(labels != self.ignore_class, "float32")
            labels = ops.where(labels != self.ignore_class, labels, 0)
        weights = valid if weights is None else valid * ops.cast(ops.reshape(weights, (batch, -1)), "float32")
        return labels, ops.cast(ops.reshape(y_pred, (batch, -1, classes)), "float32"), weights, valid

    def _dice(self, labels: Any, logits: Any, weights: Any, valid: Any) -> Any:
        weights = ops.expand_dims(weights, -1)
        if logits.shape[-1] == 1:
            probability, target = ops.sigmoid(logits), ops.cast(ops.expand_dims(labels, -1), "float32")
            present = ops.ones_like(probability[:, 0])
        else:
            probability, target = ops.softmax(logits), ops.one_hot(labels, logits.shape[-1])
            present = ops.cast(ops.sum(weights * target, axis=1) > 0, "float32")
        overlap, predicted, actual = (
            ops.sum(weights * part, axis=1) for part in (probability * target, probability, target)
        )  # (batch, classes)
        loss = self._class_loss(overlap, predicted, actual)
        return ops.sum(loss * present, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0)

    def _class_loss(self, overlap: Any, predicted: Any, actual: Any) -> Any:
        return 1.0 - (2.0 * overlap + self.smooth) / (predicted + actual + self.smooth)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smooth": self.smooth, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="dropzoo")
class DiceCrossEntropy(Dice):
    """Soft Dice and cross-entropy together, `dice_weight * dice + (1 - dice_weight) * cross_entropy`.

    The usual default for segmentation: cross-entropy gives every pixel a smooth, calibrated gradient, Dice
    keeps small classes from being drowned. Each image's cross-entropy is the mean over its pixels that
    count, weighted as Keras weighs (by the number of pixels, not the sum of weights), so `dice_weight=0` is
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. One logit means binary cross-entropy.

    Differs from the paper: half of the plain sum, and Dice as averaged by `Dice`.

    Args:
        dice_weight: in [0, 1], the share of Dice.
        smooth: as for `Dice`.
        ignore_class: as for `Dice`.
        label_smoothing: in [0, 1), of the cross-entropy, as for `SmoothedCrossEntropy`.
        reduction: as for `Dice`.
        name: the loss's name.
        dtype: as for `Dice`.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`.
        y_pred: logits, `(batch, ..., classes)`.
        sample_weight: `(batch,)` weighs images, `(batch, ..., [1])` weighs pixels.

    Output shape:
        A scalar in [0, inf); `(batch,)` if `reduction=None`.

    Example:

    >>> mask = np.zeros((2, 4, 6), "int32")  # (batch, height, width)
    >>> logits = np.zeros((2, 4, 6, 1))  # one logit, no idea
    >>> float(DiceCrossEntropy(dice_weight=0.0)(mask, logits))  # log 2
    0.6931471824645996

    Reference:
        Isensee et al., 2021: nnU-Net, arXiv:1809.10486.
    """

    def __init__(
        self,
        dice_weight: float = 0.5,
        smooth: float = 1.0,
        ignore_class: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice_cross_entropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(smooth=smooth, ignore_class=ignore_class, reduction=reduction, name=name, dtype=dtype)
        if not 0 <= dice_weight <= 1:
            raise ValueError(f"`dice_weight` must be in [0, 1]. Received: dice_weight={dice_weight}")
        self.dice_weight = dice_weight
        self.label_smoothing = check_smoothing(label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels, logits, weights, valid = self._pixels(y_true, y_pred)
        if logits.shape[-1] == 1:
            target = ops.cast(labels, "float32") * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
            entropy = ops.binary_crossentropy(target, logits[..., 0], from_logits=True)
        else:
            entropy = smoothed_cross_entropy(labels, logits, self.label_smoothing)
        entropy = ops.sum(weights * entropy, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1.0)  # (batch,)
        dice = self._dice(labels, logits, weights, valid)
        return self.dice_weight * dice + (1.0 - self.dice_weight) * entropy

    def get_config(self) -> dict[str, Any]:
        own = {"dice_weight": self.dice_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dropzoo")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer labels that are trusted a little less: label smoothing, from logits.

    The target is `1 - label_smoothing` at the label, and `label_smoothing` spread evenly over all classes, so that
    no logit gains by growing without end. Keras has it for one-hot labels only.

    Args:
        label_smoothing: in [0, 1), the share that is spread.
        reduction: how Keras combines the images' losses.
        name: the loss's name.
        dtype: of the result.

    Call arguments:
        y_true: labels, `(batch, ...)`.
        y_pred: logits, `(batch, ..., classes)`.

    Example:

    >>> loss = SmoothedCrossEntropy(0.1)
    >>> round(float(loss(np.array([0]), np.array([[2.0, 0.0]]))), 4)  # 0.95 * 0.1269 + 0.05 * 2.1269
    0.2269

    Reference:
        Szegedy et al., 2015: Rethinking the Inception Architecture, arXiv:1512.00567.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_cross_entropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = check_smoothing(label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return smoothed_cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def smoothed_cross_entropy(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """By label, `(batch, ...)`, from logits `(batch, ..., classes)`; without smoothing exactly Keras' function."""
    entropy = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if not label_smoothing:
        return entropy
    even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
    return (1.0 - label_smoothing) * entropy + label_smoothing * even


def check_smoothing(value: Any) -> float:
    """A number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"`label_smoothing` must be a number in [0, 1). Received: label_smoothing={value!r}")
    return float(value)


def default_loss(task: str, num_classes: int, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """The usual loss of a task, from logits.

    Args:
        task: `"classification"` or `"segmentation"`.
        num_classes: the model's outputs; 1 means one logit of a binary task.
        label_smoothing: in [0, 1), see `SmoothedCrossEntropy`.

    Example:

    >>> default_loss("segmentation", 11).name
    'dice_cross_entropy'
    """
    smoothing = check_smoothing(label_smoothing)
    if task == "segmentation":
        return DiceCrossEntropy(label_smoothing=smoothing)
    if task == "classification":
        if num_classes == 1:
            return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
        if smoothing:
            return SmoothedCrossEntropy(smoothing)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    raise ValueError(f"`task` must be 'classification' or 'segmentation'. Received: task={task!r}")
