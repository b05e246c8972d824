"""Predictions for image files, from a run's folder, a `.keras` file or a SavedModel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.runs.files import read_json
from dropzoo.runs.run import load_run
from dropzoo.serving.export.signatures import takes_integers
from dropzoo.serving.montecarlo.sampler import check_single
from dropzoo.serving.montecarlo.statistics import check_kind, probabilities_of
from dropzoo.training.data.images import read_images


@dataclass(frozen=True)
class Predictor:
    """A model ready for images.

    Attributes:
        predict: From float32 images in [0, 1], `(batch, height, width, channels)`, to arrays: `mean`
            (probabilities, of two classes where the model gives one) and, where the model has dropout, `variance`,
            `predictive_entropy` and `mutual_information`.
        input_shape: `(height, width, channels)`, None where any size will do.
        class_names: As far as known.
    """

    predict: Callable[[np.ndarray], dict[str, np.ndarray]]
    input_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...] | None

    def read(self, path: Path) -> np.ndarray:
        """An image file as this model takes it: its channels, and its size where that is fixed."""
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


def load_predictor(path: Path, num_samples: int = 30, seed: int = 0) -> Predictor:
    """Loads whatever `path` is; a folder of versions means the newest.

    Raises:
        ValueError: if it is nothing of the kind.
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
            f"Here images are in [0, 1], but the model takes {model.inputs[0].dtype}. Export it first"
        )
    if any(map(layers.is_stochastic, model._flatten_layers(include_self=False))):
        sample = serving.MonteCarlo(model, num_samples=num_samples, seed=seed)

        def predict(images: np.ndarray) -> dict[str, np.ndarray]:
            return _two_classes({name: value.numpy() for name, value in sample(images).items()})
    else:  # one deterministic pass
        check_kind("multi_class", model)
        probabilities = probabilities_of(model)

        def predict(images: np.ndarray) -> dict[str, np.ndarray]:
            return _two_classes({"mean": probabilities(model(images, training=False)).numpy()})

    return Predictor(predict, model.input_shape[1:], class_names)


def _from_saved_model(path: Path) -> Predictor:
    told = path / "assets.extra" / "info.json"
    info = read_json(told) if told.exists() else {}
    if (task := info.get("task", "multi_class")) not in ("multi_class", "binary"):
        raise ValueError(
            f"Here an image gets one class; the export {path} is for task={task!r}. Ask its server: dropzoo serve"
        )
    loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    specs = signatures["serving_default"].structured_input_signature[1]
    spec = specs["images"]

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        given = tf.cast(np.rint(images * 255) if spec.dtype == tf.uint8 else images, spec.dtype)
        if "predict_mc" not in signatures:
            return _two_classes({"mean": signatures["serving_default"](images=given)["probabilities"].numpy()})
        found = signatures["predict_mc"](images=given)
        return _two_classes({name: value.numpy() for name, value in found.items()})

    predict.loaded = loaded  # type: ignore[attr-defined]  # signatures die with what they were loaded from
    names = tuple(info["class_names"]) if info.get("class_names") else None
    return Predictor(predict, tuple(spec.shape[1:]), names)


def _two_classes(figures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One probability is that of the second of two classes."""
    if figures["mean"].shape[-1] > 1:
        return figures
    both = {"mean": np.concatenate([1 - figures["mean"], figures["mean"]], -1)}
    if "variance" in figures:
        both["variance"] = np.repeat(figures["variance"], 2, -1)
    return figures | both


def label(probabilities: np.ndarray, names: tuple[str, ...] | None) -> tuple[str, float]:
    """The likeliest class's name and probability."""
    best = int(np.argmax(probabilities))
    return names[best] if names else str(best), float(probabilities[best])


def as_dict(predictor: Predictor, image: np.ndarray) -> dict[str, Any]:
    """The predictions for one image, without the batch axis."""
    return {name: value[0] for name, value in predictor.predict(image[None]).items()}
