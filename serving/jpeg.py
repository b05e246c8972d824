"""JPEG files in the channels that a model takes, alike in a graph and outside one."""

import tensorflow as tf


def decode_jpeg(data: tf.Tensor, channels: int, cmyk: bool | tf.Tensor) -> tf.Tensor:
    """The pixels as they are stored, (height, width, channels) uint8.

    TensorFlow gives a JPEG one channel or three, and one in CMYK no single one. Whether it is in CMYK is the
    caller's to say, who may know it from the header: asking TensorFlow costs more than a small image.
    """
    if channels == 4:
        opaque = [[0, 0], [0, 0], [0, 1]]
        return tf.pad(tf.io.decode_jpeg(data, channels=3), opaque, constant_values=255)
    if channels == 3:
        return tf.io.decode_jpeg(data, channels=3)
    return tf.cond(
        cmyk,
        lambda: tf.image.rgb_to_grayscale(tf.io.decode_jpeg(data, channels=3)),
        lambda: tf.io.decode_jpeg(data, channels=1),
    )
