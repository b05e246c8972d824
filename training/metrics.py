"""Streaming metrics on logits and integer labels, and those each task gets when none is named."""

from typing import Any

import keras
from keras import ops


def _flatten(y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Labels (values,), outputs (values, classes) in float32 and weights (values,) in float64."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    weights = ops.ones((), "float64")
    if sample_weight is not None:
        weights = ops.cast(ops.convert_to_tensor(sample_weight), "float64")
        if len(weights.shape) == 1:  # one weight an image: the same for all its pixels
            weights = ops.reshape(weights, (-1, *[1] * (len(y_pred.shape) - 2)))
        elif len(weights.shape) == len(y_pred.shape):
            weights = ops.squeeze(weights, -1)
    weights = ops.broadcast_to(weights, ops.shape(y_pred)[:-1])
    y_pred = ops.cast(ops.reshape(y_pred, (-1, y_pred.shape[-1])), "float32")
    return ops.reshape(ops.cast(y_true, "int32"), (-1,)), y_pred, ops.reshape(weights, (-1,))


@keras.saving.register_keras_serializable(package="dropzoo")
class MeanIoU(keras.metrics.MeanIoU):
    """Mean intersection over union of the predicted classes, from logits.

    `keras.metrics.MeanIoU` counts; this class lets it read logits. Its own `sparse_y_pred=False` takes the
    argmax, which for one logit is always 0; here one logit predicts 1 where it is positive. Counts are
    float64, exact to 2**53 pixels (Keras' int32 overflows at 2**31). Classes in neither the masks nor the
    predictions are left out of the mean.

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
        labels, logits, weights = _flatten(y_true, y_pred, sample_weight)
        classes = logits[:, 0] > 0 if logits.shape[-1] == 1 else ops.argmax(logits, axis=-1)
        super().update_state(labels, ops.cast(classes, "int32"), weights)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: config[name] for name in ("num_classes", "ignore_class", "name", "dtype")}


@keras.saving.register_keras_serializable(package="dropzoo")
class ExpectedCalibrationError(keras.metrics.Metric):
    """Expected calibration error: how far confidence is from accuracy.

    Predictions fall into `num_bins` bins of equal width by confidence, `((m - 1) / M, m / M]`. The error is
    the mean over bins, weighted by their share of predictions, of `|accuracy - mean confidence|`. A pixel is
    a prediction. The confidence of one logit is `max(p, 1 - p)`, the same as for two classes.

    Sums are float64: float32 stops counting at 2**24 = 16.8 million, fewer pixels than one epoch has.

    Args:
        num_bins: positive.
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`.
        y_pred: `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: `(batch,)` or one a pixel.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:

    >>> metric = ExpectedCalibrationError(from_logits=False)
    >>> metric.update_state(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1]] * 4))
    >>> round(float(metric.result()), 4)  # 90 % sure, half right
    0.4

    Reference:
        Guo et al., 2017: On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """

    def __init__(
        self,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "expected_calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if num_bins < 1:
            raise ValueError(f"`num_bins` must be positive. Received: num_bins={num_bins}")
        self._direction = "down"
        self.num_bins = num_bins
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        # Per bin: the sums of confidence and of right answers, and the number of predictions.
        self.confidence, self.correct, self.count = (
            self.add_variable((num_bins,), "zeros", dtype="float64", name=name)
            for name in ("confidence", "correct", "count")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels, outputs, weights = _flatten(y_true, y_pred, sample_weight)
        if outputs.shape[-1] == 1:
            positive = (ops.sigmoid(outputs) if self.from_logits else outputs)[:, 0]
            predicted = ops.cast(positive > 0.5, "int32")
            confidence = ops.maximum(positive, 1.0 - positive)
        else:
            outputs = ops.softmax(outputs) if self.from_logits else outputs
            predicted = ops.cast(ops.argmax(outputs, axis=-1), "int32")
            confidence = ops.max(outputs, axis=-1)
        if self.ignore_class is not None:
            weights = ops.where(labels != self.ignore_class, weights, 0.0)
        bins = ops.cast(ops.ceil(confidence * self.num_bins), "int32") - 1
        bins = ops.clip(bins, 0, self.num_bins - 1)
        right = ops.cast(labels == predicted, "float64")
        for total, value in ((self.confidence, ops.cast(confidence, "float64")), (self.correct, right)):
            total.assign_add(ops.segment_sum(weights * value, bins, self.num_bins))
        self.count.assign_add(ops.segment_sum(weights, bins, self.num_bins))

    def result(self) -> Any:
        # count / N * |correct / count - confidence / count|: the count of a bin cancels.
        gap = ops.sum(ops.absolute(self.correct - self.confidence))
        return ops.cast(ops.divide_no_nan(gap, ops.sum(self.count)), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }


def default_metrics(task: str, num_classes: int) -> list[keras.metrics.Metric]:
    """Accuracy (a pixel is a sample), and for segmentation the mean IoU, from logits.

    Keras' own `"accuracy"` asks whether one output exceeds 0.5, which is right for a probability only; a
    logit says yes above 0.

    Args:
        task: `"classification"` or `"segmentation"`.
        num_classes: the model's outputs; 1 means one logit of a binary task.

    Example:

    >>> [metric.name for metric in default_metrics("segmentation", 11)]
    ['accuracy', 'mean_iou']
    """
    if task not in ("classification", "segmentation"):
        raise ValueError(f"`task` must be 'classification' or 'segmentation'. Received: task={task!r}")
    if num_classes == 1:
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    else:
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [*metrics, MeanIoU(num_classes)] if task == "segmentation" else metrics
