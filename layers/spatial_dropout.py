"""Dropout of whole feature maps, in one, two and three dimensions."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


class _SpatialDropout(BaseDropout):
    """Drops whole channels, with one draw for each sample and channel; the subclasses set the rank."""

    rank = 0  # of the inputs

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=self.rank)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = ops.shape(inputs)
        ones = (1,) * (self.rank - 2)
        channels_last = self.data_format == "channels_last"
        mask = (shape[0], *ones, shape[-1]) if channels_last else (shape[0], shape[1], *ones)
        return draw.drop_units(inputs, mask, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


@register_layer
class SpatialDropout1D(_SpatialDropout):
    """Drops whole channels of a sequence with probability `rate`.

    In training `y[n, :, c] = x[n, :, c] * m[n, c] / (1 - rate)` with `m ~ Bernoulli(1 - rate)`; in inference
    `y = x`. When to use it: see `SpatialDropout2D`.

    Differs from `keras.layers.SpatialDropout1D`: see `SpatialDropout2D`.

    Args:
        rate: Float in [0, 1). Fraction of the channels to drop.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 3.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> tuple(layers.SpatialDropout1D(0.2)(keras.ops.ones((2, 5, 4)), training=True).shape)
    (2, 5, 4)

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015, arXiv:1411.4280.
    """

    rank = 3


@register_layer
class SpatialDropout2D(_SpatialDropout):
    """Drops whole feature maps with probability `rate`.

    Use it after convolutional layers. The units of a feature map are strongly correlated, so dropping single units
    mostly just lowers the effective learning rate. If a whole map is missing, the network has to find the
    information elsewhere. The layer is cheap: it draws one random number for each sample and channel.

    In training `y[n, :, :, c] = x[n, :, :, c] * m[n, c] / (1 - rate)` with `m ~ Bernoulli(1 - rate)`; in inference
    `y = x`.

    Differs from `keras.layers.SpatialDropout2D`: `rate` is live (see `LiveRate`); `get_config` keeps the dtype
    policy and `trainable`; `rate=1` raises an error; a seed gives the same mask eagerly, in a graph and under XLA;
    and the replicas of a `tf.distribute` strategy draw different masks.

    Args:
        rate: Float in [0, 1). Fraction of the feature maps to drop.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
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
    >>> y = layers.SpatialDropout2D(0.5, seed=3)(keras.ops.ones((1, 8, 6, 4)), training=True)
    >>> keras.ops.convert_to_numpy(y).std(axis=(1, 2)).max().item()  # a map is kept or dropped as a whole
    0.0

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015, arXiv:1411.4280.
    """

    rank = 4


@register_layer
class SpatialDropout3D(_SpatialDropout):
    """Drops whole channels of a volume with probability `rate`.

    In training `y[n, :, :, :, c] = x[n, :, :, :, c] * m[n, c] / (1 - rate)` with `m ~ Bernoulli(1 - rate)`; in
    inference `y = x`. When to use it: see `SpatialDropout2D`.

    Differs from `keras.layers.SpatialDropout3D`: see `SpatialDropout2D`.

    Args:
        rate: Float in [0, 1). Fraction of the channels to drop.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 5.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, depth, height, width, channels)`, or `(batch, channels, depth, height, width)` for
        `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> tuple(layers.SpatialDropout3D(0.2)(keras.ops.ones((1, 4, 4, 4, 2)), training=True).shape)
    (1, 4, 4, 4, 2)

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015, arXiv:1411.4280.
    """

    rank = 5
