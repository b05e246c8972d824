"""The loss that a task gets when none is given."""

import keras

from dropzoo.common.checks import check_choice
from dropzoo.training.losses.cross_entropy import SmoothedCrossEntropy, check_smoothing
from dropzoo.training.losses.dice import DiceCrossEntropy


def default_loss(
    task: str, num_classes: int, label_smoothing: float = 0.0, ignore_class: int | None = None
) -> keras.losses.Loss:
    """Returns the usual loss of a task for a model that returns logits.

    It is `DiceCrossEntropy` for segmentation and cross-entropy for classification.

    Args:
        task: `"classification"` or `"segmentation"`.
        num_classes: Int above 0. The number of outputs of the model; 1 means one logit of a binary task.
        label_smoothing: Float in [0, 1), see `SmoothedCrossEntropy`.
        ignore_class: Int, for example 255, or None. For segmentation: pixels with this label do not count.

    Returns:
        A new `keras.losses.Loss`.

    Raises:
        ValueError: If there is no such task, or `label_smoothing` is not in [0, 1).

    Example:
    >>> from dropzoo import training
    >>> training.default_loss("segmentation", 11).name
    'dice_cross_entropy'
    """
    check_choice(task, "task", ("classification", "segmentation"))
    smoothing = check_smoothing(label_smoothing)
    if task == "segmentation":
        return DiceCrossEntropy(label_smoothing=smoothing, ignore_class=ignore_class)
    if num_classes == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    if smoothing:
        return SmoothedCrossEntropy(smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
