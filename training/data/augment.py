"""Random changes to training images (and their masks), as pure functions of a seed."""

import dataclasses
import math
from typing import Any, TypeAlias

import tensorflow as tf

from dropzoo.common.checks import check_pair, unknown
from dropzoo.common.words import count_of
from dropzoo.training.data import changes
from dropzoo.training.data.windows import foreground_pixels

#: The number of random numbers for each example, no matter which changes are on.
NUM_DRAWS = 11


# The largest values of those that may be above 1.
_LIMITS = {"rotation": 180, "elastic": 100, "gamma": 2, "blur": 10}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Random augmentation of training images.

    Flips, rotation, shift, scale and crop are one affine map, so together they interpolate an image only once
    (bilinear, and its mask by nearest neighbour). Uncovered pixels are filled with the mirror image. Colours stay
    in [0, 1]. Unless stated otherwise, an amount is the half-width of a uniform distribution.

    Args:
        flip_horizontal: Bool. Mirror left and right, half of the time.
        flip_vertical: Bool. Mirror top and bottom, half of the time.
        rotation: Float in [0, 180], degrees to either side.
        shift: Float in [0, 1], the fraction of the height and of the width, to either side.
        scale: Float in [0, 1). Zoom by a factor from `1 - scale` to `1 + scale`.
        crop: Int above 0, `(height, width)` or None. The size in pixels of a random window to train on.
        foreground: Float in [0, 1]. The fraction of the crops that are placed around a foreground pixel of the
            mask, with equal probability for all classes except class 0; the other crops are placed anywhere. This
            helps with small objects in large images. 0.33 is usual.
        brightness: Float in [0, 1], added to all channels, up or down.
        contrast: Float in [0, 1]. The distance to the mean of the channel grows or shrinks by this fraction.
        saturation: Float in [0, 1]. The distance to the grey image grows or shrinks by this fraction; RGB only.
        elastic: Float in [0, 100], pixels. Bends images and masks: a grid of 3 x 3 points is displaced with this
            standard deviation, and the displacements in between are interpolated smoothly. This suits images of
            tissue and cells, if you have few of them.
        gamma: Float in [0, 2]. Raises images to the power of `exp(u)`, where `u` is uniform. This simulates
            another exposure.
        noise: Float in [0, 1]. Adds normal noise with a random standard deviation from 0 to this value.
        blur: Float in [0, 10], pixels. Blurs with a Gaussian whose standard deviation is random, from 0 to this
            value. This simulates another focus.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> import tensorflow as tf
    >>> from dropzoo import training
    >>> augment = training.Augment(flip_horizontal=True, rotation=15, crop=128)
    >>> image, mask = tf.random.uniform((200, 150, 3)), tf.zeros((200, 150), tf.int32)
    >>> image, mask = augment.apply(image, mask, seed=(0, 1))
    >>> tuple(image.shape), tuple(mask.shape)
    ((128, 128, 3), (128, 128))
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    crop: int | tuple[int, int] | None = None
    foreground: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    elastic: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_horizontal", "flip_vertical"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False. Received: {name}={getattr(self, name)!r}")
        for name in (*_LIMITS, "shift", "scale", "brightness", "contrast", "saturation", "noise", "foreground"):
            value, limit = getattr(self, name), _LIMITS.get(name, 1)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= limit) or (name == "scale" and value == 1):
                interval = "[0, 1)" if name == "scale" else f"[0, {limit}]"
                raise ValueError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}")
        if self.crop is not None:
            object.__setattr__(self, "crop", check_pair(self.crop, "crop"))
        elif self.foreground:
            raise ValueError(
                "`foreground` is the fraction of crops that are placed around foreground: pass the size of the "
                f'crops too, as in "crop=128,foreground=0.33". Received: foreground={self.foreground!r} without '
                "`crop`"
            )

    def check(self, height: int | None, width: int | None, channels: int, masks: bool = True) -> None:
        """Raises an error if images of this shape cannot be augmented in this way.

        Args:
            height: Int, pixels; None if it is not known.
            width: Int, pixels; None if it is not known.
            channels: Int, the number of channels.
            masks: Bool. Whether the labels are masks.

        Raises:
            ValueError: If `saturation` is set for images without colour, `crop` is larger than the images, or
                `foreground` is set for labels that are not masks.
        """
        if self.foreground and not masks:
            raise ValueError(
                f"`foreground` needs masks, but these images have class labels. Received: "
                f"foreground={self.foreground}. "
                "For rare classes of images, pass balance=True (--balance sampling)"
            )
        if self.saturation and channels != 3:
            raise ValueError(
                f"`saturation` needs RGB images. Received: saturation={self.saturation}, "
                f"{count_of(channels, 'channel')}"
            )
        if isinstance(self.crop, tuple) and height and width and (self.crop[0] > height or self.crop[1] > width):
            raise ValueError(f"`crop` must fit in the images of {height}x{width}. Received: crop={self.crop}")

    def apply(
        self,
        image: tf.Tensor,
        label: tf.Tensor,
        seed: tuple[int, int] | tf.Tensor,
        ignore_class: int | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments one example.

        Args:
            image: Float32 tensor `(height, width, channels)` in [0, 1].
            label: Mask `(height, width)`, which moves with the image; a label of another rank stays as it is.
            seed: Two ints. Equal seeds give equal results.
            ignore_class: Int or None. A label, such as 255. Its pixels are not foreground, nor are those of
                class 0.

        Returns:
            The new image and label.

        Raises:
            ValueError: If images of this shape cannot be augmented in this way.
        """
        image, label = tf.convert_to_tensor(image), tf.convert_to_tensor(label)
        draws = tf.random.stateless_uniform([1, NUM_DRAWS], seed, -1.0, 1.0)
        images, labels = self.apply_batch(image[None], label[None], draws, ignore_class)
        return images[0], labels[0]

    def apply_batch(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, ignore_class: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a batch, each example with its own random numbers.

        Args:
            images: Float32 tensor `(batch, height, width, channels)` in [0, 1].
            labels: Masks `(batch, height, width)`, which move with the images, or labels of another rank.
            draws: Float32 tensor `(batch, 11)`, uniform in [-1, 1): the random numbers of each example.
            ignore_class: Int or None. A label, such as 255. Its pixels are not foreground, nor are those of
                class 0.

        Returns:
            The new images and labels.
        """
        height, width, channels = images.shape[1:]
        self.check(height, width, channels, labels.shape.rank == 3)
        seeds = changes.seeds_of(draws)
        if any((self.flip_horizontal, self.flip_vertical, self.rotation, self.shift, self.scale, self.crop)):
            shown = foreground_pixels(labels, seeds, self.foreground, ignore_class) if self.foreground else None
            size, transforms = self._transforms(tf.shape(images)[1:3], draws, shown)
            images = self._move(images, size, transforms, "BILINEAR")
            if labels.shape.rank == 3:
                labels = self._move(labels[..., None], size, transforms, "NEAREST")[..., 0]
        if self.elastic:
            moving = labels.shape.rank == 3
            images, bent = changes.elastic(images, labels if moving else None, seeds, self.elastic)
            labels = bent if moving else labels
        # Each change has its own draws, so that switching one on leaves the others as they were.
        saturation, contrast, brightness = tf.unstack(draws[:, None, None, None, 8:], axis=-1)  # (batch, 1, 1, 1)
        if self.saturation:
            grey = tf.image.rgb_to_grayscale(images)
            images = grey + (1 + self.saturation * saturation) * (images - grey)
        if self.contrast:
            mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)  # (batch, 1, 1, channels)
            images = mean + (1 + self.contrast * contrast) * (images - mean)
        images = images + self.brightness * brightness if self.brightness else images
        images = tf.clip_by_value(images, 0.0, 1.0)
        if not (self.gamma or self.blur or self.noise):
            return images, labels
        if self.gamma:
            images = changes.gamma(images, seeds, self.gamma)
        if self.blur:
            images = changes.blur(images, seeds, self.blur)
        if self.noise:
            images = changes.noise(images, seeds, self.noise)
        return tf.clip_by_value(images, 0.0, 1.0), labels

    def _transforms(
        self, size: tf.Tensor, draws: tf.Tensor, shown: tuple[tf.Tensor, tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the size of the outputs, and the maps from their pixels to those of the inputs, `(batch, 8)`.

        `shown` is what `foreground_pixels` returns, or None.
        """
        height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
        mirror_x, mirror_y, turn, zoom, right, down, along, across = tf.unstack(draws[:, :8], axis=-1)  # (batch,)
        flip_x = tf.where(mirror_x < 0, -1.0, 1.0) if self.flip_horizontal else 1.0
        flip_y = tf.where(mirror_y < 0, -1.0, 1.0) if self.flip_vertical else 1.0
        angle, zoom = self.rotation * turn * math.pi / 180, 1 + self.scale * zoom
        cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
        xx, xy, yx, yy = cosine * flip_x, -sine * flip_y, sine * flip_x, cosine * flip_y
        # The window's corner is a whole number of pixels: crops and flips alone copy pixels, without blur.
        left, top = 0.0, 0.0
        if isinstance(self.crop, tuple):
            top = tf.floor((height - self.crop[0] + 1) * (along + 1) / 2)
            left = tf.floor((width - self.crop[1] + 1) * (across + 1) / 2)
            size = tf.constant(self.crop)
        x, y = (width - 1) / 2, (height - 1) / 2  # flips, rotation and zoom are about the input's centre
        if shown is not None:
            (row, column), wanted = tf.unstack(shown[0], axis=1), shown[1]
            # Where the map puts the pixel: the inverse of the map, around the window.
            right_of, below = column - x - self.shift * right * width, row - y - self.shift * down * height
            scale = xx * yy - xy * yx
            left = tf.where(wanted, self._around((yy * right_of - xy * below) / scale + x, width, 1), left)
            top = tf.where(wanted, self._around((xx * below - yx * right_of) / scale + y, height, 0), top)
        dx = xx * (left - x) + xy * (top - y) + x + self.shift * right * width
        dy = yx * (left - x) + yy * (top - y) + y + self.shift * down * height
        zero = tf.zeros_like(dx)
        return size, tf.stack([xx, xy, dx, yx, yy, dy, zero, zero], axis=1)

    def _around(self, place: tf.Tensor, size: tf.Tensor, axis: int) -> tf.Tensor:
        """Returns the corner of the window with a place in its middle, or as near to it as the image allows."""
        side = self.crop[axis] if isinstance(self.crop, tuple) else size
        last = size - side
        return tf.clip_by_value(tf.round(place - (side - 1) / 2), tf.minimum(last, 0), tf.maximum(last, 0))

    def _move(self, pixels: tf.Tensor, size: tf.Tensor, transforms: tf.Tensor, interpolation: str) -> tf.Tensor:
        """Returns the pixels at the mapped places."""
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=transforms,
            output_shape=size,
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode="REFLECT",
        )
        height, width = self.crop if isinstance(self.crop, tuple) else pixels.shape[1:3]
        return tf.ensure_shape(moved, (None, height, width, pixels.shape[3]))


AugmentLike: TypeAlias = bool | str | dict[str, Any] | Augment | None

#: The meaning of `augment=True`: mild, and right for digits and letters, which must not be mirrored.
DEFAULT = Augment(shift=0.1, rotation=10, brightness=0.1, contrast=0.1)


def make_augment(spec: AugmentLike) -> Augment | None:
    """Returns an `Augment` for True (`DEFAULT`), a dict or text such as "flip_horizontal,crop=128x96"."""
    if spec is None or spec is False:
        return None
    if spec is True:
        return DEFAULT
    if isinstance(spec, Augment):
        return spec
    if isinstance(spec, str):
        spec = dict(_parse(item.strip()) for item in spec.split(","))
    if not isinstance(spec, dict):
        raise ValueError(f"`augment` must be a bool, str, dict or Augment. Received: augment={spec!r}")
    known = [field.name for field in dataclasses.fields(Augment)]
    for name in spec:
        if name not in known:
            raise unknown("augmentation", name, known)
    return Augment(**spec)


def _parse(item: str) -> tuple[str, bool | float | tuple[int, ...]]:
    """Returns ("rotation", 15.0) for "rotation=15", and ("flip_vertical", True) for "flip_vertical"."""
    name, equals, text = item.partition("=")
    if not equals:
        return name, True
    try:
        if name == "crop":
            sides = [int(side) for side in text.split("x")]
            return name, sides[0] if len(sides) == 1 else tuple(sides)
        return name, {"true": True, "false": False}[text.lower()] if name.startswith("flip") else float(text)
    except (KeyError, ValueError):
        value = "true or false" if name.startswith("flip") else "a number"
        value = "a number of pixels, as in 128 or 96x128" if name == "crop" else value
        raise ValueError(f"The augmentation `{name}` must be {value}. Received: '{item}'") from None
