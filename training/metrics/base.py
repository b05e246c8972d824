"""The base classes of the metrics, which bring labels, outputs and weights into one flat form."""

import math
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from dropzoo.common.checks import check_count
from dropzoo.common.keras_internals import lower_is_better

Values: TypeAlias = tf.Tensor | np.ndarray


def flatten(
    y_true: Values, y_pred: Values, sample_weight: Values | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns labels (values,) as int32, outputs (values, classes) as float32, weights (values,) as float64."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    _check_labels(tuple(y_true.shape), tuple(y_pred.shape))
    weights = ops.broadcast_to(_weights(sample_weight, tuple(y_pred.shape)), ops.shape(y_pred)[:-1])
    y_pred = ops.cast(ops.reshape(y_pred, (-1, y_pred.shape[-1])), "float32")
    return ops.reshape(ops.cast(y_true, "int32"), (-1,)), y_pred, ops.reshape(weights, (-1,))


def _check_labels(labels: tuple[int | None, ...], outputs: tuple[int | None, ...]) -> None:
    """Raises a ValueError unless there is one label for each vector of outputs; unknown sizes fit."""
    given = labels[:-1] if len(labels) == len(outputs) and labels[-1] == 1 else labels
    known = zip(given, outputs[:-1], strict=False)
    if len(given) != len(outputs) - 1 or any(a is not None and b is not None and a != b for a, b in known):
        raise ValueError(
            "`y_true` must hold one integer label for each vector of `y_pred` along its last axis. "
            f"Received: y_true of shape {labels}, y_pred of shape {outputs}"
        )


def _weights(sample_weight: Values | None, outputs: tuple[int | None, ...]) -> tf.Tensor:
    """Returns float64 weights that broadcast to `outputs` without its last axis; pixels share their image's."""
    if sample_weight is None:
        return ops.ones((), "float64")
    given = weights = ops.cast(ops.convert_to_tensor(sample_weight), "float64")
    if len(weights.shape) == len(outputs) and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    while 0 < len(weights.shape) < len(outputs) - 1:
        weights = ops.expand_dims(weights, -1)
    pairs = zip(weights.shape, outputs[:-1], strict=False)
    fits = all(a in (None, 1) or b is None or a == b for a, b in pairs)
    if not fits or len(weights.shape) not in (0, len(outputs) - 1):
        raise ValueError(
            "`sample_weight` must hold one number for each image or for each label. "
            f"Received: sample_weight of shape {tuple(given.shape)}, y_pred of shape {outputs}"
        )
    return weights


def predicted_classes(logits: tf.Tensor) -> tf.Tensor:
    """Returns the predicted class of each row, int32; one logit predicts 1 where it is positive."""
    classes = logits[:, 0] > 0 if logits.shape[-1] == 1 else ops.argmax(logits, axis=-1)
    return ops.cast(classes, "int32")


class ProbabilityMetric(keras.metrics.Metric):
    """Base class for streaming metrics of probabilities.

    It reads the outputs and leaves the sums to `_add`. The one output of a binary task becomes two classes. An
    ignored label has the weight 0. Any other label that is not a class makes the result NaN, in graphs too,
    instead of counting as a wrong prediction.

    Args:
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        lower_is_better(self)
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def update_state(self, y_true: Values, y_pred: Values, sample_weight: Values | None = None) -> None:
        labels, outputs, weights = flatten(y_true, y_pred, sample_weight)
        if outputs.shape[-1] == 1:
            first = ops.zeros_like(outputs) if self.from_logits else 1.0 - outputs
            outputs = ops.concatenate([first, outputs], axis=-1)
        if self.ignore_class is not None:
            weights = ops.where(labels != self.ignore_class, weights, 0.0)
        valid = ops.logical_and(labels >= 0, labels < outputs.shape[-1])
        weights = ops.where(ops.logical_or(valid, weights == 0.0), weights, float("nan"))
        self._add(ops.where(valid, labels, 0), outputs, weights)

    def _add(self, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor) -> None:
        """Adds labels (values,) that are classes, outputs (values, 2 or more) and float64 weights (values,)."""
        raise NotImplementedError

    def _probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the outputs as probabilities."""
        return ops.softmax(outputs) if self.from_logits else outputs

    def _sum(self, name: str, shape: tuple[int, ...] = ()) -> keras.Variable:
        """Returns a new float64 variable; float32 stops counting at 2**24, fewer than the pixels of an epoch."""
        return self.add_variable(shape, "zeros", dtype="float64", name=name)

    def get_config(self) -> dict[str, Any]:
        own = {"from_logits": self.from_logits, "ignore_class": self.ignore_class}
        return {**super().get_config(), **own}


class BinnedError(ProbabilityMetric):
    """Base class for calibration errors: it sums confidence, right answers and predictions by bin.

    Args:
        bins: Tuple of ints. The shape of the sums.
        num_bins: Int above 0. The number of bins.
        from_logits: As for `ProbabilityMetric`.
        ignore_class: As for `ProbabilityMetric`.
        name: As for `ProbabilityMetric`.
        dtype: As for `ProbabilityMetric`.
    """

    def __init__(
        self,
        bins: tuple[int, ...],
        num_bins: int,
        from_logits: bool,
        ignore_class: int | None,
        name: str,
        dtype: str | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)
        self.num_bins = check_count(num_bins, "num_bins")
        self.confidence, self.correct, self.count = (
            self._sum(each, bins) for each in ("confidence", "correct", "count")
        )

    def _add(self, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor) -> None:
        p = self._probabilities(outputs)
        confidence = ops.max(p, axis=-1)
        self._add_to_bins(self._bin(confidence), confidence, labels == ops.argmax(p, axis=-1), weights)

    def _bin(self, confidence: tf.Tensor) -> tf.Tensor:
        """Returns the index of the bin of each value. The bins are `((m - 1) / M, m / M]` for m = 1 to M."""
        bins = ops.cast(ops.ceil(confidence * self.num_bins), "int32") - 1
        return ops.clip(bins, 0, self.num_bins - 1)

    def _add_to_bins(self, bins: tf.Tensor, confidence: tf.Tensor, correct: tf.Tensor, weights: tf.Tensor) -> None:
        """Adds confidences, and whether each answer is correct, to the bins of these indices, all `(values,)`."""
        confidence, correct = ops.cast(confidence, "float64"), ops.cast(correct, "float64")
        sums = ((self.confidence, weights * confidence), (self.correct, weights * correct), (self.count, weights))
        for total, values in sums:
            added = ops.segment_sum(values, bins, math.prod(total.shape))
            total.assign_add(ops.reshape(added, total.shape))

    def result(self) -> tf.Tensor:
        # The term of a bin is count / N * |correct / count - confidence / count|, in which its count cancels.
        gap = ops.sum(ops.absolute(self.correct - self.confidence))
        return ops.cast(ops.divide_no_nan(gap, ops.sum(self.count)), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins}
