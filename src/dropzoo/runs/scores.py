"""The figures of one model on one data set, summed batch by batch."""

import functools
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import tensorflow as tf

from dropzoo import training
from dropzoo.runs.figures import Figures

# AURC and AUROC need all predictions at once, so a larger image is represented by this many random pixels.
_PIXELS = 4096
_Sums: TypeAlias = list[list[tf.Tensor]]


class Sample:
    """Draws pixels of a batch, the same ones from all of its images and tensors. Small images are kept whole."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def __call__(self, *batch: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns arrays `(batch, ..., [k])` as `(values, [k])`; the first array must have no `k`."""
        count, pixels = len(batch[0]), int(np.prod(batch[0].shape[1:]))
        flat = [each.reshape(count, pixels, *each.shape[batch[0].ndim :]) for each in batch]
        if pixels > _PIXELS:
            chosen = np.sort(self._random.choice(pixels, _PIXELS, replace=False))
            flat = [each[:, chosen] for each in flat]
        return tuple(each.reshape(-1, *each.shape[2:]) for each in flat)


@dataclass(frozen=True)
class Bins:
    """The sums of an expected calibration error by bins of equal width.

    Attributes:
        confidence: Array `(bins,)`, the sum of the confidences.
        correct: Array `(bins,)`, the number of right answers.
        count: Array `(bins,)`, the number of predictions.
    """

    confidence: np.ndarray
    correct: np.ndarray
    count: np.ndarray


class _Metrics:
    """The metrics of one kind of data set. Their sums are kept by the `Scores`, which share one trace."""

    def __init__(self, task: str, classes: int, ignored: int | None) -> None:
        self._metrics = {  # they take logits, and log p will do, since the softmax of log p is p
            "nll": training.NegativeLogLikelihood(ignore_class=ignored),
            "brier": training.BrierScore(ignore_class=ignored),
            "ece": training.ExpectedCalibrationError(ignore_class=ignored),
            "ece_adaptive": training.AdaptiveCalibrationError(ignore_class=ignored),
            "ece_classwise": training.ClasswiseCalibrationError(classes, ignore_class=ignored),
        }
        shape = [None] * (3 if task == "segmentation" else 1)
        sums = [[tf.TensorSpec(v.shape, v.dtype) for v in each.variables] for each in self._metrics.values()]
        spec = (tf.TensorSpec(shape, tf.int32), tf.TensorSpec([*shape, classes], tf.float32), sums)
        self._traced = tf.function(self._updated, input_signature=spec, autograph=False)

    def zeros(self) -> _Sums:
        """Returns the sums before any batch."""
        return [[tf.zeros(v.shape, v.dtype) for v in each.variables] for each in self._metrics.values()]

    def update(self, labels: tf.Tensor, log_p: tf.Tensor, sums: _Sums) -> tuple[tf.Tensor, _Sums]:
        """Returns the entropy of each prediction, and the sums with a batch added."""
        return self._traced(labels, log_p, sums)

    def _updated(self, labels: tf.Tensor, log_p: tf.Tensor, sums: _Sums) -> tuple[tf.Tensor, _Sums]:
        each = zip(self._metrics.values(), sums, strict=True)
        return entropy(log_p), [metric.stateless_update_state(own, labels, log_p) for metric, own in each]

    def results(self, sums: _Sums) -> dict[str, float]:
        """Returns the values of the metrics by their names."""
        each = zip(self._metrics.items(), sums, strict=True)
        return {name: float(metric.stateless_result(own)) for (name, metric), own in each}

    def bins(self, sums: _Sums) -> Bins:
        """Returns the bins of the expected calibration error."""
        metric, own = self._metrics["ece"], sums[list(self._metrics).index("ece")]
        by_name = {variable.name: value.numpy() for variable, value in zip(metric.variables, own, strict=True)}
        return Bins(**by_name)


@functools.lru_cache(maxsize=32)
def _metrics_of(task: str, classes: int, ignored: int | None) -> _Metrics:
    """The metrics of a kind of data set: their trace costs more than the evaluation of a small one."""
    return _Metrics(task, classes, ignored)


class Scores:
    """Computes accuracy, IoU, calibration and the worth of the uncertainty from labels and log-probabilities.

    The uncertainty is the entropy of the probabilities. Those of Monte Carlo are means over samples, so their
    entropy is the predictive entropy.

    Args:
        info: The data set's facts: its task and its classes.
    """

    def __init__(self, info: training.DataInfo) -> None:
        self.info = info
        self._metrics = _metrics_of(info.task, info.num_classes, info.ignore_class)
        self.reset()

    def reset(self) -> "Scores":
        """Forgets all batches; returns itself."""
        self._sums = self._metrics.zeros()
        self.count = 0
        self._confusion = np.zeros((self.info.num_classes, self.info.num_classes), "int64")
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._sample = Sample()
        return self

    @property
    def bins(self) -> Bins:
        """The bins of the expected calibration error."""
        return self._metrics.bins(self._sums)

    def add(self, labels: tf.Tensor, log_p: tf.Tensor) -> None:
        """Adds a batch: labels `(batch, ...)` and log-probabilities `(batch, ..., classes)`."""
        uncertainty, self._sums = self._metrics.update(tf.cast(labels, tf.int32), log_p, self._sums)
        uncertainty = uncertainty.numpy()
        labels, classes = np.asarray(labels), np.argmax(log_p, -1)
        counts = (
            np.ones(labels.shape, bool) if self.info.ignore_class is None else labels != self.info.ignore_class
        )
        cells = labels[counts] * len(self._confusion) + classes[counts]
        self._confusion += np.bincount(cells, minlength=self._confusion.size).reshape(self._confusion.shape)
        uncertainties, errors, kept = self._sample(uncertainty, classes != labels, counts)
        self._kept.append((uncertainties[kept], errors[kept]))
        self.count += len(labels)

    def uncertainty_and_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the entropy of each prediction that was kept, and whether it is wrong."""
        uncertainty, errors = (np.concatenate(each) for each in zip(*self._kept, strict=True))
        return uncertainty, errors

    def figures(self) -> Figures:
        """Returns the figures of all batches so far.

        Raises:
            ValueError: If there was no batch.
        """
        if not self.count:
            raise ValueError(f"There are no images to evaluate on in {self.info.name!r}")
        confusion = self._confusion
        figures: dict[str, object] = {"accuracy": float(confusion.trace() / confusion.sum())}
        if self.info.task == "segmentation":
            union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
            iou = [float(c / u) if u else None for c, u in zip(confusion.diagonal(), union, strict=True)]
            figures["mean_iou"] = float(np.mean([each for each in iou if each is not None]))
            figures["iou"] = dict(zip(self.info.class_names, iou, strict=True))
        figures |= self._metrics.results(self._sums)
        return cast(Figures, {**figures, **self._detection(), "count": self.count})

    def _detection(self) -> dict[str, float | None]:
        """Returns how well the uncertainty finds the errors; None if training diverged and left NaN."""
        uncertainty, errors = self.uncertainty_and_errors()
        if not np.isfinite(uncertainty).all():
            return {"aurc": None, "error_auroc": None}
        found = training.error_auroc(uncertainty, errors)
        return {"aurc": training.aurc(uncertainty, errors), "error_auroc": None if np.isnan(found) else found}


def entropy(log_p: tf.Tensor) -> tf.Tensor:
    """Returns the entropy in nats, `(batch, ...)`, from log-probabilities `(batch, ..., classes)`."""
    return -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), -1)  # 0 log 0 is 0
