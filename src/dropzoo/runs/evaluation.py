"""How good a model is, deterministic or averaged over Monte-Carlo samples: clean, scaled and corrupted."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving, training
from dropzoo.common.checks import unknown
from dropzoo.runs.scores import Sample, Scores
from dropzoo.serving.montecarlo.statistics import log_probabilities_of

#: Log-probabilities (batch, ..., classes) of images.
Predict = Callable[[tf.Tensor], tf.Tensor]


def evaluate(
    model: keras.Model,
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    monte_carlo: serving.MonteCarlo | None = None,
) -> dict[str, Any]:
    """Figures over all images, or pixels, of a data set.

    Args:
        model: of `info.num_classes` classes, in logits or behind a softmax.
        dataset: batches of `(images, labels)` or `(images, masks)`.
        info: of the data set.
        monte_carlo: predict by its mean over samples instead of one deterministic pass.

    Returns:
        `accuracy`; for segmentation `mean_iou` (over the classes that occur) and `iou` for each class; `nll` in
        nats, `brier`, `ece` (15 equal bins), `ece_adaptive` (15 bins of equal mass) and `ece_classwise`, by pixel
        where there are pixels; `aurc`, the area under the risk-coverage curve, and `error_auroc`, both with the
        entropy of the prediction as its uncertainty, and of large masks on 4,096 pixels an image; None for
        `error_auroc` without a single error, and for both where the model gives NaN; `count`, of images.
    """
    return score(log_probabilities(model, monte_carlo), dataset, Scores(info)).figures()


def log_probabilities(model: keras.Model, monte_carlo: serving.MonteCarlo | None = None) -> Predict:
    """Predicts in one deterministic pass, or by the mean over samples."""
    if monte_carlo is not None:
        return lambda images: tf.math.log(monte_carlo(images)["mean"] + 1e-12)
    log_p = log_probabilities_of(model)

    def predict(images: tf.Tensor) -> tf.Tensor:
        return log_p(model(images, training=False))

    return tf.function(predict, reduce_retracing=True)


def score(predict: Predict, dataset: tf.data.Dataset, scores: Scores) -> Scores:
    """Adds `predict` on a data set to `scores`, and returns them."""
    for images, labels in dataset:
        scores.add(labels, predict(images))
    return scores


def predictors(model: keras.Model, mc: int = 0) -> dict[str, Predict]:
    """By title: one deterministic pass and, where `mc` is not 0, the mean over so many Monte-Carlo samples."""
    by_title = {"deterministic": log_probabilities(model)}
    if mc:
        sampled = serving.MonteCarlo(model, num_samples=mc)
        by_title[f"Monte Carlo, {mc} samples"] = log_probabilities(model, sampled)
    return by_title


def fit_temperatures(found: dict[str, Predict], data: training.Data) -> dict[str, float]:
    """The temperature at which each predictor fits the validation data best.

    The log of a Monte-Carlo mean is scaled like the log-probabilities of one pass.

    Raises:
        ValueError: without validation data to fit on, or test data to see on whether it helps.
    """
    if data.validation is None or data.test is None:
        raise ValueError(
            f"A temperature is fitted on validation images and judged on test images. {data.info.name!r} has "
            f"{data.info.num_validation} and {data.info.num_test} here; train with a --validation-split"
        )
    temperatures = {}
    for title, predict in found.items():
        sample, fitted = Sample(), []
        for images, labels in data.validation:
            fitted.append(sample(labels.numpy(), predict(images).numpy()))
        labels, log_p = (np.concatenate(each) for each in zip(*fitted, strict=True))
        temperatures[title] = training.fit_temperature(log_p, labels)
    return temperatures


def score_all(
    found: dict[str, Predict],
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    temperatures: dict[str, float] | None = None,
) -> dict[str, Scores]:
    """Scores by title and, as "TITLE, T = 1.50", of the same predictions at the temperature given for them."""
    scores: dict[str, Scores] = {}
    for title, predict in found.items():
        plain = scores[title] = Scores(info)
        temperature = (temperatures or {}).get(title)
        if temperature is None:
            score(predict, dataset, plain)
            continue
        scaled = scores[f"{title}, T = {temperature:.2f}"] = Scores(info)
        for images, labels in dataset:
            log_p = predict(images)
            plain.add(labels, log_p)
            scaled.add(labels, tf.nn.log_softmax(log_p / temperature))
    return scores


def parse_corruptions(text: str) -> list[str]:
    """`"all"`, or names with commas between, as a list of names."""
    available = training.list_corruptions()
    names = [name.strip() for name in text.split(",")] if text != "all" else available
    for name in names:
        if name not in available:
            raise unknown("corruption", name, [*available, "all"])
    return list(dict.fromkeys(names))


def corrupted(dataset: tf.data.Dataset, name: str, severity: int) -> tf.data.Dataset:
    """The data set with its images corrupted, the same in each pass."""

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and to look is slow
    def worse(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return training.corrupt(images, name, severity), labels

    return dataset.map(worse, num_parallel_calls=tf.data.AUTOTUNE)


def score_corruptions(
    predictors: dict[str, Predict],
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    names: list[str],
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """Figures of several predictors under each corruption and severity: by (name, severity), then predictor.

    `track` shows how far it is.
    """
    scores = Scores(info)
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for name, severity in track([(name, severity) for name in names for severity in range(1, 6)]):
        worse = corrupted(dataset, name, severity)
        found[name, severity] = {
            title: score(predict, worse, scores.reset()).figures() for title, predict in predictors.items()
        }
    return found
