"""Resizes images by products of matrices, for runtimes that have no antialiased resize."""

import tensorflow as tf


def resized(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the same as `tf.image.resize(images, size, antialias=True)`, up to rounding.

    Args:
        images: Float32 tensor `(batch, height, width, channels)`.
        size: `(height, width)` of the result.
    """
    batch, height, width, channels = tf.unstack(tf.shape(images))
    rows = tf.matmul(_weights(height, size[0]), tf.reshape(images, [batch, height, width * channels]))
    columns = tf.matmul(_weights(width, size[1]), tf.reshape(rows, [batch * size[0], width, channels]))
    return tf.ensure_shape(tf.reshape(columns, [batch, *size, channels]), [None, *size, images.shape[-1]])


def _weights(length: tf.Tensor, wanted: int) -> tf.Tensor:
    """The weight of each old pixel in each new pixel, `(wanted, length)`: triangles around the new centres."""
    ratio = tf.cast(length, tf.float32) / wanted
    centres = (tf.range(wanted, dtype=tf.float32)[:, None] + 0.5) * ratio
    places = tf.cast(tf.range(length), tf.float32)[None] + 0.5
    weights = tf.maximum(1.0 - tf.abs(places - centres) / tf.maximum(ratio, 1.0), 0.0)
    return weights / tf.reduce_sum(weights, 1, keepdims=True)
