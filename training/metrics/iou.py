"""Mean IoU on logits and integer labels, and those each task gets when none is named."""

from typing import Any

import keras
from keras import ops

from dropzoo.training.metrics.base import flatten


@keras.saving.register_keras_serializable(package="dropzoo")
class MeanIoU(keras.metrics.MeanIoU):
    """Mean intersection over union of the predicted classes, from logits.

    `keras.metrics.MeanIoU` counts; this class lets it read logits. Its own `sparse_y_pred=False` takes the
    argmax, which for one logit is always 0; here one logit predicts 1 where it is positive. Counts are
    float64, exact to 2**53 pixels (Keras' are whole numbers, to which it cuts the sample weights). Classes in
    neither the masks nor the predictions are left out of the mean.

    Args:
        num_classes: the model's outputs; 1 means one logit and counts two classes.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the counts.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`.
        y_pred: logits (or probabilities of two or more classes), `(batch, ..., classes)`.
        sample_weight: `(batch,)` or one a pixel.

    Output shape:
        A scalar in [0, 1].

    Example:

    >>> metric = MeanIoU(num_classes=1)
    >>> metric.update_state(np.array([[0, 1, 1, 1]]), np.array([[[-1.0], [-1.0], [1.0], [1.0]]]))
    >>> round(float(metric.result()), 4)  # (1/2 + 2/3) / 2
    0.5833

    Reference:
        Everingham et al., 2010: The Pascal Visual Object Classes Challenge, doi:10.1007/s11263-009-0275-4.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_class: int | None = None,
        name: str = "mean_iou",
        dtype: Any = "float64",
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be positive. Received: num_classes={num_classes}")
        super().__init__(max(num_classes, 2), name=name, dtype=dtype, ignore_class=ignore_class)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels, logits, weights = flatten(y_true, y_pred, sample_weight)
        super().update_state(labels, _classes(logits), weights)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: config[name] for name in ("num_classes", "ignore_class", "name", "dtype")}


@keras.saving.register_keras_serializable(package="dropzoo")
class _Accuracy(keras.metrics.Mean):
    """Accuracy from logits over what does not bear the ignored label, which Keras' own counts as wrong."""

    def __init__(self, ignore_class: int, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels, logits, weights = flatten(y_true, y_pred, sample_weight)
        counts = ops.cast(ops.not_equal(labels, self.ignore_class), weights.dtype)
        super().update_state(ops.equal(_classes(logits), labels), counts * weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}


def _classes(logits: Any) -> Any:
    """The predicted class of each row, int32; one logit predicts 1 where it is positive."""
    classes = logits[:, 0] > 0 if logits.shape[-1] == 1 else ops.argmax(logits, axis=-1)
    return ops.cast(classes, "int32")


def default_metrics(task: str, num_classes: int, ignore_class: int | None = None) -> list[keras.metrics.Metric]:
    """Accuracy (a pixel is a sample), and for segmentation the mean IoU, from logits.

    Keras' own `"accuracy"` asks whether one output exceeds 0.5, which is right for a probability only; a
    logit says yes above 0.

    Args:
        task: `"classification"` or `"segmentation"`.
        num_classes: the model's outputs; 1 means one logit of a binary task.
        ignore_class: a label, say 255, that does not count.

    Example:

    >>> [metric.name for metric in default_metrics("segmentation", 11)]
    ['accuracy', 'mean_iou']
    """
    if task not in ("classification", "segmentation"):
        raise ValueError(f"`task` must be 'classification' or 'segmentation'. Received: task={task!r}")
    metrics: list[keras.metrics.Metric]
    if ignore_class is not None:
        metrics = [_Accuracy(ignore_class)]
    elif num_classes == 1:
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    else:
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [*metrics, MeanIoU(num_classes, ignore_class)] if task == "segmentation" else metrics
