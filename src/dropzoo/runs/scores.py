"""The figures of one model on one data set, summed batch by batch."""

from typing import cast

import numpy as np
import tensorflow as tf

from dropzoo import training
from dropzoo.runs.figures import Figures

# AURC and AUROC need all predictions at once, so a larger image is represented by this many random pixels.
_PIXELS = 4096


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


class Scores:
    """Computes accuracy, IoU, calibration and the worth of the uncertainty from labels and log-probabilities.

    The uncertainty is the entropy of the probabilities. Those of Monte Carlo are means over samples, so their
    entropy is the predictive entropy.

    Args:
        info: The data set's facts: its task and its classes.
    """

    def __init__(self, info: training.DataInfo) -> None:
        self.info = info
        ignored = info.ignore_class
        self.calibration = training.ExpectedCalibrationError(ignore_class=ignored)
        self.metrics = {  # they take logits, and log p will do, since the softmax of log p is p
            "nll": training.NegativeLogLikelihood(ignore_class=ignored),
            "brier": training.BrierScore(ignore_class=ignored),
            "ece": self.calibration,
            "ece_adaptive": training.AdaptiveCalibrationError(ignore_class=ignored),
            "ece_classwise": training.ClasswiseCalibrationError(info.num_classes, ignore_class=ignored),
        }
        shape = [None] * (3 if info.task == "segmentation" else 1)
        spec = (tf.TensorSpec(shape, tf.int32), tf.TensorSpec([*shape, info.num_classes], tf.float32))
        # Concrete, since TensorFlow warns when a method is traced again for each object.
        update = tf.function(self._add_to_metrics, input_signature=spec, autograph=False)
        self._update = update.get_concrete_function()
        self.reset()

    def reset(self) -> "Scores":
        """Forgets all batches, which is cheaper than a new object that TensorFlow has to trace; returns itself."""
        for metric in self.metrics.values():
            metric.reset_state()
        self.count = 0
        self._confusion = np.zeros((self.info.num_classes, self.info.num_classes), "int64")
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._sample = Sample()
        return self

    def add(self, labels: tf.Tensor, log_p: tf.Tensor) -> None:
        """Adds a batch: labels `(batch, ...)` and log-probabilities `(batch, ..., classes)`."""
        uncertainty = self._update(tf.cast(labels, tf.int32), log_p).numpy()
        labels, classes = np.asarray(labels), np.argmax(log_p, -1)
        counts = (
            np.ones(labels.shape, bool) if self.info.ignore_class is None else labels != self.info.ignore_class
        )
        cells = labels[counts] * len(self._confusion) + classes[counts]
        self._confusion += np.bincount(cells, minlength=self._confusion.size).reshape(self._confusion.shape)
        uncertainties, errors, kept = self._sample(uncertainty, classes != labels, counts)
        self._kept.append((uncertainties[kept], errors[kept]))
        self.count += len(labels)

    def _add_to_metrics(self, labels: tf.Tensor, log_p: tf.Tensor) -> tf.Tensor:
        for metric in self.metrics.values():
            metric.update_state(labels, log_p)
        return entropy(log_p)

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
        figures |= {name: float(metric.result()) for name, metric in self.metrics.items()}
        return cast(Figures, {**figures, **self._detection(), "count": self.count})

    def _detection(self) -> dict[str, float | None]:
        """Returns how well the uncertainty finds the errors; None if a training that diverged left NaN."""
        uncertainty, errors = self.uncertainty_and_errors()
        if not np.isfinite(uncertainty).all():
            return {"aurc": None, "error_auroc": None}
        found = training.error_auroc(uncertainty, errors)
        return {"aurc": training.aurc(uncertainty, errors), "error_auroc": None if np.isnan(found) else found}


def entropy(log_p: tf.Tensor) -> tf.Tensor:
    """Returns the entropy in nats, `(batch, ...)`, from log-probabilities `(batch, ..., classes)`."""
    return -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), -1)  # 0 log 0 is 0
