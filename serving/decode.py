"""Decodes image files to the channels that a model takes, in the same way inside and outside a graph."""

from collections.abc import Callable

import tensorflow as tf

_PNG_BITS = 24  # the place of the byte that holds the bit depth of a PNG file
# The bytes before and at the start of EXIF data in JPEG and PNG files, and how many of them are before.
_EXIF = {b"eXIfMM\0*": 4, b"eXIfII*\0": 4, b"Exif\0\0": 6}
_EXIF_WITHIN = 2**17  # how far into a file these are looked for
_ORIENTATION = 274  # the tag


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


def is_deep(data: tf.Tensor) -> tf.Tensor:
    """Returns whether a string scalar tensor is a PNG file of 16 bits."""
    return tf.cond(
        tf.strings.length(data) > _PNG_BITS,
        lambda: (tf.strings.substr(data, 0, 4) == b"\x89PNG") & (tf.strings.substr(data, _PNG_BITS, 1) == b"\x10"),
        lambda: tf.constant(False),
    )


def decode_file(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns the pixels of a PNG or JPEG file, float32 in [0, 1], `(height, width, channels)`.

    A PNG file of 16 bits keeps them, and files are turned upright by their EXIF orientation.

    Args:
        data: String scalar tensor, the bytes of the file.
        channels: Int, 1, 3 or 4.
    """

    def jpeg() -> tf.Tensor:
        image = decode_jpeg(data, channels, tf.image.extract_jpeg_shape(data)[-1] == 4)
        return tf.cast(image, tf.float32) / 255.0

    def other() -> tf.Tensor:
        image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        return tf.cast(image, tf.float32) / 255.0

    def deep() -> tf.Tensor:
        return tf.cast(tf.io.decode_png(data, channels, tf.uint16), tf.float32) / 65535.0

    image = tf.cond(is_deep(data), deep, lambda: tf.cond(tf.io.is_jpeg(data), jpeg, other))
    return _upright(image, orientation_of(data))


def orientation_of(data: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG or PNG file, an int32 scalar; 1, which is upright, if it has none.

    TensorFlow has no operation for it, so this reads the directory of tags from the first 128 KiB of the file.
    """
    raw = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _EXIF_WITHIN), tf.uint8), tf.int32)
    longest = max(map(len, _EXIF))
    raw = tf.pad(raw, [[0, longest]])
    last = tf.size(raw) - longest
    starts = [
        tf.where(tf.reduce_all([raw[i : last + i] == byte for i, byte in enumerate(mark)], 0))[:1, 0] + before
        for mark, before in _EXIF.items()
    ]
    start = tf.cast(tf.concat([*starts, [tf.cast(last, tf.int64)]], 0)[0], tf.int32)
    little = tf.gather(raw, tf.minimum(start, last)) == ord("I")

    def number(places: tf.Tensor, size: int) -> tf.Tensor:
        """The numbers of `size` bytes at places after `start`; zeros stand for bytes after the end."""
        each = tf.expand_dims(start + places, -1) + tf.range(size)
        each = tf.where((each >= 0) & (each < last), each, last)  # `raw` ends in zeros
        powers = tf.constant([256**i for i in range(size)])
        return tf.reduce_sum(tf.gather(raw, each) * tf.where(little, powers, powers[::-1]), -1)

    directory = number(tf.constant(4), 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 256))
    wanted = tf.boolean_mask(entries, number(entries, 2) == _ORIENTATION)
    value = tf.concat([number(wanted + 8, 2), [1]], 0)[0]
    return value


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """An image `(height, width, channels)` turned upright; see `common.images.upright`."""

    def if_one_of(
        values: tuple[int, ...], change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor
    ) -> tf.Tensor:
        return tf.cond(tf.reduce_any(orientation == values), lambda: change(image), lambda: image)

    channels = image.shape[-1]
    image = if_one_of((5, 6, 7, 8), lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = if_one_of((3, 4, 7, 8), lambda x: x[::-1], image)
    image = if_one_of((2, 3, 6, 7), lambda x: x[:, ::-1], image)
    return tf.ensure_shape(image, [None, None, channels])
