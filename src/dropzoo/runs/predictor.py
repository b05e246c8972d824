"""A model that predicts image files: how it reads them, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from dropzoo import serving
from dropzoo.common.pixels import Pixels
from dropzoo.common.words import count_of
from dropzoo.runs.statistics import Arrays, arranged
from dropzoo.training.data.images import read_images

#: The maps that a calibration adds, with the guarantee that each one needs.
GUARANTEED = {"outer": "miss", "inner": "false", "lower": "interval", "upper": "interval"}


@dataclass(frozen=True)
class Predictor:
    """A model that predicts image files.

    Attributes:
        predict: Function from float32 images in [0, 1], `(batch, height, width, channels)`, to a dict of arrays:
            the probabilities `mean`, `predictive_entropy` and, if there are several samples or members or a
            calibration, `variance` and `mutual_information`. A model with a single output unit gives the
            probabilities of two classes. For a regression, `mean` is values, and there are no entropies. A
            predictor that was loaded with `votes=True` adds `votes`, `(batch, ..., classes)`: for each class, the
            number of samples in which it is the likeliest class; for each label, the number of samples in which
            its probability is above 0.5. A calibration adds the answers of its guarantees.
        input_shape: `(height, width, channels)`, with None for a size that is not fixed.
        class_names: Tuple of the names of the classes, labels or values; None if they are not known.
        pixels: The range of the pixels that the model takes.
        feed: Function from RGB or grey images in [0, 1] to the model's range.
        sampler: The `MonteCarlo` or `Ensemble` of the model, which computes tiles and samples of whole images;
            None for a SavedModel.
        calibration: The `Calibration` that the sampler uses; None if there is none.
        num_samples: Int, the number of samples of an answer; 1 for one pass.
        is_map: Bool, whether there is an answer for each pixel.
        value_range: `(low, high)`, the stored values that become 0 and 1, as for `load_data`; None if the training
            images had no such range.
        task: The output kind: `"multi_class"`, `"binary"`, `"multi_label"` or `"regression"`.
        served: Str. The name and the version of the model on a server, with a digest of its facts; empty for a
            model on the disk.
        outputs: The names of the statistics that an export returns; None for a model, whose sampler and
            calibration show them.
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
    task: str = "multi_class"
    served: str = ""
    outputs: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.value_range is None:  # runs that are older than this record have it in their config
            object.__setattr__(self, "value_range", self.pixels.stored)

    @property
    def members_drop(self) -> bool:
        """Whether the members of an ensemble draw samples, with their dropout on."""
        return isinstance(self.sampler, serving.Ensemble) and bool(self.sampler.samplers)

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may call `predict` at the same time."""
        return isinstance(self.sampler, serving.MonteCarlo) and self.sampler.side_by_side

    @property
    def has_classes(self) -> bool:
        """Whether each image or pixel has exactly one class, which excludes multi-label models and regressions."""
        return self.task in ("multi_class", "binary")

    def lacks(self, statistic: str) -> bool:
        """Returns whether all answers are without a statistic, such as `"variance"` or `"outer"`."""
        if self.outputs is not None:
            return statistic not in self.outputs
        if statistic in GUARANTEED:
            made = {} if self.calibration is None else self.calibration.guarantees
            return self.sampler is not None and GUARANTEED[statistic] not in made
        of_samples = statistic in ("variance", "mutual_information")
        return of_samples and isinstance(self.sampler, serving.Ensemble) and self.num_samples < 2

    def read(self, path: Path) -> np.ndarray:
        """Returns an image file as this model takes it: float32 `(height, width, channels)` in [0, 1].

        Raises:
            ValueError: If the file is not an image, if its channels cannot be converted to those of the model, or
                if it has 8 bits and the model takes 16.
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
            raise ValueError(f"{name} has {count_of(pixels.shape[-1], 'channel')}, but the model takes {channels}")
        return tf.image.rgb_to_grayscale(pixels).numpy() if channels == 1 else np.repeat(pixels, 3, -1)

    def sized(self, image: np.ndarray) -> np.ndarray:
        """Returns an image from `converted`, resized to the size that the model takes, if that is fixed."""
        size = self.input_shape[:2]
        if None in size or image.shape[:2] == tuple(size):
            return image
        return tf.clip_by_value(tf.image.resize(image, size, antialias=True), 0, 1).numpy()

    def answer(self, image: np.ndarray) -> Arrays:
        """Returns the same as `predict` for a single image `(height, width, channels)`, without the batch axis."""
        return {name: value[0] for name, value in self.predict(image[None]).items()}

    def arranged(self, statistics: Arrays) -> Arrays:
        """Returns the statistics of `sampler`, arranged like those of `predict`."""
        return arranged(statistics, self.task)

    def label(self, probabilities: np.ndarray) -> tuple[str, float]:
        """Returns the name of the likeliest class and its probability, from the probabilities `(classes,)`."""
        best = int(np.argmax(probabilities))
        return self.class_names[best] if self.class_names else str(best), float(probabilities[best])


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
            f"Received: {tuple(shape)}. If the model returns several values for an image, add "
            f"keras.layers.Flatten() to it; if it returns one value for each pixel, add "
            f"keras.layers.Reshape(({first}, {second}, 1))"
        )
    return len(shape) > 2
