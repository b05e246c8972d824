"""The uncertainty of a model on whole data sets: its most and least certain images, and foreign images."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dropzoo import serving, training
from dropzoo.runs.evaluation import LogProbabilities
from dropzoo.runs.inputs import feeding
from dropzoo.runs.scores import entropy

MEASURES = ("predictive_entropy", "mutual_information")


@dataclass(frozen=True)
class Example:
    """An image and what the model predicts for it.

    Attributes:
        image: Array `(height, width, channels)`.
        label: Array of its class, `()`, or its mask, `(height, width)`.
        answer: Dict of the arrays that `MonteCarlo` returns, without the batch axis.
        entropy: Float, the predictive entropy in nats; for a mask, its mean over the pixels.
    """

    image: np.ndarray
    label: np.ndarray
    answer: dict[str, np.ndarray]
    entropy: float


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty on a data set.

    Attributes:
        measures: Dict with an array `(images,)` for each of `MEASURES`.
        most_certain: Examples of the least entropy, the surest first.
        least_certain: Examples of the most entropy, the least sure first.
    """

    measures: dict[str, np.ndarray]
    most_certain: list[Example]
    least_certain: list[Example]


class Foreign(NamedTuple):
    """Images of another data set: its name, the name of their split, and their batches."""

    name: str
    split: str
    batches: tf.data.Dataset


def sample_all(monte_carlo: serving.MonteCarlo, dataset: tf.data.Dataset, keep: int = 6) -> Uncertainty:
    """Samples a whole data set, batch by batch, and keeps the `keep` most and the `keep` least certain images."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    sure: list[Example] = []
    unsure: list[Example] = []
    feed = feeding(monte_carlo.model)
    for images, labels in dataset:
        answers = {name: value.numpy() for name, value in monte_carlo(feed(images)).items()}
        for name in MEASURES:
            found[name].append(per_image(answers[name]))
        entropies = found["predictive_entropy"][-1]
        order = np.argsort(entropies, kind="stable")
        for kept, rows, sign in ((sure, order[:keep], 1), (unsure, order[::-1][:keep], -1)):
            for i in rows:
                answer = {name: value[i] for name, value in answers.items()}
                kept.append(Example(images[i].numpy(), labels[i].numpy(), answer, float(entropies[i])))
            kept.sort(key=lambda example: sign * example.entropy)
            del kept[keep:]
    measures = {name: np.concatenate(parts) for name, parts in found.items()}
    return Uncertainty(measures, sure, unsure)


def per_image(values: np.ndarray) -> np.ndarray:
    """Returns the mean over all axes but the first."""
    return values.reshape(len(values), -1).mean(1)


def entropies(predict: LogProbabilities, dataset: tf.data.Dataset) -> np.ndarray:
    """Returns the entropy of each image's prediction, `(images,)`."""
    return np.concatenate([per_image(entropy(predict(images)).numpy()) for images, _ in dataset])


def load_foreign(name: str, own: training.Data, batch_size: int, manual_dir: str | None = None) -> Foreign:
    """Loads the images of another data set as the model takes them: resized, and converted to grey or RGB.

    Args:
        name: Str, a data set or a folder, as for `load_data`.
        own: The data of the model.
        batch_size: Int above 0.
        manual_dir: Str, a folder with the archives of the other data set, or None.

    Returns:
        The test images, or else the validation images, or else the training images.

    Raises:
        ValueError: If it is the model's own data set, or if its channels cannot be converted to the model's.
    """
    height, width, channels = own.info.input_shape
    if height is None or width is None:
        height, width = next(iter(own.test or own.train))[0].shape[1:3]
    convert = channels if channels in (1, 3) else None
    options: dict[str, Any] = {"image_size": (height, width), "num_channels": convert, "manual_dir": manual_dir}
    data = training.load_data(name, batch_size=batch_size, **options)
    if data.info.name == own.info.name:
        raise ValueError(f"Foreign images must be of another data set than the run's. Received: {name!r}")
    if data.info.input_shape[2] != channels:
        raise ValueError(
            f"The images of {name!r} have {data.info.input_shape[2]} channels, but the model takes {channels}"
        )
    if data.test is not None:
        return Foreign(name, "test", data.test)
    if data.validation is not None:
        return Foreign(name, "validation", data.validation)
    return Foreign(name, "training", data.train.at_epoch(0))


def ood_aurocs(
    monte_carlo: serving.MonteCarlo,
    deterministic: LogProbabilities,
    own: Uncertainty,
    dataset: tf.data.Dataset,
    foreign: tf.data.Dataset,
) -> dict[str, float]:
    """Returns, by title, how well each measure tells `foreign` images from `dataset`, as `training.ood_auroc`."""
    other = sample_all(monte_carlo, foreign, keep=0)
    known = {"entropy, deterministic": entropies(deterministic, dataset)}
    strange = {"entropy, deterministic": entropies(deterministic, foreign)}
    for name in MEASURES:
        title = f"{name.replace('_', ' ')}, Monte Carlo"
        known[title], strange[title] = own.measures[name], other.measures[name]
    return {title: training.ood_auroc(values, strange[title]) for title, values in known.items()}
