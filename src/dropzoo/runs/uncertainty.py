"""What an evaluation shows of the uncertainty: the images at both ends of it, and those of another data set."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from dropzoo import serving, training
from dropzoo.pages import pictures
from dropzoo.runs.evaluation import Predict

MEASURES = ("predictive_entropy", "mutual_information")


@dataclass(frozen=True)
class Example:
    """One image with its label or mask, and the figures of `MonteCarlo` for it."""

    image: np.ndarray
    label: np.ndarray
    figures: dict[str, np.ndarray]
    entropy: float  # for segmentation the mean over the pixels


@dataclass(frozen=True)
class Uncertainty:
    """Of a data set: each measure of all images, `(images,)`, and the examples at both ends of the entropy."""

    measures: dict[str, np.ndarray]
    most_certain: list[Example]  # the surest first
    least_certain: list[Example]  # the least sure first


def sample_all(mc: serving.MonteCarlo, dataset: tf.data.Dataset, keep: int = 6) -> Uncertainty:
    """Samples a whole data set, batch by batch, and keeps the `keep` examples of each end."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    sure: list[Example] = []
    unsure: list[Example] = []
    for images, labels in dataset:
        figures = {name: value.numpy() for name, value in mc(images).items()}
        for name in MEASURES:
            found[name].append(per_image(figures[name]))
        entropy = found["predictive_entropy"][-1]
        order = np.argsort(entropy, kind="stable")
        for kept, rows, sign in ((sure, order[:keep], 1), (unsure, order[::-1][:keep], -1)):
            for i in rows:
                each = {name: value[i] for name, value in figures.items()}
                kept.append(Example(images[i].numpy(), labels[i].numpy(), each, float(entropy[i])))
            kept.sort(key=lambda example: sign * example.entropy)
            del kept[keep:]
    measures = {name: np.concatenate(parts) for name, parts in found.items()}
    return Uncertainty(measures, sure, unsure)


def per_image(values: np.ndarray) -> np.ndarray:
    """The mean over all axes but the first."""
    return values.reshape(len(values), -1).mean(1)


def entropies(predict: Predict, dataset: tf.data.Dataset) -> np.ndarray:
    """The entropy of each image's prediction, `(images,)`."""
    parts = []
    for images, _ in dataset:
        log_p = predict(images)
        parts.append(per_image(-tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), -1).numpy()))
    return np.concatenate(parts)


def load_foreign(
    name: str, own: training.Data, batch_size: int, manual_dir: str | None = None
) -> tuple[tf.data.Dataset, str]:
    """Another data set's images, as a model of `own` takes them: resized, turned grey or to RGB.

    Returns:
        Batches, and which of the set's splits they are.

    Raises:
        ValueError: for the same data set, and for channels that cannot be brought to the model's.
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
        return data.test, "test"
    return (data.validation, "validation") if data.validation is not None else (data.train.at_epoch(0), "training")


def ood_aurocs(
    mc: serving.MonteCarlo, deterministic: Predict, own: Uncertainty, dataset: tf.data.Dataset, foreign: Any
) -> dict[str, float]:
    """How well each measure tells `foreign` images from those of `dataset`: `training.ood_auroc` by its title."""
    other = sample_all(mc, foreign, keep=0)
    known = {"entropy, deterministic": entropies(deterministic, dataset)}
    strange = {"entropy, deterministic": entropies(deterministic, foreign)}
    for name in MEASURES:
        title = f"{name.replace('_', ' ')}, Monte Carlo"
        known[title], strange[title] = own.measures[name], other.measures[name]
    return {title: training.ood_auroc(values, strange[title]) for title, values in known.items()}


def overlays(found: Uncertainty, info: training.DataInfo) -> dict[str, Figure]:
    """A picture of the images at each end: `least_certain` and `most_certain`."""
    made = {}
    for name, examples in (("least_certain", found.least_certain), ("most_certain", found.most_certain)):
        images, labels = [e.image for e in examples], [e.label for e in examples]
        figures = {key: [e.figures[key] for e in examples] for key in examples[0].figures}
        if info.task == "segmentation":
            made[name] = pictures.masks(images, labels, figures)
        else:
            made[name] = pictures.class_probabilities(images, labels, figures, info.class_names)
    return made
