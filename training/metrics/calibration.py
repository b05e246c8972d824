"""Streaming calibration errors: how far confidence is from accuracy, over bins of three kinds."""

from typing import Any

import keras
from keras import ops

from dropzoo.training.metrics.base import BinnedError, check_positive

# The fine bins of the adaptive error: equal steps of log(p / (1 - p)). A float32 below 1 is at most at 16.6, the
# confidence of 20,000 equal classes is at -9.9, and within a step of 0.007 no confidence moves by more than 0.002.
_FINE, _LOW, _HIGH = 4096, -10.0, 18.0


@keras.saving.register_keras_serializable(package="dropzoo")
class ExpectedCalibrationError(BinnedError):
    """Expected calibration error: how far confidence is from accuracy.

    Predictions fall into `num_bins` bins of equal width by confidence, `((m - 1) / M, m / M]`. The error is
    the mean over bins, weighted by their share of predictions, of `|accuracy - mean confidence|`. A pixel is
    a prediction. The confidence of one logit is `max(p, 1 - p)`, the same as for two classes.

    Args:
        num_bins: positive.
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result; the sums are float64.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`; one that is no class makes the result NaN.
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
        super().__init__((num_bins,), num_bins, from_logits, ignore_class, name, dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class AdaptiveCalibrationError(BinnedError):
    """Expected calibration error over bins that hold equally many predictions.

    Most predictions of a trained network are nearly sure, so most of them share the last bin of equal width, where
    over- and underconfidence cancel out. Bins of equal mass follow the predictions instead.

    Exact bins would need all predictions at once. This metric streams: it sums confidence and right answers, in
    float64, over a fine histogram of 4,096 steps of the log odds, and merges it to equal-mass bins in `result()`.
    A step (or one prediction) that lies across an edge is shared between both sides in proportion. That is the
    exact error but for predictions within one step, 0.2 % of confidence at most, of an edge; predictions of one
    and the same confidence count as mixed, where sorting would leave them in the order they came.

    Args:
        num_bins: positive; of equal mass.
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result; the sums are float64.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`; one that is no class makes the result NaN.
        y_pred: `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: `(batch,)` or one a pixel; weights count as mass.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:

    >>> metric = AdaptiveCalibrationError(num_bins=2, from_logits=False)
    >>> p = np.array([0.6, 0.7, 0.96, 0.98])
    >>> metric.update_state(np.array([1, 1, 0, 1]), np.stack([1 - p, p], axis=-1))
    >>> round(float(metric.result()), 4)  # (|2 - 1.3| + |1 - 1.94|) / 4
    0.41

    Reference:
        Nguyen and O'Connor, 2015: Posterior calibration and exploratory analysis for natural language processing
        models, arXiv:1508.05154; Mukhoti et al., 2020, arXiv:2002.09437.
    """

    def __init__(
        self,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "adaptive_calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__((_FINE,), num_bins, from_logits, ignore_class, name, dtype)

    def _bin(self, confidence: Any) -> Any:
        confidence = ops.cast(confidence, "float64")
        odds = ops.log(ops.maximum(confidence, 1e-9)) - ops.log(ops.maximum(1.0 - confidence, 1e-9))
        return ops.clip(ops.cast((odds - _LOW) / (_HIGH - _LOW) * _FINE, "int32"), 0, _FINE - 1)

    def result(self) -> Any:
        start = ops.zeros((1,), "float64")
        mass = ops.concatenate([start, ops.cumsum(self.count)])  # (fine bins + 1,): below each edge
        gap = ops.concatenate([start, ops.cumsum(self.correct - self.confidence)])
        edges = mass[-1] * (ops.arange(self.num_bins + 1, dtype="float64") / self.num_bins)
        above = ops.clip(ops.searchsorted(mass, edges), 1, _FINE)
        low, high = ops.take(mass, above - 1), ops.take(mass, above)
        share = ops.divide_no_nan(edges - low, high - low)
        at_edges = (1.0 - share) * ops.take(gap, above - 1) + share * ops.take(gap, above)
        error = ops.sum(ops.absolute(at_edges[1:] - at_edges[:-1]))
        return ops.cast(ops.divide_no_nan(error, mass[-1]), self.dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class ClasswiseCalibrationError(BinnedError):
    """Calibration error of every class's probability, not of the predicted class's alone.

    For each class, all predictions fall into bins of equal width by the probability of that class; the error of a
    class is the mean over bins, weighted by their share of predictions, of `|share of the class - mean
    probability|`; the result is the mean over the classes. A class without a label counts too: its probabilities
    should be 0. With many classes most probabilities are near 0 and right, so the figure shrinks as classes are
    added: compare it between models, not between tasks.

    Args:
        num_classes: the model's outputs; 1 means one logit and counts two classes.
        num_bins: positive; of equal width.
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result; the sums are float64.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`; one that is no class makes the result NaN.
        y_pred: `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: `(batch,)` or one a pixel.

    Output shape:
        A scalar in [0, 1]; 0 before any data.

    Example:

    >>> metric = ClasswiseCalibrationError(3, from_logits=False)
    >>> metric.update_state(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1, 0.0]] * 4))
    >>> round(float(metric.result()), 4)  # (|0.5 - 0.9| + |0.5 - 0.1| + 0) / 3
    0.2667

    Reference:
        Kull et al., 2019: Beyond temperature scaling, arXiv:1910.12656; Nixon et al., 2019, arXiv:1904.01685.
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 15,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "classwise_calibration_error",
        dtype: Any = None,
    ) -> None:
        self.num_classes = check_positive("num_classes", num_classes)
        bins = (max(num_classes, 2), num_bins)
        super().__init__(bins, num_bins, from_logits, ignore_class, name, dtype)

    def _add(self, labels: Any, outputs: Any, weights: Any) -> None:
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
