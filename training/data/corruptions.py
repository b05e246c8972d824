"""Image corruptions of known strength, to see whether a model notices. They are our own, not CIFAR-C."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_choice, check_count, check_seed, unknown
from dropzoo.layers.draws.hash import mix, row_bits, standard_normal, u32, uniform
from dropzoo.layers.draws.samples import content_keys

Images: TypeAlias = tf.Tensor  # (batch, height, width, channels), float32 in [0, 1]
Keys: TypeAlias = tf.Tensor  # (batch,), uint32, made of the image's pixels and the seed


def list_corruptions() -> list[str]:
    """Returns the names of the corruptions.

    Example:
    >>> from dropzoo import training
    >>> training.list_corruptions()
    ['blur', 'brightness', 'contrast', 'gaussian_noise', 'missing_patches', 'occlusion']
    """
    return sorted(CORRUPTIONS)


def corrupt(images: tf.Tensor | np.ndarray, name: str, severity: int, seed: int = 0) -> tf.Tensor:
    """Corrupts a batch of images in one way, at one of five severities.

    Images may have any size, even 8x8x1. The corruptions are:

    - `gaussian_noise` adds noise with a standard deviation of 0.05 to 0.4.
    - `blur` convolves with a Gaussian whose standard deviation is 0.16 to 0.6 times the square root of the shorter
      side.
    - `contrast` keeps 75 to 10 % of the difference of each pixel from the mean of its channel.
    - `brightness` makes dark images brighter and bright images darker, by 0.1 to 0.5.
    - `occlusion` puts a grey square on the image; its sides are 20 to 70 % of the image's shorter side.
    - `missing_patches` divides the image into patches, about eight along the shorter side, and sets 10 to 60 % of
      the patches to 0.

    This is not CIFAR-C or ImageNet-C (Hendrycks and Dietterich, 2019, arXiv:1903.12261): the corruptions and their
    strengths differ, and there is no JPEG. Use results on these images to compare models with each other, but not
    with published results.

    Random draws depend only on the seed and on the pixels of the image, so the same image is corrupted in the
    same way in any batch, order, process or graph. A higher severity changes an image at least as much as a lower
    one: the noise is scaled, a larger square contains the smaller ones, and a patch that is missing at one
    severity is missing at all higher ones.

    Args:
        images: Float array or tensor `(batch, height, width, channels)` in [0, 1].
        name: One of `list_corruptions()`.
        severity: Int from 1 to 5.
        seed: Int in [0, 2**32).

    Returns:
        A tensor of the shape and dtype of `images`, in [0, 1].

    Raises:
        ValueError: If the name is unknown, or the severity, the seed, or the rank or dtype of the images is wrong.

    Example:
    >>> import tensorflow as tf
    >>> from dropzoo import training
    >>> images = tf.random.stateless_uniform((2, 8, 8, 1), (0, 0))
    >>> training.corrupt(images, "blur", severity=3).shape
    TensorShape([2, 8, 8, 1])
    >>> dataset = tf.data.Dataset.from_tensors((images, [0, 1]))
    >>> worse = dataset.map(lambda images, labels: (training.corrupt(images, "occlusion", 5), labels))
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    severity = check_count(check_choice(severity, "severity", (1, 2, 3, 4, 5)), "severity")
    seed = check_seed(seed)
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or not images.dtype.is_floating:
        raise ValueError(
            "`images` must be floating point in [0, 1], (batch, height, width, channels). "
            f"Received: {images.dtype.name} of shape {images.shape}"
        )
    function, strengths = CORRUPTIONS[name]
    pixels = tf.cast(images, tf.float32)
    keys = mix(content_keys(pixels) + mix(u32(seed)))
    worse = tf.clip_by_value(function(pixels, strengths[severity - 1], keys), 0.0, 1.0)
    return tf.cast(tf.ensure_shape(worse, images.shape), images.dtype)


def gaussian_noise(images: Images, deviation: float, keys: Keys) -> Images:
    """Adds the same noise at each severity, scaled."""
    return images + deviation * standard_normal(_bits(keys, tf.shape(images)))


