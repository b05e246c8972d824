"""Predictions for image files, from a run's folder, a `.keras` file or a SavedModel."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving
from dropzoo.common.pixels import Pixels, check_range
from dropzoo.models.graph.record import load_model, taken_by
from dropzoo.runs.files import read_json
from dropzoo.runs.inputs import feeding, feeding_of, settle_range
from dropzoo.runs.run import load_run
from dropzoo.serving.montecarlo.active import NothingDraws
from dropzoo.serving.montecarlo.reader import Reader, check_single
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
        pixels: The range of the images that the model takes.
    """

    predict: Callable[[np.ndarray], Arrays]
    input_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...] | None
    pixels: Pixels

    def read(self, path: Path) -> np.ndarray:
        """Returns an image file as this model takes it: float32 `(height, width, channels)` in [0, 1].

        Raises:
            ValueError: If the file is no image, if its channels cannot be converted to those of the model, or if
                it has 8 bits and the model takes 16.
        """
        (image,) = read_images([path])
        if self.pixels.bits == 16 and image.dtype == np.uint8:
            raise ValueError(
                f"The model takes images of 16 bits, with pixels from {self.pixels.words}. Received: {path} of 8 "
                "bits. Pass the original file of 16 bits"
            )
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


def load_predictor(
    path: Path,
    num_samples: int = 30,
    seed: int = 0,
    input_range: tuple[float, float] | None = None,
    from_logits: bool | None = None,
    say: Callable[[str], None] = print,
) -> Predictor:
    """Loads a model that predicts image files.

    Args:
        path: Path of a run's folder, a `.keras` file, a SavedModel, or a folder of versions of one, whose newest
            is loaded.
        num_samples: Int, the number of Monte-Carlo samples. A SavedModel has its own number.
        seed: Int in [0, 2**32), the seed of the samples.
        input_range: `(low, high)`, the range of the pixels that the model takes; None to find out.
        from_logits: Bool, whether the model's output is logits, as for `MonteCarlo`; None to find out.
        say: Function that prints a line.

    Raises:
        ValueError: If `path` is none of these, or its model does not predict one class for an image or pixel.
    """
    if (path / "run.json").exists():
        model, _, info = load_run(path)
        settle_range(model, input_range, say)
        return _from_keras(model, num_samples, seed, info.class_names, from_logits)
    if path.suffix == ".keras" and path.is_file():
        model = load_model(path)
        check_single(model)
        settle_range(model, input_range, say)
        return _from_keras(model, num_samples, seed, None, from_logits)
    versions = [p for p in path.glob("*/saved_model.pb") if p.parent.name.isdigit()] if path.is_dir() else []
    if versions and not (path / "saved_model.pb").exists():
        path = max(versions, key=lambda p: int(p.parent.name)).parent
    if (path / "saved_model.pb").exists():
        if from_logits is not None:
            raise ValueError(f"An export knows whether its output is logits. Leave out `from_logits` for {path}")
        return _from_saved_model(path, input_range)
    raise ValueError(f"Expected a run's folder, a .keras file or a SavedModel. Received: {path}")


def _from_keras(
    model: keras.Model,
    num_samples: int,
    seed: int,
    class_names: tuple[str, ...] | None,
    from_logits: bool | None,
) -> Predictor:
    check_single(model)
    feed = feeding(model)
    try:
        sample = serving.MonteCarlo(model, num_samples=num_samples, seed=seed, from_logits=from_logits)
    except NothingDraws:
        reader = Reader(model, from_logits=from_logits)

        def predict(images: np.ndarray) -> Arrays:
            (mean,) = reader.read(reader.call(reader.check(feed(images))))
            return _two_classes({"mean": mean.numpy()})
    else:

        def predict(images: np.ndarray) -> Arrays:
            return _two_classes({name: value.numpy() for name, value in sample(feed(images)).items()})

    return Predictor(predict, model.input_shape[1:], class_names, taken_by(model))


def _from_saved_model(path: Path, input_range: tuple[float, float] | None) -> Predictor:
    facts = path / "assets.extra" / "info.json"
    info = read_json(facts) if facts.exists() else {}
    if (task := info.get("task", "multi_class")) not in ("multi_class", "binary"):
        raise ValueError(
            f"An image or pixel gets one class here, but the export {path} has task={task!r}. Use: dropzoo serve"
        )
    loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    specs = signatures["serving_default"].structured_input_signature[1]
    if list(specs) != ["images"] or len(info.get("outputs") or [{}]) > 1:
        raise ValueError(
            f"Expected one image input and one output. Received: {path}, which takes "
            f"{', '.join(sorted(specs))} and returns "
            f"{', '.join(sorted(signatures['serving_default'].structured_outputs))}. Use: dropzoo serve"
        )
    spec = specs["images"]

    pixels = _pixels_of_export(path, info, input_range)
    pixels.check_files()
    # An export scales images of integers itself.
    stored = dataclasses.replace(pixels, low=0.0, high=float(spec.dtype.max)) if spec.dtype.is_integer else pixels
    feed = feeding_of(stored, spec.dtype.name)

    def predict(images: np.ndarray) -> Arrays:
        given = feed(tf.constant(images))
        if "predict_mc" not in signatures:
            return _two_classes({"mean": signatures["serving_default"](images=given)["probabilities"].numpy()})
        found = signatures["predict_mc"](images=given)
        return _two_classes({name: value.numpy() for name, value in found.items()})

    predict.loaded = loaded  # type: ignore[attr-defined]  # signatures die with the object that they were loaded from
    names = tuple(info["class_names"]) if info.get("class_names") else None
    return Predictor(predict, tuple(spec.shape[1:]), names, pixels)


def _pixels_of_export(path: Path, info: dict[str, Any], said: tuple[float, float] | None) -> Pixels:
    """Returns the range that an export takes: that of its `info.json`, or else `said`."""
    inputs = info.get("inputs") or [{}]
    pixels = Pixels(**inputs[0].get("pixels") or {})
    if said is None or check_range(said) == pixels.range:
        return pixels
    if pixels.source and pixels.from_files:
        raise ValueError(
            f"The export {path} takes pixels from {pixels.words}. Received: --input-range {said!r}. Leave it out"
        )
    return pixels.of_range(*check_range(said))


def _two_classes(answers: Arrays) -> Arrays:
    """Turns a single probability, that of the second of two classes, into both."""
    if answers["mean"].shape[-1] > 1:
        return answers
    both = {"mean": np.concatenate([1 - answers["mean"], answers["mean"]], -1)}
    if "variance" in answers:
        both["variance"] = np.repeat(answers["variance"], 2, -1)
    return answers | both
