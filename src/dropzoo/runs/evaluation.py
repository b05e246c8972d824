"""Evaluates a model, in one pass or averaged over Monte-Carlo samples, on clean and on corrupted images."""

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving, training
from dropzoo.common.checks import unknown
from dropzoo.runs.figures import Corrupted, Figures
from dropzoo.runs.inputs import fed, feeding
from dropzoo.runs.scores import Sample, Scores
from dropzoo.serving.montecarlo import reader
from dropzoo.training.loop.feeds import unreadable_named

#: A function from images `(batch, height, width, channels)` to log-probabilities `(batch, ..., classes)`.
LogProbabilities = Callable[[tf.Tensor], tf.Tensor]
#: A predictor that averages several passes of a model, or of several models.
Sampler = serving.MonteCarlo | serving.Ensemble | serving.TestTimeAugmentation
#: A function that iterates over a sequence and shows the progress.
Track = Callable[[Sequence[tuple[str, int]]], Iterable[tuple[str, int]]]


def evaluate(
    model: keras.Model,
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    monte_carlo: serving.MonteCarlo | None = None,
) -> Figures:
    """Returns the figures of a model over all images, or pixels, of a data set.

    Args:
        model: A model of `info.num_classes` classes that returns logits or ends in a softmax.
        dataset: Batches of `(images, labels)` or `(images, masks)`.
        info: The facts of the data set.
        monte_carlo: `MonteCarlo` whose mean over samples is evaluated; None for one deterministic pass.

    Raises:
        ValueError: If the data set is empty, or if the model's output does not give one class of several.
    """
    return score(log_probabilities(model, monte_carlo), dataset, Scores(info)).figures()


def evaluate_with(predictor: Sampler, dataset: tf.data.Dataset, info: training.DataInfo) -> Figures:
    """Returns the figures of the mean of samples or members over a data set; `evaluate` describes the rest."""
    return score(log_of_mean(predictor), dataset, Scores(info)).figures()


def log_of_mean(predictor: Sampler) -> LogProbabilities:
    """Returns the function from images in [0, 1] to the log of the mean of samples or members."""
    feed = feeding(predictor.model)
    return lambda images: reader.log_of_probabilities(predictor(feed(images))["mean"])


def log_probabilities(
    model: keras.Model, monte_carlo: serving.MonteCarlo | None = None, from_logits: bool | None = None
) -> LogProbabilities:
    """Returns the function that predicts in one deterministic pass, or by the mean over samples.

    The function takes images in [0, 1] and scales them to the range of the model.
    """
    if monte_carlo is not None:
        return log_of_mean(monte_carlo)
    feed = feeding(model)
    log_p = reader.LogProbabilities(model, from_logits)
    return lambda images: log_p(feed(images))


def score(predict: LogProbabilities, dataset: tf.data.Dataset, scores: Scores) -> Scores:
    """Adds what `predict` returns for a data set to `scores`, and returns them."""
    with unreadable_named(dataset):
        for images, labels in dataset:
            scores.add(labels, predict(images))
    return scores


def title_of(predictor: Sampler) -> str:
    """Returns the title of the column of a predictor."""
    if isinstance(predictor, serving.Ensemble):
        samples = f", {predictor.num_samples} samples" if predictor.samplers else ""
        return f"ensemble of {len(predictor.models)}{samples}"
    return f"Monte Carlo, {predictor.num_samples} samples"


def with_temperature(predictor: Sampler, data: training.Data) -> tuple[str, LogProbabilities]:
    """Returns a predictor at the temperature that fits the validation images best, and its title.

    The temperature divides the logits of each sample.

    Args:
        predictor: Samples or an ensemble.
        data: The data, with validation images.
    """
    model, said = predictor.model, predictor.from_logits
    found = serving.calibrate(
        predictor, fed(data.validation, model), ignore_class=data.info.ignore_class, verbose=0
    )
    scaled: Sampler
    if isinstance(predictor, serving.Ensemble):
        scaled = serving.Ensemble(predictor.models, from_logits=said, calibration=found)
    else:
        scaled = serving.MonteCarlo(model, from_logits=said, calibration=found)
    return f"{title_of(predictor)}, T = {found.temperature:.2f}", log_of_mean(scaled)


