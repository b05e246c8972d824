"""The range of the pixels on which a model trains: found in the first steps, checked and kept."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.pixels import Pixels, check_range, doubt, nearest_range
from dropzoo.models.graph.inputs import pixels_of
from dropzoo.models.graph.record import remember
from dropzoo.training.supervision import DeepSupervision

STEPS = 4  # the number of steps whose pixels are looked at
_BITS = {"uint8": 8, "uint16": 16}
# If the largest float is between these, the images have no known range: neither up to 1 nor up to 255.
_NO_PIXELS = (1.05, 16.0)
# Images of no known range with values outside these were standardised or the like; others may be augmented.
_STANDARDISED = (-1.2, 2.0)


class Look:
    """The lowest and the highest pixel in the first training steps, found on the device while the model trains.

    It looks at the input that is an image, with at least two axes besides those of the batch and the channels. If
    the model has several such inputs, it looks at none.

    Attributes:
        dtype: Str. The type of the pixels; empty while nothing was seen.
        channels: Int or None. The size of their last axis.
    """

    def __init__(self) -> None:
        self.dtype, self.channels = "", None
        self._seen = tf.Variable([np.inf, -np.inf, 0.0], dtype="float32", trainable=False)

    def reset(self) -> None:
        """Forgets what was seen."""
        self._seen.assign([np.inf, -np.inf, 0.0])

    def at(self, batch: Any, step: tf.Tensor) -> None:
        """Looks at a batch, in the graph, if it is one of the first."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        images = [leaf for leaf in tf.nest.flatten(x) if _is_image(leaf)]
        if len(images) != 1:
            return
        (pixels,) = images
        self.dtype, self.channels = pixels.dtype.name, pixels.shape[-1]

        def see() -> tf.Operation:
            values = tf.cast(pixels, "float32")
            low, high, fractions = tf.unstack(self._seen)
            fraction = tf.cast(tf.reduce_any(values != tf.round(values)), "float32")
            found = [
                tf.minimum(low, tf.reduce_min(values)),
                tf.maximum(high, tf.reduce_max(values)),
                tf.maximum(fractions, fraction),
            ]
            return tf.group(self._seen.assign(found))

        tf.cond(step < STEPS, see, tf.no_op)

    def seen(self) -> np.ndarray | None:
        """Returns a few pixels that stand for all that were seen, or None if there were none."""
        low, high, fractions = self._seen.numpy()
        if not self.dtype or not np.isfinite([low, high]).all():
            return None
        between = (low + high) / 2 if fractions else low
        return np.array([low, between, high], self.dtype if self.dtype in _BITS else "float32")


def _is_image(leaf: Any) -> bool:
    numeric = isinstance(leaf, tf.Tensor) and (leaf.dtype.is_floating or leaf.dtype.is_integer)
    return numeric and leaf.shape.rank is not None and leaf.shape.rank >= 4


def range_of(images: np.ndarray) -> tuple[float, float] | None:
    """Returns the values of a black and of a white pixel that fit some images, or None if that is not clear."""
    if images.dtype.name in _BITS:
        return 0.0, float(np.iinfo(images.dtype).max)
    low, high = float(images.min()), float(images.max())
    return None if _NO_PIXELS[0] < high < _NO_PIXELS[1] else nearest_range(low, high)


class Images:
    """The range of a model's training images, from the user, the data or the first steps; it is checked and kept.

    Args:
        model: The model. The range is kept with it, for its `.keras` file and for `export_model`.
        said: The values of a black and of a white pixel, or None.

    Attributes:
        range: The values of a black and of a white pixel, or None while it is not known.
    """

    def __init__(self, model: keras.Model, said: tuple[float, float] | None) -> None:
        self.range = None if said is None else check_range(said)
        # The model itself is what users of `DeepSupervision` save.
        self._trained = [model, model.original] if isinstance(model, DeepSupervision) else [model]
        self._model, self._said, self._known = model, said is not None, said is not None

    def know(
        self,
        found: tuple[float, float] | None,
        bits: int | None,
        stored: tuple[float, float] | None = None,
    ) -> None:
        """Takes the range from the data or from a checkpoint, unless the user has passed one.

        Args:
            found: The values of a black and of a white pixel, or None.
            bits: Int, the bits of a pixel in the files, or None.
            stored: The values in the files that are black and white, or None for the usual ones.
        """
        if not self._said and found is not None:
            low, high = self.range = check_range(found)
            self._check(np.array([low, (low + high) / 2, high]))
        self._known = self.range is not None
        if self.range is not None:
            self._keep(self.range, bits, None, stored)

    def look(self, look: Look) -> None:
        """Takes the range from the pixels of the first steps, unless it is known."""
        images = None if self._known else look.seen()
        if images is None:
            return
        self._check(images)
        self.range = range_of(images)
        if self.range is not None:
            self._keep(self.range, _BITS.get(look.dtype), look.channels)
        elif images.min() < _STANDARDISED[0] or images.max() > _STANDARDISED[1]:
            seen = float(images.min()), float(images.max())
            self._remember(Pixels(*seen, None, look.channels, None, "the training images", from_files=False))

    @functools.cached_property
    def _shown(self) -> Pixels | None:
        """The images that the model takes, as its graph shows."""
        return pixels_of(self._model)

    def _check(self, images: np.ndarray) -> None:
        """Raises a ValueError if the model takes larger pixels, as its graph shows, and gets fractions of 1."""
        taken = self._shown
        if taken is None or images.max() > 1 or doubt(images, taken) is None:
            return
        raise ValueError(
            f"The model takes pixels from {taken.words}, but those of `train` are from {images.min():.4g} to "
            f"{images.max():.4g}: for the model, these images are black. Multiply the images by {taken.high:g}, "
            f"or build the "
            "model without the layer that divides them. If the images are right, pass Trainer(input_range=(0, 1))"
        )

    def _keep(
        self,
        found: tuple[float, float],
        bits: int | None,
        channels: int | None,
        stored: tuple[float, float] | None = None,
    ) -> None:
        """Keeps a range with the model."""
        shown = self._shown or Pixels()
        source = "the argument `input_range` of the trainer" if self._said else "the training images"
        self._remember(Pixels(*found, bits, channels or shown.channels, shown.order, source, stored=stored))

    def _remember(self, pixels: Pixels) -> None:
        for model in self._trained:
            remember(model, pixels)
