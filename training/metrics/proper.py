"""Streaming proper scoring rules, which the true probabilities minimise."""

import keras
import tensorflow as tf
from keras import ops

from dropzoo.training.metrics.base import ProbabilityMetric


class _MeanScore(ProbabilityMetric):
    """Base class for the weighted mean of a score of each prediction."""

    def __init__(
        self, from_logits: bool, ignore_class: int | None, name: str, dtype: str | keras.DTypePolicy | None
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)
        self.total, self.count = self._sum("total"), self._sum("count")

    def _add(self, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor) -> None:
        scores = ops.cast(self._scores(labels, outputs), "float64")  # (values,)
        # An infinite score times the weight 0 would be NaN.
        self.total.assign_add(ops.sum(ops.where(weights == 0.0, 0.0, weights * scores)))
        self.count.assign_add(ops.sum(weights))

    def _scores(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the score of each prediction, `(values,)`."""
        raise NotImplementedError

    def result(self) -> tf.Tensor:
        return ops.cast(ops.divide_no_nan(self.total, self.count), self.dtype)


@keras.saving.register_keras_serializable(package="dropzoo")
class NegativeLogLikelihood(_MeanScore):
    """Negative log-likelihood (NLL): the mean of `-log p(label)`, in nats.

    This is the cross-entropy as a metric. It measures both whether the class is right and whether the confidence
    is right; confident wrong predictions cost most. Unlike the means of Keras' losses, it sums in float64, does
    not count ignored pixels, and takes probabilities, logits, or the single logit of a binary task. Probabilities
    below 1e-12 count as 1e-12, so a prediction costs at most 27.6; logits have no such bound.

    Args:
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.

    Raises:
        ValueError: If the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels; labels that are not classes give NaN.
        y_pred: Float tensor `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label.

    Output shape:
        A scalar, 0 or more; 0 before any data.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.NegativeLogLikelihood(from_logits=False)
    >>> metric.update_state(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]]))
    >>> round(float(metric.result()), 4)  # (log 2 + log 4) / 2
    1.0397

    Reference:
        Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007,
        doi:10.1198/016214506000001437.
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "negative_log_likelihood",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)

    def _scores(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        log_p = ops.log_softmax(outputs) if self.from_logits else ops.log(ops.maximum(outputs, 1e-12))
        return -ops.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


@keras.saving.register_keras_serializable(package="dropzoo")
class BrierScore(_MeanScore):
    """Brier score: the mean squared distance of the probabilities from the labels.

    Let `y` be the label as a one-hot vector. The score is `sum_k (p_k - y_k)**2` for three or more classes, and
    `(p_1 - y_1)**2` for two classes or one output, which is half of that sum. This is the convention of
    `sklearn.metrics.brier_score_loss`. The cost of a wrong prediction is bounded, so a few confident wrong
    predictions do not dominate the score, as they do in the negative log-likelihood.

    Args:
        from_logits: Bool. Whether `y_pred` holds logits rather than probabilities.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the result; the sums are float64.

    Raises:
        ValueError: If the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels; labels that are not classes give NaN.
        y_pred: Float tensor `(batch, ..., classes)`; one output is the foreground of a binary task.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label.

    Output shape:
        A scalar in [0, 2], for two classes in [0, 1]; 0 before any data.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.BrierScore(from_logits=False)
    >>> metric.update_state(np.array([2]), np.array([[0.1, 0.3, 0.6]]))
    >>> round(float(metric.result()), 4)  # 0.01 + 0.09 + 0.16
    0.26

    Reference:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78(1), 1950.
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        name: str = "brier_score",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)

    def _scores(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        p = self._probabilities(outputs)
        squares = ops.sum(ops.square(p - ops.one_hot(labels, p.shape[-1])), axis=-1)
        return squares / 2.0 if p.shape[-1] == 2 else squares
