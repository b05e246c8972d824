"""Streaming calibration errors: the distance between confidence and accuracy, over bins of three kinds."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.common.checks import check_count
from dropzoo.training.metrics.base import BinnedError

# The fine bins of the adaptive error: equal steps of log(p / (1 - p)). The largest float32 below 1 lies at 16.6,
# and the confidence of 20,000 equal classes at -9.9. Within a step of 0.007 a confidence changes by at most 0.002.
_FINE, _LOW, _HIGH = 4096, -10.0, 18.0


@keras.saving.register_keras_serializable(package="dropzoo")
class ExpectedCalibrationError(BinnedError):
    """Expected calibration error: the mean difference between confidence and accuracy.

    Predictions fall into `M = num_bins` bins of equal width by confidence; bin `m` is `((m - 1) / M, m / M]`. The
    error is the mean of `|accuracy - mean confidence|` over the bins, weighted by their share of the predictions.
    Each pixel is a prediction. The confidence of one logit is `max(p, 1 - p)`, the same as for two classes.

    Args:
        num_bins: Int above 0. The number of bins of equal width.
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.

    Raises:
        ValueError: If `num_bins` is not a positive int, or the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels; labels that are not classes give NaN.
        y_pred: Float tensor `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.ExpectedCalibrationError(from_logits=False)
    >>> metric.update_state(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1]] * 4))
    >>> round(float(metric.result()), 4)  # 90 % sure, half right
    0.4

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599.
    """

    def __init__(
        self,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "expected_calibration_error",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__((num_bins,), num_bins, from_logits, ignore_class, name, dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class AdaptiveCalibrationError(BinnedError):
    """Expected calibration error over bins that hold equally many predictions.

    Most predictions of a trained network have a confidence near 1. With bins of equal width, most of them are in
    the last bin, where over- and underconfidence cancel out. Bins with equally many predictions avoid this.

    Exact bins would need all predictions at once. This metric is a streaming approximation: it sums confidence and
    right answers, in float64, over a fine histogram of 4,096 steps of the log odds, and `result()` merges the
    steps into bins of equal mass. A step that lies across an edge is shared between both sides in proportion, even
    if it holds a single prediction. Only predictions within one step (at most 0.2 % of confidence) of an edge can
    make the result differ from the exact error. If an edge falls among predictions of equal confidence, the bins
    on both sides share all of them in proportion; an exact computation would divide them by their order of
    arrival.

    Args:
        num_bins: Int above 0. The number of bins of equal mass.
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.

    Raises:
        ValueError: If `num_bins` is not a positive int, or the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels; labels that are not classes give NaN.
        y_pred: Float tensor `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label; weights count as mass.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.AdaptiveCalibrationError(num_bins=2, from_logits=False)
    >>> p = np.array([0.6, 0.7, 0.96, 0.98])
    >>> metric.update_state(np.array([1, 1, 0, 1]), np.stack([1 - p, p], axis=-1))
    >>> round(float(metric.result()), 4)  # (|2 - 1.3| + |1 - 1.94|) / 4
    0.41

    Reference:
        Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing
        models", 2015, arXiv:1508.05154; Mukhoti et al., "Calibrating Deep Neural Networks using Focal Loss", 2020,
        arXiv:2002.09437.
    """

    def __init__(
        self,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "adaptive_calibration_error",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__((_FINE,), num_bins, from_logits, ignore_class, name, dtype)

    def _bin(self, confidence: tf.Tensor) -> tf.Tensor:
        confidence = ops.cast(confidence, "float64")
        odds = ops.log(ops.maximum(confidence, 1e-9)) - ops.log(ops.maximum(1.0 - confidence, 1e-9))
        return ops.clip(ops.cast((odds - _LOW) / (_HIGH - _LOW) * _FINE, "int32"), 0, _FINE - 1)

    def result(self) -> tf.Tensor:
        start = ops.zeros((1,), "float64")
        mass = ops.concatenate([start, ops.cumsum(self.count)])  # (fine bins + 1,): the mass below each edge
        gap = ops.concatenate([start, ops.cumsum(self.correct - self.confidence)])
        edges = mass[-1] * (ops.arange(self.num_bins + 1, dtype="float64") / self.num_bins)
        # The first place that is not below the edge; `ops.searchsorted` of Keras 3.10 takes no symbolic tensor.
        above = ops.sum(ops.cast(mass[None] < edges[:, None], "int32"), axis=1)
        above = ops.clip(above, 1, _FINE)
        low, high = ops.take(mass, above - 1), ops.take(mass, above)
        share = ops.divide_no_nan(edges - low, high - low)
        at_edges = (1.0 - share) * ops.take(gap, above - 1) + share * ops.take(gap, above)
        error = ops.sum(ops.absolute(at_edges[1:] - at_edges[:-1]))
        return ops.cast(ops.divide_no_nan(error, mass[-1]), self.dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class ClasswiseCalibrationError(BinnedError):
    """Calibration error of the probabilities of all classes, not only of the predicted class.

    For each class, all predictions fall into bins of equal width by the probability of that class. The error of a
    class is the mean of `|share of the class - mean probability|` over the bins, weighted by their share of the
    predictions. The result is the mean over the classes. A class that has no labels counts too: its probabilities
    should be 0. With many classes, most probabilities are near 0 and right, so the value shrinks as classes are
    added. Compare it between models, not between data sets.

    Args:
        num_classes: Int above 0. The number of outputs of the model; 1 means one logit and counts two classes.
        num_bins: Int above 0. The number of bins of equal width.
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.

    Raises:
        ValueError: If `num_classes` or `num_bins` is not a positive int, or the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels; labels that are not classes give NaN.
        y_pred: Float tensor `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.ClasswiseCalibrationError(3, from_logits=False)
    >>> metric.update_state(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1, 0.0]] * 4))
    >>> round(float(metric.result()), 4)  # (|0.5 - 0.9| + |0.5 - 0.1| + 0) / 3
    0.2667

    Reference:
        Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet
        calibration", 2019, arXiv:1910.12656; Nixon et al., "Measuring Calibration in Deep Learning", 2019,
        arXiv:1904.01685.
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "classwise_calibration_error",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        self.num_classes = check_count(num_classes, "num_classes")
        bins = (max(num_classes, 2), num_bins)
        super().__init__(bins, num_bins, from_logits, ignore_class, name, dtype)

    def _add(self, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor) -> None:
        p = self._probabilities(outputs)  # (values, classes)
        classes = self.count.shape[0]
        if p.shape[-1] != classes:
            raise ValueError(
                f"`y_pred` must have num_classes={self.num_classes} outputs. Received: {p.shape[-1]} classes"
            )
        bins = self._bin(p) + self.num_bins * ops.arange(classes, dtype="int32")
        weights = ops.broadcast_to(weights[:, None], ops.shape(p))
        flat = (ops.reshape(each, (-1,)) for each in (bins, p, ops.one_hot(labels, classes), weights))
        self._add_to_bins(*flat)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}