def blur(images: Images, strength: float, keys: Keys) -> Images:
    """Blurs rows, then columns, by a matrix of weights that sum to 1 at the edges too, without padding."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    sigma = strength * tf.sqrt(_shorter_side(images))

    def weights(size: tf.Tensor) -> tf.Tensor:  # (size, size)
        place = tf.range(tf.cast(size, tf.float32))
        return tf.nn.softmax(-tf.square((place[:, None] - place) / sigma) / 2.0)

    return tf.einsum("hi,bijc,wj->bhwc", weights(height), images, weights(width))


def contrast(images: Images, kept: float, keys: Keys) -> Images:
    """Moves each channel towards its mean."""
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)  # (batch, 1, 1, channels)
    return mean + kept * (images - mean)


def brightness(images: Images, amount: float, keys: Keys) -> Images:
    """Makes a dark image brighter and a bright image darker, because there is room in [0, 1] on that side."""
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    return images + tf.where(mean < 0.5, amount, -amount)


def occlusion(images: Images, share: float, keys: Keys) -> Images:
    """Puts a grey square on the image, all of it inside. A larger square contains the smaller ones."""
    side = tf.maximum(tf.round(share * _shorter_side(images)), 1.0)
    draws = uniform(_bits(keys, [tf.shape(images)[0], 2]))  # (batch, 2)

    def covered(axis: int) -> tf.Tensor:  # (batch, size)
        size = tf.cast(tf.shape(images)[axis], tf.float32)
        start = tf.floor(draws[:, axis - 1, None] * (size - side) + 0.5)
        place = tf.range(size)
        return tf.logical_and(place >= start, place < start + side)

    square = tf.logical_and(covered(1)[:, :, None], covered(2)[:, None, :])
    return tf.where(square[..., None], 0.5, images)


def missing_patches(images: Images, share: float, keys: Keys) -> Images:
    """Sets a share of the patches to 0. A patch that is missing at one severity is missing at all higher ones."""
    side = tf.cast(tf.maximum(tf.round(_shorter_side(images) / 8.0), 1.0), tf.int32)
    size = tf.shape(images)[1:3]
    rows, columns = tf.unstack((size + side - 1) // side)
    order = tf.argsort(uniform(_bits(keys, [tf.shape(images)[0], rows * columns])), stable=True)
    rank = tf.cast(tf.argsort(order), tf.float32)  # (batch, patches)
    lost = tf.reshape(rank < tf.round(share * tf.cast(rows * columns, tf.float32)), [-1, rows, columns])
    lost = tf.repeat(tf.repeat(lost, side, axis=1), side, axis=2)[:, : size[0], : size[1], None]
    return tf.where(lost, 0.0, images)


#: Each name with the function and its strengths at the severities 1 to 5.
CORRUPTIONS: dict[str, tuple[Callable[[Images, float, Keys], Images], tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.05, 0.1, 0.15, 0.25, 0.4)),
    "blur": (blur, (0.16, 0.25, 0.35, 0.45, 0.6)),
    "contrast": (contrast, (0.75, 0.55, 0.4, 0.25, 0.1)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "occlusion": (occlusion, (0.2, 0.35, 0.5, 0.6, 0.7)),
    "missing_patches": (missing_patches, (0.1, 0.2, 0.3, 0.45, 0.6)),
}


def _shorter_side(images: Images) -> tf.Tensor:
    return tf.cast(tf.reduce_min(tf.shape(images)[1:3]), tf.float32)


def _bits(keys: Keys, shape: tf.Tensor | list[int | tf.Tensor]) -> tf.Tensor:
    """Returns uint32 bits of a shape. Each row, along the first axis, gets its bits from its own key."""
    shape = tf.convert_to_tensor(shape)
    # The second word of a row's key is the first one plus an odd constant (2**32 over the golden ratio).
    return tf.reshape(row_bits(keys, keys + u32(0x9E3779B9), tf.reduce_prod(shape[1:])), shape)
