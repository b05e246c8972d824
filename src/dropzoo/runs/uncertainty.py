"""The uncertainty of a model on whole data sets: its most and least certain images, and foreign images."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dropzoo import training
from dropzoo.common.pixels import Pixels
from dropzoo.common.words import count_of
from dropzoo.runs.evaluation import LogProbabilities, Sampler, title_of
from dropzoo.runs.inputs import check_bits, feeding
from dropzoo.runs.scores import entropy
from dropzoo.runs.settings import Settings
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.sources import find_folder

MEASURES = ("predictive_entropy", "mutual_information")


@dataclass(frozen=True)
class Example:
    """An image and what the model predicts for it.

    Attributes:
        image: Array `(height, width, channels)`.
        label: Array of its class, `()`, or its mask, `(height, width)`.
        answer: Dict of the arrays that the sampler returns, without the batch axis.
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
        most_certain: Examples of the least entropy, the most certain first.
        least_certain: Examples of the most entropy, the least certain first.
    """

    measures: dict[str, np.ndarray]
    most_certain: list[Example]
    least_certain: list[Example]


class Foreign(NamedTuple):
    """Images of another data set: its name, the name of their split, and their batches."""

    name: str
    split: str
    batches: tf.data.Dataset


def sample_all(sampler: Sampler, dataset: tf.data.Dataset, keep: int = 6) -> Uncertainty:
    """Samples a whole data set, batch by batch, and keeps the `keep` most and the `keep` least certain images."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    sure: list[Example] = []
    unsure: list[Example] = []
    feed = feeding(sampler.model)
    for images, labels in dataset:
        answers = {name: value.numpy() for name, value in sampler(feed(images)).items()}
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
    """Returns the mean over all axes except the first."""
    return values.reshape(len(values), -1).mean(1)


def entropies(predict: LogProbabilities, dataset: tf.data.Dataset) -> np.ndarray:
    """Returns the entropy of each image's prediction, `(images,)`."""
    return np.concatenate([per_image(entropy(predict(images)).numpy()) for images, _ in dataset])


def load_foreign(
    name: str, own: training.Data, config: Settings, taken: Pixels, manual_dir: str | None = None
) -> Foreign:
    """Loads the images of another data set as the model takes them: resized, and converted to grey or RGB.

    The stored values that are black and white, and the meaning of pages and of masks, are those of the model's own
    data. Otherwise the uncertainty would distinguish the scales of the two data sets, and not their images.

    Args:
        name: Str, a data set or a folder, as for `load_data`.
        own: The data of the model.
        config: The settings that say how the own data were loaded.
        taken: The images that the model takes.
        manual_dir: Str, a folder with the archives of the other data set, or None.

    Returns:
        The test images if there are any; then the validation images; otherwise the training images.

    Raises:
        ValueError: If it is the model's own data set, if its channels cannot be converted to the model's, or if
            its images have 8 bits and the model takes 16.
    """
    height, width, channels = own.info.input_shape
    if height is None or width is None:
        height, width = next(iter(own.test or own.train))[0].shape[1:3]
    convert = channels if channels in (1, 3) else None
    options: dict[str, Any] = {"image_size": (height, width), "num_channels": convert, "manual_dir": manual_dir}
    if folder := find_folder(name):
        options |= _reading_as(config, taken, folder)
    data = training.load_data(name, batch_size=config.batch_size, **options)
    if _is_same(data, own):
        raise ValueError(f"`--ood` must be a different data set from that of the run. Received: {name!r}")
    check_bits(taken, data.info)
    if data.info.input_shape[2] != channels:
        raise ValueError(
            f"The images of {name!r} have {count_of(data.info.input_shape[2], 'channel')}, but the model "
            f"takes {channels}. Pass another data set"
        )
    if data.test is not None:
        return Foreign(name, "test", data.test)
    if data.validation is not None:
        return Foreign(name, "validation", data.validation)
    return Foreign(name, "training", data.train.at_epoch(0))


def _reading_as(config: Settings, taken: Pixels, folder: Path) -> dict[str, Any]:
    """Returns how the files of another folder are read, so that they mean what those of the own data mean."""
    names = ["pages"]
    if read_layout(folder, Reading()).task == "segmentation":
        names += ["masks_as", "ignore_class"]
    return {**{name: getattr(config, name) for name in names}, "value_range": config.value_range or taken.stored}


def _is_same(data: training.Data, own: training.Data) -> bool:
    """Returns whether two data sets are one folder, or have one name if they are not folders."""
    places = [None if each.summary is None else os.path.realpath(each.summary.place) for each in (data, own)]
    return places[0] == places[1] and (places[0] is not None or data.info.name == own.info.name)


def ood_aurocs(
    sampler: Sampler,
    deterministic: LogProbabilities,
    own: Uncertainty,
    dataset: tf.data.Dataset,
    foreign: tf.data.Dataset,
) -> dict[str, float]:
    """Returns, by title, the `training.ood_auroc` of each measure, for `foreign` images and `dataset`."""
    other = sample_all(sampler, foreign, keep=0)
    known = {"entropy, deterministic": entropies(deterministic, dataset)}
    strange = {"entropy, deterministic": entropies(deterministic, foreign)}
    for name in MEASURES:
        title = f"{name.replace('_', ' ')}, {title_of(sampler)}"
        known[title], strange[title] = own.measures[name], other.measures[name]
    return {title: training.ood_auroc(values, strange[title]) for title, values in known.items()}
