"""Several samples as one larger batch, and back."""

import tensorflow as tf

from dropzoo.common.keras_internals import mask_of, put_mask


def unfold(p: tf.Tensor, count: int | tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """Samples that are folded into the batch, in the shape `(samples, batch, ..., classes)`."""
    unfolded = tf.reshape(p, tf.concat([[count, batch], tf.shape(p)[1:]], 0))
    unfolded.set_shape([None, None, *p.shape[1:]])  # without an operation, for runtimes that have none for it
    return unfolded


def tile(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A batch repeated `count` times. The mask that Keras may have put on it is repeated too."""
    tiled = tf.tile(x, tf.concat([[count], tf.ones([len(x.shape) - 1], tf.int32)], 0))
    tiled.set_shape([None, *x.shape[1:]])
    if (mask := mask_of(x)) is not None:
        put_mask(tiled, tile(mask, count))
    return tiled
