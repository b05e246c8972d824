"""The metrics that a task gets when none are given."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_choice
from dropzoo.training.metrics.base import Values, flatten, predicted_classes
from dropzoo.training.metrics.iou import MeanIoU


def default_metrics(task: str, num_classes: int, ignore_class: int | None = None) -> list[keras.metrics.Metric]:
    """Returns the usual metrics of a task for a model that returns logits: accuracy and, for masks, the mean IoU.

    The accuracy of a segmentation counts pixels. For a single output, Keras' own `"accuracy"` tests whether the
    output exceeds 0.5. This is right for a probability, but a logit predicts the foreground if it is above 0.

    Args:
        task: `"classification"` or `"segmentation"`.
        num_classes: Int above 0. The number of outputs of the model; 1 means one logit of a binary task.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.

    Returns:
        New `keras.metrics.Metric` objects.

    Raises:
        ValueError: If there is no such task.

    Example:
    >>> from dropzoo import training
    >>> [metric.name for metric in training.default_metrics("segmentation", 11)]
    ['accuracy', 'mean_iou']
    """
    check_choice(task, "task", ("classification", "segmentation"))
    metrics: list[keras.metrics.Metric]
    if ignore_class is not None:
        metrics = [_Accuracy(ignore_class)]
    elif num_classes == 1:
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    else:
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [*metrics, MeanIoU(num_classes, ignore_class)] if task == "segmentation" else metrics


@keras.saving.register_keras_serializable(package="dropzoo")
class _Accuracy(keras.metrics.Mean):
    """Accuracy from logits, without the ignored label, which Keras' own accuracy counts as wrong."""

    def __init__(
        self, ignore_class: int, name: str = "accuracy", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class

    def update_state(self, y_true: Values, y_pred: Values, sample_weight: Values | None = None) -> None:
        labels, logits, weights = flatten(y_true, y_pred, sample_weight)
        counts = ops.cast(ops.not_equal(labels, self.ignore_class), weights.dtype)
        super().update_state(ops.equal(predicted_classes(logits), labels), counts * weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}
