"""Streaming proper scoring rules, best for the true probabilities: negative log-likelihood and Brier score."""

from typing import Any

import keras
from keras import ops

from dropzoo.training.metrics.base import ProbabilityMetric


class _MeanScore(ProbabilityMetric):
    """The weighted mean of one score a prediction."""

    def __init__(self, from_logits: bool, ignore_class: int | None, name: str, dtype: Any) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)
        self.total, self.count = self._sum("total"), self._sum("count")

    def _add(self, labels: Any, outputs: Any, weights: Any) -> None:
        scores = ops.cast(self._scores(labels, outputs), "float64")  # (values,)
        # A miss of an infinite score is none where it does not count.
        self.total.assign_add(ops.sum(ops.where(weights == 0.0, 0.0, weights * scores)))
        self.count.assign_add(ops.sum(weights))

    def _scores(self, labels: Any, outputs: Any) -> Any:
        raise NotImplementedError

    def result(self) -> Any:
        return ops.cast(ops.divide_no_nan(self.total, self.count), self.dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class NegativeLogLikelihood(_MeanScore):
    """Negative log-likelihood: the mean of `-log p(label)`, in nats.

    The cross-entropy as a metric: it asks for the right class and for the right confidence at once, and a sure
    miss costs most. Unlike Keras' losses and their `Mean` it sums in float64, leaves ignored pixels out of the
    count, and reads one logit, logits and probabilities alike. Probabilities below 1e-12 count as 1e-12, so that
    the dearest miss costs 27.6; logits know no such bound.

    Args:
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`; one that is no class makes the result NaN.
        y_pred: `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: `(batch,)` or one a pixel.

    Output shape:
        A scalar, 0 or more; 0 before any data.

    Example:

    >>> metric = NegativeLogLikelihood(from_logits=False)
    >>> metric.update_state(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]]))
    >>> round(float(metric.result()), 4)  # (log 2 + log 4) / 2
    1.0397

    Reference:
        Gneiting and Raftery, 2007: Strictly Proper Scoring Rules, Prediction, and Estimation,
        doi:10.1198/016214506000001437.
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "negative_log_likelihood",
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)

    def _scores(self, labels: Any, outputs: Any) -> Any:
        log_p = ops.log_softmax(outputs) if self.from_logits else ops.log(ops.maximum(outputs, 1e-12))
        return -ops.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


@keras.saving.register_keras_serializable(package="dropzoo")
class BrierScore(_MeanScore):
    """Brier score: the mean squared distance of the probabilities from the truth.

    With `y` the label as a one-hot vector it is `sum_k (p_k - y_k)**2` for three or more classes, and
    `(p_1 - y_1)**2` for two classes or one output, which is half of that sum: the convention of
    `sklearn.metrics.brier_score_loss`. A miss costs a bounded amount, so a few sure ones do not decide it, as
    they do the negative log-likelihood.

    Args:
        from_logits: whether `y_pred` is logits rather than probabilities.
        ignore_class: a label, say 255, whose pixels do not count.
        name: the metric's name.
        dtype: of the result.

    Call arguments:
        y_true: labels, `(batch, ..., [1])`; one that is no class makes the result NaN.
        y_pred: `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: `(batch,)` or one a pixel.

    Output shape:
        A scalar in [0, 2], for two classes in [0, 1]; 0 before any data.

    Example:

    >>> metric = BrierScore(from_logits=False)
    >>> metric.update_state(np.array([2]), np.array([[0.1, 0.3, 0.6]]))
    >>> round(float(metric.result()), 4)  # 0.01 + 0.09 + 0.16
    0.26

    Reference:
        Brier, 1950: Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78(1).
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "brier_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)

    def _scores(self, labels: Any, outputs: Any) -> Any:
        p = self._probabilities(outputs)
        squares = ops.sum(ops.square(p - ops.one_hot(labels, p.shape[-1])), axis=-1)
        return squares / 2.0 if p.shape[-1] == 2 else squares
