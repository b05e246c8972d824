"""Predictions for image files, from a run's folder, a `.keras` file or a SavedModel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.runs.files import read_json
from dropzoo.runs.run import load_run
from dropzoo.serving.export.signatures import takes_integers
from dropzoo.serving.montecarlo.reader import check_single, probabilities_of
from dropzoo.training.data.images import read_images

#: What `MonteCarlo` returns, as arrays by name.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Predictor:
    """A model that predicts image files.

    Attributes:
        predict: Function from float32 images in [0, 1], `(batch, height, width, channels)`, to a dict of arrays:
            the probabilities `mean` and, if the model has dropout, `variance`, `predictive_entropy` and
            `mutual_information`. A model with a single output unit gives the probabilities of two classes.
        input_shape: `(height, width, channels)`, with None for a size that is not fixed.
        class_names: Tuple of the names of the classes; None if they are not known.
    """

    predict: Callable[[np.ndarray], Arrays]
    input_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...] | None

    def read(self, path: Path) -> np.ndarray:
        """Returns an image file as this model takes it: float32 `(height, width, channels)` in [0, 1].

        Raises:
            ValueError: If the file is no image, or if its channels cannot be converted to those of the model.
        """
        (image,) = read_images([path])
        scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
        pixels = tf.constant(image, tf.float32) / scale
        *size, channels = self.input_shape
        if pixels.shape[-1] != channels:
            if {int(pixels.shape[-1]), channels} != {1, 3}:
                raise ValueError(f"{path} has {pixels.shape[-1]} channels, but the model takes {channels}")
            pixels = tf.image.rgb_to_grayscale(pixels) if channels == 1 else tf.image.grayscale_to_rgb(pixels)
        if None not in size and tuple(pixels.shape[:2]) != tuple(size):
            pixels = tf.clip_by_value(tf.image.resize(pixels, size, antialias=True), 0, 1)
        return pixels.numpy()

    def answer(self, image: np.ndarray) -> Arrays:
        """Returns what `predict` returns for one image, without the batch."""
        return {name: value[0] for name, value in self.predict(image[None]).items()}

    def label(self, probabilities: np.ndarray) -> tuple[str, float]:
        """Returns the name and the probability of the likeliest class."""
        best = int(np.argmax(probabilities))
        return self.class_names[best] if self.class_names else str(best), float(probabilities[best])


def load_predictor(path: Path, num_samples: int = 30, seed: int = 0) -> Predictor:
    """Loads a model that predicts image files.

    Args:
        path: Path of a run's folder, a `.keras` file, a SavedModel, or a folder of versions of one, whose newest
            is loaded.
        num_samples: Int, the number of Monte-Carlo samples. A SavedModel has its own number.
        seed: Int in [0, 2**32), the seed of the samples.

    Raises:
        ValueError: If `path` is none of these, or its model does not predict one class for an image or pixel.
    """
    if (path / "run.json").exists():
        model, _, info = load_run(path)
        return _from_keras(model, num_samples, seed, info.class_names)
    if path.suffix == ".keras" and path.is_file():
        return _from_keras(keras.models.load_model(path), num_samples, seed, None)
    versions = [p for p in path.glob("*/saved_model.pb") if p.parent.name.isdigit()] if path.is_dir() else []
    if versions and not (path / "saved_model.pb").exists():
        path = max(versions, key=lambda p: int(p.parent.name)).parent
    if (path / "saved_model.pb").exists():
        return _from_saved_model(path)
    raise ValueError(f"Expected a run's folder, a .keras file or a SavedModel. Received: {path}")


def _from_keras(model: keras.Model, num_samples: int, seed: int, class_names: tuple[str, ...] | None) -> Predictor:
    check_single(model)
    if takes_integers(model):
        raise ValueError(
            f"Images are in [0, 1] here, but the model takes {model.inputs[0].dtype}. Export it first"
        )
    if layers.dropouts(model):
        sample = serving.MonteCarlo(model, num_samples=num_samples, seed=seed)

        def predict(images: np.ndarray) -> Arrays:
            return _two_classes({name: value.numpy() for name, value in sample(images).items()})
    else:
        probabilities = probabilities_of(model)

        def predict(images: np.ndarray) -> Arrays:
            return _two_classes({"mean": probabilities(model(images, training=False)).numpy()})

    return Predictor(predict, model.input_shape[1:], class_names)


def _from_saved_model(path: Path) -> Predictor:
    facts = path / "assets.extra" / "info.json"
    info = read_json(facts) if facts.exists() else {}
    if (task := info.get("task", "multi_class")) not in ("multi_class", "binary"):
        raise ValueError(
            f"An image or pixel gets one class here, but the export {path} has task={task!r}. Use: dropzoo serve"
        )
    loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    specs = signatures["serving_default"].structured_input_signature[1]
    spec = specs["images"]

    def predict(images: np.ndarray) -> Arrays:
        given = tf.cast(np.rint(images * 255) if spec.dtype == tf.uint8 else images, spec.dtype)
        if "predict_mc" not in signatures:
            return _two_classes({"mean": signatures["serving_default"](images=given)["probabilities"].numpy()})
        found = signatures["predict_mc"](images=given)
        return _two_classes({name: value.numpy() for name, value in found.items()})

    predict.loaded = loaded  # type: ignore[attr-defined]  # signatures die with the object that they were loaded from
    names = tuple(info["class_names"]) if info.get("class_names") else None
    return Predictor(predict, tuple(spec.shape[1:]), names)


def _two_classes(answers: Arrays) -> Arrays:
    """Turns a single probability, that of the second of two classes, into both."""
    if answers["mean"].shape[-1] > 1:
        return answers
    both = {"mean": np.concatenate([1 - answers["mean"], answers["mean"]], -1)}
    if "variance" in answers:
        both["variance"] = np.repeat(answers["variance"], 2, -1)
    return answers | both
