"""JPEG files with the channels that a model takes, decoded alike inside a graph and outside of one."""

import tensorflow as tf


def decode_jpeg(data: tf.Tensor, channels: int, cmyk: bool | tf.Tensor) -> tf.Tensor:
    """Returns the pixels as they are stored, uint8 `(height, width, channels)`.

    TensorFlow decodes a JPEG to one or to three channels, and CMYK only to three.

    Args:
        data: String scalar, the file.
        channels: Int, 1, 3 or 4. The fourth channel is opaque.
        cmyk: Bool or bool tensor, whether the file is in CMYK. The caller may know it from the header; asking
            TensorFlow takes longer than decoding a small image.
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
