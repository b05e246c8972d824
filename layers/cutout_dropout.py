"""Dropout of one rectangle of all feature maps."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class CutoutDropout(BaseDropout):
    """Drops the same rectangle from all feature maps of a sample; each unit is dropped with probability `rate`.

    This is the Cutout augmentation for feature maps; at the site `input`, it acts on the images, like Cutout. One
    part of the picture is missing, so the network has to use the other parts. `DropBlock2D` differs: it removes
    several blocks, and different blocks from each map.

    The rectangle has the proportions of the map and lies anywhere, even partly outside. A rectangle of `h` rows
    can lie at `size + h - 1` places on a map of `size` rows, and `h` of these places cover a given row, wherever
    that row is. So the row is covered with probability `h / (size + h - 1)`. This probability should be
    `sqrt(rate)`, but `h` is a whole number. So `h` is drawn at random from the two whole numbers whose
    probabilities are just below and just above `sqrt(rate)`, and the average probability is exactly `sqrt(rate)`.
    The width is drawn in the same way, so every unit is dropped with probability `rate`, at the border as well as
    in the middle. Kept units are scaled by `1 / (1 - rate)`.

    Differs from the paper: there, the square has a fixed side, its centre lies on the image (so the middle is
    covered more often than the border), and pixels are not scaled.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the rectangles; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 4.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.CutoutDropout(0.25, seed=0)(keras.ops.ones((400, 12, 8, 2)), training=True)
    >>> abs(float(keras.ops.mean(keras.ops.cast(y == 0, "float32"))) - 0.25) < 0.03
    True

    Reference:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
        arXiv:1708.04552.
    """

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=4)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = ops.shape(inputs)
        channels_last = self.data_format == "channels_last"
        height, width = shape[1:3] if channels_last else shape[2:4]
        chance = draw.uniform((shape[0], 4))  # (batch, 4)
        rows = _covered(height, ops.sqrt(rate), chance[:, 0:1], chance[:, 1:2])  # (batch, height)
        columns = _covered(width, ops.sqrt(rate), chance[:, 2:3], chance[:, 3:4])  # (batch, width)
        keep = ops.logical_not(ops.logical_and(rows[:, :, None], columns[:, None, :]))
        return draw.drop_and_scale(inputs, ops.expand_dims(keep, -1 if channels_last else 1), rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


def _covered(size: int | Tensor, rate: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Returns an interval, made from two draws of U(0, 1), that covers each row with probability `rate`."""
    rows = ops.cast(ops.arange(size), "float32")[None]  # (1, size)
    size = ops.cast(size, "float32")
    length = ops.floor(rate * (size - 1.0) / (1.0 - rate))  # the longest that covers at most `rate`

    def coverage(length: Tensor) -> Tensor:
        return length / ops.maximum(size + length - 1.0, 1.0)

    more = (rate - coverage(length)) / (coverage(length + 1.0) - coverage(length))
    length = length + ops.cast(first < more, "float32")  # (batch, 1)
    start = ops.floor(second * (size + length - 1.0)) - (length - 1.0)
    return ops.logical_and(rows >= start, rows < start + length)
