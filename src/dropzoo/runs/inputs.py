"""Scales images, which are read as [0, 1], to the range that a model takes."""

from collections.abc import Callable

import keras
import tensorflow as tf

from dropzoo import training
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.inputs import hint_of
from dropzoo.models.graph.record import remember, taken_by


def settle_range(model: keras.Model, said: tuple[float, float] | None, say: Callable[[str], None]) -> Pixels:
    """Finds the range of the images that a model takes and keeps it with the model; if it is assumed, says so.

    Args:
        model: A model of one image input.
        said: `(low, high)`, the option `--input-range`, or None.
        say: Function that prints a line.

    Returns:
        The images that the model takes.

    Raises:
        ValueError: If the model was trained on images of a range other than `said`.
    """
    try:
        pixels = taken_by(model, said)
        pixels.check_files()
    except ValueError as error:
        raise ValueError(
            str(error)
            .replace("input_range=(low, high)", "--input-range")
            .replace("input_range=", "--input-range ")
            .replace("`input_range`", "--input-range")
        ) from error
    if pixels.source:
        remember(model, pixels)
    else:
        say(
            "The model is assumed to take images in [0, 1], because nothing in it shows its range. For another "
            f"range, pass --input-range, such as --input-range 0,255.{hint_of(model)}"
        )
    return pixels


def check_bits(pixels: Pixels, info: training.DataInfo) -> None:
    """Raises a ValueError if a model takes images of 16 bits and the images of a data set have 8."""
    if pixels.bits == 16 and info.bits == 8:
        raise ValueError(
            f"The model takes 16-bit images, with pixels from {pixels.words}. Received: {info.name!r}, whose "
            f"images have 8 bits. Pass the original 16-bit files"
        )


def feeding(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that scales RGB or grey images in [0, 1] to the range and dtype that a model takes."""
    taken = taken_by(model)
    return feeding_of(taken, model.inputs[0].dtype, taken.channels_first(model.inputs[0].shape))


def feeding_of(pixels: Pixels, dtype: str, first: bool = False) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that scales RGB or grey images in [0, 1] to a range and a dtype.

    Args:
        pixels: The range.
        dtype: Str, the dtype.
        first: Bool, whether the channels come before the height and the width.
    """
    whole = tf.as_dtype(dtype).is_integer

    def feed(images: tf.Tensor) -> tf.Tensor:
        given = pixels.scaled(images)
        given = tf.cast(tf.round(given), dtype) if whole else given
        return tf.transpose(given, [0, 3, 1, 2]) if first else given

    return feed


def fed(batches: tf.data.Dataset, model: keras.Model) -> tf.data.Dataset:
    """Returns batches with their images in the range of a model; training batches keep `at_epoch`.

    Args:
        batches: Batches of `(images, labels)`, with images in [0, 1].
        model: A model of one image input.
    """
    taken, feed = taken_by(model), feeding(model)
    if taken.range == (0, 1) and not taken.channels_first(model.inputs[0].shape):
        return batches

    def changed(given: tf.data.Dataset) -> tf.data.Dataset:
        return given.map(lambda images, labels: (feed(images), labels), num_parallel_calls=tf.data.AUTOTUNE)

    made = changed(batches)
    made.input_range, made.bits = taken.range, getattr(batches, "bits", None)  # as from `load_data`
    made.value_range = getattr(batches, "value_range", None)
    if (check_files := getattr(batches, "check_files", None)) is not None:
        made.check_files = check_files
    if (at_epoch := getattr(batches, "at_epoch", None)) is not None:
        made.at_epoch = lambda epoch: changed(at_epoch(epoch))
    return made
