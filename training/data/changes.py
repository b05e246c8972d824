"""Random changes that need more than a number for each image: elastic deformation, gamma, noise and blur.

Each is a function of a seed for each image, so that an image gets the same change in any batch.
"""

import math
from collections.abc import Callable

import tensorflow as tf

_GRID = 3  # the points of the coarse grid of an elastic deformation, along each side


def seeds_of(draws: tf.Tensor) -> tf.Tensor:
    """Returns a seed for each image, int32 `(batch, 2)`, from its random numbers `(batch, n)`."""
    return tf.bitcast(draws[:, :2], tf.int32)


def for_each(seeds: tf.Tensor, shape: list[int] | tf.Tensor, salt: int, normal: bool = True) -> tf.Tensor:
    """Returns random numbers for each image: standard normal, or uniform in [0, 1).

    Args:
        seeds: The result of `seeds_of`.
        shape: The shape of the numbers of one image.
        salt: Int, a different one for each use.
        normal: Bool. Whether the numbers are normal rather than uniform.
    """
    draw: Callable[..., tf.Tensor] = tf.random.stateless_normal if normal else tf.random.stateless_uniform
    return tf.map_fn(lambda seed: draw(shape, seed + [salt, 0]), seeds, fn_output_signature=tf.float32)


def elastic(
    images: tf.Tensor, masks: tf.Tensor | None, seeds: tf.Tensor, pixels: float
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns images and masks that are bent: a coarse grid of random displacements, smooth in between.

    Args:
        images: Float tensor `(batch, height, width, channels)`.
        masks: Tensor `(batch, height, width)`, bent in the same way, or None.
        seeds: The result of `seeds_of`.
        pixels: Float, the standard deviation of the displacements of the grid.

    Reference:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
        arXiv:1505.04597, section 3.1.
    """
    size = tf.shape(images)[1:3]
    coarse = pixels * for_each(seeds, [_GRID, _GRID, 2], 1)
    flow = tf.image.resize(coarse, size, "bicubic")  # (batch, height, width, 2)
    rows, columns = tf.meshgrid(tf.range(size[0]), tf.range(size[1]), indexing="ij")
    places = tf.cast(tf.stack([rows, columns], -1), tf.float32) + flow
    low = tf.floor(places)
    part = places - low

    def at(pixels: tf.Tensor, down: int, right: int) -> tf.Tensor:
        place = tf.cast(low, tf.int32) + [down, right]
        return tf.gather_nd(pixels, _mirrored(place, size), batch_dims=1)

    y, x = part[..., :1], part[..., 1:]
    top = (1 - x) * at(images, 0, 0) + x * at(images, 0, 1)
    bottom = (1 - x) * at(images, 1, 0) + x * at(images, 1, 1)
    bent = tf.ensure_shape((1 - y) * top + y * bottom, images.shape)
    if masks is None:
        return bent, None
    nearest = tf.cast(tf.round(places), tf.int32)
    return bent, tf.ensure_shape(tf.gather_nd(masks, _mirrored(nearest, size), batch_dims=1), masks.shape)


def _mirrored(places: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns rows and columns within the image, as if it were surrounded by its mirror images."""
    around = tf.math.floormod(places, 2 * size)
    return tf.where(around < size, around, 2 * size - 1 - around)


def gamma(images: tf.Tensor, seeds: tf.Tensor, amount: float) -> tf.Tensor:
    """Returns images to the power of `exp(u)`, with `u` uniform in [-amount, amount]: darker or brighter greys."""
    power = tf.exp(amount * (2 * for_each(seeds, [1, 1, 1], 2, normal=False) - 1))
    return tf.pow(tf.clip_by_value(images, 1e-6, 1.0), power)


def noise(images: tf.Tensor, seeds: tf.Tensor, amount: float) -> tf.Tensor:
    """Returns images with normal noise, whose standard deviation is uniform in [0, amount]."""
    share = amount * for_each(seeds, [1, 1, 1], 3, normal=False)
    return images + share * for_each(seeds, tf.shape(images)[1:], 4)


def blur(images: tf.Tensor, seeds: tf.Tensor, pixels: float) -> tf.Tensor:
    """Returns images that are blurred by a Gaussian, whose standard deviation is uniform in [0, pixels]."""
    sigma = tf.maximum(pixels * for_each(seeds, [1, 1, 1], 5, normal=False), 1e-3)
    radius = math.ceil(3 * pixels)
    weights = [tf.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
    total = tf.add_n(weights)
    size = tf.shape(images)[1:3]
    for axis in (1, 2):
        summed = tf.zeros_like(images)
        for step, weight in zip(range(-radius, radius + 1), weights, strict=True):
            place = tf.math.floormod(tf.range(size[axis - 1]) + step, 2 * size[axis - 1])
            place = tf.where(place < size[axis - 1], place, 2 * size[axis - 1] - 1 - place)
            summed += weight / total * tf.gather(images, place, axis=axis)
        images = tf.ensure_shape(summed, images.shape)
    return images