def sampled(predict: LogProbabilities, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of a data set and their log-probabilities; of large masks, some random pixels."""
    sample = Sample()
    with unreadable_named(dataset):
        found = [sample(labels.numpy(), predict(images).numpy()) for images, labels in dataset]
    labels, log_p = (np.concatenate(each) for each in zip(*found, strict=True))
    return labels, log_p


def fit_temperatures(methods: dict[str, LogProbabilities], data: training.Data) -> dict[str, float]:
    """Returns, for each method, the temperature of its log-probabilities that fits the validation data best.

    Raises:
        ValueError: If there are no validation images to fit on, or no test images to judge the result on.
    """
    if data.validation is None or data.test is None:
        raise ValueError(
            f"A temperature is fitted on validation images and evaluated on test images, but {data.info.name!r} "
            f"has {data.info.num_validation} validation and {data.info.num_test} test images. Both "
            "are needed: pass another --data, or train with a --validation-split"
        )
    temperatures = {}
    for title, predict in methods.items():
        labels, log_p = sampled(predict, data.validation)
        temperatures[title] = training.fit_temperature(log_p, labels, data.info.ignore_class)
    return temperatures


def score_all(
    methods: dict[str, LogProbabilities],
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    temperatures: dict[str, float] | None = None,
) -> dict[str, Scores]:
    """Returns the scores of each method, and, as "TITLE, T = 1.50", those at its temperature if it has one."""
    scores: dict[str, Scores] = {}
    for title, predict in methods.items():
        plain = scores[title] = Scores(info)
        temperature = (temperatures or {}).get(title)
        if temperature is None:
            score(predict, dataset, plain)
            continue
        scaled = scores[f"{title}, T = {temperature:.2f}"] = Scores(info)
        with unreadable_named(dataset):
            for images, labels in dataset:
                log_p = predict(images)
                plain.add(labels, log_p)
                scaled.add(labels, tf.nn.log_softmax(log_p / temperature))
    return scores


def parse_corruptions(text: str | None) -> list[str]:
    """Returns a list of the corruptions in a text: `"all"`, or names separated by commas; it is empty for None.

    Raises:
        ValueError: If a name is not that of a corruption.
    """
    if text is None:
        return []
    available = training.list_corruptions()
    names = [name.strip() for name in text.split(",")] if text != "all" else available
    for name in names:
        if name not in available:
            raise unknown("corruption", name, [*available, "all"])
    return list(dict.fromkeys(names))


def corrupted(dataset: tf.data.Dataset, name: str, severity: int) -> tf.data.Dataset:
    """Returns the data set with corrupted images, which are the same in each pass."""

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and the search is slow
    def worse(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return training.corrupt(images, name, severity), labels

    return dataset.map(worse, num_parallel_calls=tf.data.AUTOTUNE)


def score_corruptions(
    methods: dict[str, LogProbabilities],
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    names: list[str],
    track: Track = iter,
) -> Corrupted:
    """Returns the figures of each method under each corruption and severity.

    Args:
        methods: The methods of prediction by their titles.
        dataset: Batches of the images as they are.
        info: The facts of the data set.
        names: List of the names of corruptions.
        track: Function that iterates over a sequence and shows the progress.

    Returns:
        Figures by corruption and severity, from 1 to 5, and then by the title of the method.
    """
    found: Corrupted = {}
    if not names:
        return found
    scores = Scores(info)
    for name, severity in track([(name, severity) for name in names for severity in range(1, 6)]):
        worse = corrupted(dataset, name, severity)
        found[name, severity] = {
            title: score(predict, worse, scores.reset()).figures() for title, predict in methods.items()
        }
    return found
