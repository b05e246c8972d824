"""Predictions for image files, from a run's folder, a `.keras` file or a SavedModel."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving
from dropzoo.common.images import image_shape
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import load_model, remember, taken_by
from dropzoo.runs.calibrations import export_folder, find_calibration
from dropzoo.runs.exported import Export, facts_of_export, pixels_of_export
from dropzoo.runs.inputs import feeding, settle_range
from dropzoo.runs.members import first_run, load_members
from dropzoo.runs.run import load_run
from dropzoo.runs.statistics import Arrays, arranged
from dropzoo.serving.montecarlo.active import NothingDraws
from dropzoo.serving.montecarlo.reader import check_single
from dropzoo.training.data.images import read_images


@dataclass(frozen=True)
class Predictor:
    """A model that predicts image files.

    Attributes:
        predict: Function from float32 images in [0, 1], `(batch, height, width, channels)`, to a dict of arrays:
            the probabilities `mean` and, if the model has dropout, `variance`, `predictive_entropy` and
            `mutual_information`. A model with a single output unit gives the probabilities of two classes. For a
            regression, `mean` is values, and there are no entropies.
            With `votes`, also `votes`, `(batch, ..., classes)`: the number of samples whose likeliest class it is,
            or that see the label. With a calibration, also the answers of its guarantees.
        input_shape: `(height, width, channels)`, with None for a size that is not fixed.
        class_names: Tuple of the names of the classes, labels or values; None if they are not known.
        pixels: The range of the images that the model takes.
        feed: Function from RGB or grey images in [0, 1] to the model's range.
        sampler: The sampler of the model, from which tiles and coherent samples can be had; None for an export.
        calibration: The calibration by which the sampler answers; None if there is none.
        num_samples: Int, the number of samples of an answer; 1 for one pass.
        is_map: Bool, whether there is an answer for each pixel.
        value_range: The values in files that become 0 and 1, if the training images had such a range; or None.
        members: The members of an ensemble, each as an ensemble of one; empty for other models.
        task: The output kind.
    """

    predict: Callable[[np.ndarray], Arrays]
    input_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...] | None
    pixels: Pixels
    feed: Callable[[tf.Tensor], tf.Tensor] | None = None
    sampler: serving.MonteCarlo | serving.Ensemble | None = None
    calibration: serving.Calibration | None = None
    num_samples: int = 1
    is_map: bool = False
    value_range: tuple[float, float] | None = None
    members: tuple[serving.Ensemble, ...] = ()
    task: str = "multi_class"

    def __post_init__(self) -> None:
        if self.value_range is None:  # runs that are older than this record have it in their config
            object.__setattr__(self, "value_range", self.pixels.stored)

    @property
    def has_classes(self) -> bool:
        """Whether an image or pixel has one class."""
        return self.task in ("multi_class", "binary")

    def read(self, path: Path) -> np.ndarray:
        """Returns an image file as this model takes it: float32 `(height, width, channels)` in [0, 1].

        Raises:
            ValueError: If the file is no image, if its channels cannot be converted to those of the model, or if
                it has 8 bits and the model takes 16.
        """
        (image,) = read_images([path], value_range=self.value_range)
        return self.sized(self.converted(image, str(path)))

    def converted(self, image: np.ndarray, name: str) -> np.ndarray:
        """Returns an image, as it is stored, as float32 in [0, 1] with the channels of this model.

        Args:
            image: Array uint8, uint16 or float32, `(height, width, channels)`.
            name: Str, the name of the image, for errors.

        Raises:
            ValueError: If its channels cannot be converted to those of the model, or if it has 8 bits and the
                model takes 16.
        """
        if self.pixels.bits == 16 and image.dtype == np.uint8:
            raise ValueError(
                f"The model takes 16-bit images, with pixels from {self.pixels.words}. Received: the 8-bit file "
                f"{name}. Pass the original 16-bit file"
            )
        scale = np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)
        pixels = image.astype(np.float32) / scale
        channels = self.input_shape[-1]
        if pixels.shape[-1] == channels:
            return pixels
        if {int(pixels.shape[-1]), channels} != {1, 3}:
            raise ValueError(f"{name} has {pixels.shape[-1]} channels, but the model takes {channels}")
        return tf.image.rgb_to_grayscale(pixels).numpy() if channels == 1 else np.repeat(pixels, 3, -1)

    def sized(self, image: np.ndarray) -> np.ndarray:
        """Returns a converted image in the size of the model, if the model has one."""
        size = self.input_shape[:2]
        if None in size or image.shape[:2] == tuple(size):
            return image
        return tf.clip_by_value(tf.image.resize(image, size, antialias=True), 0, 1).numpy()

    def answer(self, image: np.ndarray) -> Arrays:
        """Returns what `predict` returns for one image, without the batch."""
        return {name: value[0] for name, value in self.predict(image[None]).items()}

    def arranged(self, statistics: Arrays) -> Arrays:
        """Returns statistics of the sampler as `predict` returns them."""
        return arranged(statistics, self.task)

    def label(self, probabilities: np.ndarray) -> tuple[str, float]:
        """Returns the name and the probability of the likeliest class."""
        best = int(np.argmax(probabilities))
        return self.class_names[best] if self.class_names else str(best), float(probabilities[best])


def load_predictor(
    path: Path,
    num_samples: int | None = 30,
    seed: int = 0,
    input_range: tuple[float, float] | None = None,
    from_logits: bool | None = None,
    say: Callable[[str], None] = print,
    *,
    calibrated: bool = True,
    votes: bool = False,
    sampling: str = "balanced",
    task: str | None = None,
) -> Predictor:
    """Loads a model that predicts image files.

    Args:
        path: Path of the folder of a run or an ensemble, a `.keras` file, a SavedModel, or a folder of versions of
            one, whose newest is loaded.
        num_samples: Int, the number of Monte-Carlo samples. A SavedModel and a calibration have their own number.
        seed: Int in [0, 2**32), the seed of the samples.
        input_range: `(low, high)`, the range of the pixels that the model takes; None to find out.
        from_logits: Bool, whether the model's output is logits, as for `MonteCarlo`; None to find out.
        say: Function that prints a line.
        calibrated: Bool, whether to answer by the calibration of the model, if it has one.
        votes: Bool, whether answers count the samples that vote for each class. An export does not count them.
        sampling: As for `MonteCarlo`, unless a calibration says otherwise. For tiles and for samples of a whole
            image it is `"fixed"`, for which an export must hold its Keras model.
        task: The output kind of a `.keras` file, as for `MonteCarlo`; None to find out.

    Raises:
        ValueError: If `path` is none of these, or its model does not take one image and give one answer.
    """
    names: tuple[str, ...] | None = None
    export = export_folder(path)
    inside = None if export is None else export / "assets.extra" / "model.keras"
    calibration = find_calibration(path, calibrated)
    if calibration is not None and sampling == "fixed" and calibration.facts.sampling is not None:
        facts = dataclasses.replace(
            calibration.facts, sampling="fixed"
        )  # the draws differ, not what they are from
        calibration = dataclasses.replace(calibration, facts=facts)
    value_range = None
    if (path / "run.json").exists() or (path / "ensemble.json").exists():
        models = load_members(path)
        _, config, info = load_run(first_run(path))
        names, value_range = info.class_names, config.value_range
        if len(models) > 1:
            for member in models:
                settle_range(member, input_range, say)
            return _from_members(models, names, from_logits, calibration, value_range, task)
        (model,) = models
    elif path.suffix == ".keras" and path.is_file():
        model = load_model(path)
    elif export is not None and not (sampling == "fixed" and inside is not None and inside.is_file()):
        if sampling == "fixed":
            raise ValueError(
                f"Tiles and measurements need samples of the whole image, and the export {path} does not hold its "
                "Keras model, which draws them. Pass the run or the .keras file"
            )
        if from_logits is not None:
            raise ValueError(
                f"Whether the output of an export is logits was settled when it was made. Leave "
                f"out `from_logits` for {path}"
            )
        return _from_saved_model(export, input_range, task)
    elif export is not None and inside is not None:
        model = load_model(inside)
        said = facts_of_export(export)
        remember(model, pixels_of_export(export, said, input_range))
        names, input_range = tuple(said["class_names"]) if said.get("class_names") else None, None
        task = _task_of_export(export, said, task)
    else:
        raise ValueError(f"Expected a run's folder, a .keras file or a SavedModel. Received: {path}")
    check_single(model)
    settle_range(model, input_range, say)
    options: dict[str, Any] = {"seed": seed, "from_logits": from_logits, "return_samples": votes, "task": task}
    if calibration is None:
        options |= {"num_samples": 30 if num_samples is None else num_samples, "sampling": sampling}
    found = _from_keras(model, names, calibration, options)
    return dataclasses.replace(found, value_range=value_range)


def _from_members(
    models: list[keras.Model],
    class_names: tuple[str, ...] | None,
    from_logits: bool | None,
    calibration: serving.Calibration | None,
    value_range: tuple[float, float] | None,
    said: str | None,
) -> Predictor:
    feed = feeding(models[0])
    ensemble = serving.Ensemble(models, said, from_logits, calibration=calibration)
    task = str(ensemble.task)

    def predict(images: np.ndarray) -> Arrays:
        return arranged({name: value.numpy() for name, value in ensemble(feed(images)).items()}, task)

    facts: dict[str, Any] = {"feed": feed, "sampler": ensemble, "calibration": calibration}
    facts |= {
        "num_samples": len(models),
        "is_map": is_of_pixels(models[0].output_shape),
        "value_range": value_range,
    }
    members = tuple(serving.Ensemble([each], said, from_logits) for each in models)
    facts |= {"task": task, "members": members}
    return Predictor(predict, image_shape(models[0].input_shape), class_names, taken_by(models[0]), **facts)


def _from_keras(
    model: keras.Model,
    class_names: tuple[str, ...] | None,
    calibration: serving.Calibration | None,
    options: dict[str, Any],
) -> Predictor:
    feed = feeding(model)
    facts: dict[str, Any] = {"feed": feed, "calibration": calibration}
    try:
        sample = serving.MonteCarlo(model, calibration=calibration, **options)
    except NothingDraws:
        one = serving.Ensemble([model], options["task"], options["from_logits"])
        reader, task = one.reader, str(one.task)
        run = reader.traced(lambda flat: reader.read(reader.call(flat)))

        def predict(images: np.ndarray) -> Arrays:
            (mean,) = run(reader.check(feed(images)))
            return arranged({"mean": mean.numpy()}, task)

        facts |= {"sampler": one}
    else:
        task = str(sample.reader.task)

        def predict(images: np.ndarray) -> Arrays:
            return arranged({name: value.numpy() for name, value in sample(feed(images)).items()}, task)

        facts |= {"sampler": sample, "num_samples": sample.num_samples}
    facts |= {"is_map": is_of_pixels(model.output_shape), "task": task}
    return Predictor(predict, image_shape(model.input_shape), class_names, taken_by(model), **facts)


def is_of_pixels(shape: Sequence[int | None]) -> bool:
    """Returns whether an output of this shape, with the batch, has an answer for each pixel.

    Args:
        shape: The shape of the output: `(batch,)`, `(batch, classes)` or `(batch, height, width, classes)`.

    Raises:
        ValueError: If it has three axes, which are neither answers for an image nor for each pixel.
    """
    if len(shape) == 3:
        _, first, second = shape
        raise ValueError(
            "The output of the model must be (batch, classes) or (batch, height, width, classes). "
            f"Received: {tuple(shape)}. Add keras.layers.Flatten() to the model for several values of an image, "
            f"or keras.layers.Reshape(({first}, {second}, 1)) for one value of each pixel"
        )
    return len(shape) > 2


def _task_of_export(path: Path, info: Mapping[str, Any], said: str | None) -> str:
    """Returns the output kind of an export, or raises a ValueError if the caller says another."""
    kind = info.get("task", "multi_class")
    if said not in (None, kind):
        raise ValueError(f"The export {path} has task={kind!r}. Leave out task={said!r}")
    return kind


def _from_saved_model(path: Path, input_range: tuple[float, float] | None, task: str | None) -> Predictor:
    info = facts_of_export(path)
    kind = _task_of_export(path, info, task)
    export = Export(path, info, pixels_of_export(path, info, input_range))

    def predict(images: np.ndarray) -> Arrays:
        return arranged(export(images), kind)

    names = tuple(info["class_names"]) if info.get("class_names") else None
    return Predictor(
        predict,
        export.input_shape,
        names,
        export.pixels,
        num_samples=int(info.get("num_samples") or 1) if export.samples else 1,
        is_map=is_of_pixels(export.output_shape),
        task=kind,
    )
