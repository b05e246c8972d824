"""Dropout of weights instead of units, in dense layers and convolutions."""

from typing import Any

import keras
from keras import ops

from dropzoo.layers._base import LiveRate
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class DropConnectDense(LiveRate, keras.layers.Dense):
    """A dense layer that drops each of its weights with probability `rate`.

    Dropout on the inputs always removes a whole row of the kernel. This layer drops each connection separately, so
    the noise is finer and the ensemble of networks is larger.

    In training `y = activation(x @ (w * m / (1 - rate)) + b)` with `m ~ Bernoulli(1 - rate)` for each weight; in
    inference it is the plain dense layer.

    Differs from the paper: the whole batch shares one mask, because a mask for each sample would need a kernel for
    each sample; biases are never dropped; inference takes the mean of the weights instead of sampling the
    distribution of the activations (`serving.MonteCarlo` does sample it, with a new mask for each Monte-Carlo
    sample).

    Args:
        units: Positive int. Size of the output.
        rate: Float in [0, 1). Fraction of the weights to drop.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.layers.Dense`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., units)`.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layer = layers.DropConnectDense(3, rate=0.5, activation="relu", seed=0)
    >>> tuple(layer(keras.ops.ones((2, 4)), training=True).shape), layer.count_params()
    ((2, 3), 15)

    Reference:
        Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """

    def __init__(self, units: int, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(units, rate=rate, seed=seed, **kwargs)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        outputs = ops.matmul(inputs, _dropped(self.kernel, rate, draw))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def infer(self, inputs: Tensor) -> Tensor:
        return keras.layers.Dense.call(self, inputs)


@register_layer
class DropConnectConv2D(LiveRate, keras.layers.Conv2D):
    """A convolution that drops each of its weights with probability `rate`.

    A dropped weight is missing at every position of the map, so each step trains filters with different holes.

    In training the kernel is `w * m / (1 - rate)` with `m ~ Bernoulli(1 - rate)` for each weight; in inference it
    is the plain convolution.

    Differs from the paper: there, only dense layers drop weights. For other differences, see `DropConnectDense`.

    Args:
        filters: Positive int. Number of output channels.
        kernel_size: Positive int, or a pair of them. Size of the filters.
        rate: Float in [0, 1). Fraction of the weights to drop.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.layers.Conv2D`.

    Call arguments:
        inputs: Floating point tensor of rank 4.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`.

    Output shape:
        That of `keras.layers.Conv2D`.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layer = layers.DropConnectConv2D(8, 3, rate=0.2, padding="same", activation="relu")
    >>> tuple(layer(keras.ops.ones((2, 9, 5, 4)), training=True).shape)
    (2, 9, 5, 8)

    Reference:
        Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        rate: float,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, rate=rate, seed=seed, **kwargs)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        outputs = self.convolution_op(inputs, _dropped(self.kernel, rate, draw))
        if self.bias is not None:
            shape = (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1)
            outputs = ops.add(outputs, ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)

    def infer(self, inputs: Tensor) -> Tensor:
        return keras.layers.Conv2D.call(self, inputs)


def _dropped(kernel: Tensor, rate: Tensor, draw: Draw) -> Tensor:
    kernel = ops.convert_to_tensor(kernel)[None]  # with a batch axis, which draws expect
    return draw.drop_units(kernel, ops.shape(kernel), rate)[0]
