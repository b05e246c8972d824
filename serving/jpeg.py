"""Decodes JPEG files to the channels that a model takes, in the same way inside and outside a graph."""

import tensorflow as tf


def decode_jpeg(data: tf.Tensor, channels: int, cmyk: bool | tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a JPEG file, uint8 `(height, width, channels)`; its EXIF orientation is not applied.

    TensorFlow decodes a JPEG file to one or three channels, but a CMYK file only to three.

    Args:
        data: String scalar tensor, the bytes of the file.
        channels: Int, 1, 3 or 4. The fourth channel is opaque.
        cmyk: Bool or bool scalar tensor, whether the file is in CMYK. The caller may know it from the header;
            `tf.image.extract_jpeg_shape` takes longer than decoding a small image.
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
