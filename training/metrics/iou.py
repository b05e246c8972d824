"""Mean intersection over union, from logits."""

from typing import Any

import keras

from dropzoo.common.checks import check_count
from dropzoo.training.metrics.base import Values, flatten, predicted_classes


@keras.saving.register_keras_serializable(package="dropzoo")
class MeanIoU(keras.metrics.MeanIoU):
    """Mean intersection over union of the predicted classes, from logits.

    This is `keras.metrics.MeanIoU` for logits. With `sparse_y_pred=False`, Keras takes the argmax, which is always
    0 for a single logit; here a single logit predicts 1 where it is positive. Counts are float64, which is exact
    up to 2**53 pixels (Keras counts in whole numbers and truncates sample weights). Classes that are neither in
    the masks nor in the predictions do not count in the mean.

    Args:
        num_classes: Int above 0. The number of outputs of the model; 1 means one logit and counts two classes.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.
        name: Str. The name of the metric.
        dtype: Dtype of the counts.

    Raises:
        ValueError: If `num_classes` is not a positive int, or the shapes of the data do not fit.

    Call arguments:
        y_true: Int tensor `(batch, ...)` or `(batch, ..., 1)`. Labels.
        y_pred: Float tensor `(batch, ..., classes)`. Logits, or probabilities of two or more classes.
        sample_weight: Float tensor or None, `(batch,)` or one weight for each label.

    Output shape:
        A scalar in [0, 1].

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> metric = training.MeanIoU(num_classes=1)
    >>> metric.update_state(np.array([[0, 1, 1, 1]]), np.array([[[-1.0], [-1.0], [1.0], [1.0]]]))
    >>> round(float(metric.result()), 4)  # (1/2 + 2/3) / 2
    0.5833

    Reference:
        Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010, doi:10.1007/s11263-009-0275-4.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_class: int | None = None,
        name: str = "mean_iou",
        dtype: str | keras.DTypePolicy = "float64",
    ) -> None:
        counted = max(check_count(num_classes, "num_classes"), 2)
        super().__init__(counted, name=name, dtype=dtype, ignore_class=ignore_class)

    def update_state(self, y_true: Values, y_pred: Values, sample_weight: Values | None = None) -> None:
        labels, logits, weights = flatten(y_true, y_pred, sample_weight)
        super().update_state(labels, predicted_classes(logits), weights)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: config[name] for name in ("num_classes", "ignore_class", "name", "dtype")}
