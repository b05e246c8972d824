"""From images as they are read, in [0, 1], to what a model takes."""

from collections.abc import Callable

import keras
import tensorflow as tf

from dropzoo import training
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.inputs import hint_of
from dropzoo.models.graph.record import remember, taken_by


def settle_range(model: keras.Model, said: tuple[float, float] | None, say: Callable[[str], None]) -> Pixels:
    """Finds out the range of the images that a model takes, keeps it with the model, and says what is assumed.

    Args:
        model: A model of one image input.
        said: `(low, high)`, the option `--input-range`; None if nothing was said.
        say: Function that prints a line.

    Returns:
        The images that the model takes.

    Raises:
        ValueError: If the model was trained on images of another range than what was said.
    """
    try:
        pixels = taken_by(model, said)
        pixels.check_files()
    except ValueError as error:
        raise ValueError(
            str(error)
            .replace("input_range=(low, high)", "--input-range")
            .replace("input_range=", "--input-range ")
        ) from error
    if pixels.source:
        remember(model, pixels)
    else:
        say(
            "Images are given in [0, 1], which is assumed: nothing in the model says which range it takes. If it "
            f"takes another one, pass it, as in --input-range 0,255.{hint_of(model)}"
        )
    return pixels


def check_bits(pixels: Pixels, info: training.DataInfo) -> None:
    """Raises a ValueError if a model takes images of 16 bits, and those of a data set have 8."""
    if pixels.bits == 16 and info.bits == 8:
        raise ValueError(
            f"The model takes images of 16 bits, with pixels from {pixels.words}. Received: {info.name!r}, whose "
            "images have 8 bits. Pass the original files of 16 bits"
        )


def feeding(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that turns RGB or grey images in [0, 1] into what a model takes."""
    return feeding_of(taken_by(model), model.inputs[0].dtype)


def feeding_of(pixels: Pixels, dtype: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that turns RGB or grey images in [0, 1] into pixels of a range and a dtype."""
    whole = tf.as_dtype(dtype).is_integer

    def feed(images: tf.Tensor) -> tf.Tensor:
        given = pixels.scaled(images)
        return tf.cast(tf.round(given), dtype) if whole else given

    return feed


def fed(batches: tf.data.Dataset, model: keras.Model) -> tf.data.Dataset:
    """Returns batches whose images are what a model takes; `at_epoch` of training batches stays.

    Args:
        batches: Batches of `(images, labels)`, with images in [0, 1].
        model: A model of one image input.
    """
    taken, feed = taken_by(model), feeding(model)
    if taken.range == (0, 1):
        return batches

    def changed(given: tf.data.Dataset) -> tf.data.Dataset:
        return given.map(lambda images, labels: (feed(images), labels), num_parallel_calls=tf.data.AUTOTUNE)

    made = changed(batches)
    made.input_range, made.bits = taken.range, getattr(batches, "bits", None)  # as `load_data` says them
    if (at_epoch := getattr(batches, "at_epoch", None)) is not None:
        made.at_epoch = lambda epoch: changed(at_epoch(epoch))
    return made
