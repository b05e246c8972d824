"""How good a model is, deterministic or averaged over Monte-Carlo samples."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving, training


def evaluate(
    model: keras.Model,
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    monte_carlo: serving.MonteCarlo | None = None,
) -> dict[str, Any]:
    """Figures over all images, or pixels, of a data set.

    Args:
        model: gives logits of `info.num_classes` classes.
        dataset: batches of `(images, labels)` or `(images, masks)`.
        info: of the data set.
        monte_carlo: predict by its mean over samples instead of one deterministic pass.

    Returns:
        `accuracy`; for segmentation `mean_iou` (over the classes that occur) and `iou` for each class; `nll` in
        nats and `ece` (15 equal bins), by pixel where there are pixels; `count`, of images.
    """
    predict = _log_probabilities(model, monte_carlo)
    calibration = training.ExpectedCalibrationError()
    confusion = np.zeros((info.num_classes, info.num_classes), "int64")
    nll, count = 0.0, 0
    for images, labels in dataset:
        log_p = predict(images)
        classes = np.argmax(log_p, -1)
        cells = np.ravel(labels) * info.num_classes + classes.ravel()
        confusion += np.bincount(cells, minlength=confusion.size).reshape(confusion.shape)
        nll -= float(np.take_along_axis(log_p.numpy(), labels.numpy()[..., None], -1).sum())
        calibration.update_state(labels, log_p)  # the softmax of log p is p
        count += len(images)
    if not count:
        raise ValueError(f"There are no images to evaluate on in {info.name!r}")
    results: dict[str, Any] = {"accuracy": float(confusion.trace() / confusion.sum())}
    if info.task == "segmentation":
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        iou = [float(c / u) if u else None for c, u in zip(confusion.diagonal(), union, strict=True)]
        results["mean_iou"] = float(np.mean([value for value in iou if value is not None]))
        results["iou"] = dict(zip(info.class_names, iou, strict=True))
    return {**results, "nll": nll / confusion.sum(), "ece": float(calibration.result()), "count": count}


def _log_probabilities(
    model: keras.Model, monte_carlo: serving.MonteCarlo | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    if monte_carlo is not None:
        return lambda images: tf.math.log(monte_carlo(images)["mean"] + 1e-12)
    return tf.function(lambda images: tf.nn.log_softmax(model(images, training=False)), reduce_retracing=True)
