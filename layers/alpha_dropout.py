"""Dropout that keeps self-normalising networks normalised."""

from typing import Any

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor
from dropzoo.layers.dropout import check_noise_shape, mask_shape

# The limit of SELU for x -> -inf, -scale * alpha: the value of a unit that is off.
_OFF = -1.0507009873554805 * 1.6732632423543772


@register_layer
class AlphaDropout(BaseDropout):
    """Sets dropped units to the negative saturation value of SELU, and restores mean and variance.

    Use it in networks of `selu` units with `lecun_normal` weights: their activations have mean 0 and variance 1.
    This layer keeps both; `Dropout` does not.

    In training `y = a * (x if kept else o) + b` with `o = -1.758` (SELU's limit),
    `a = ((1 - rate) * (1 + rate * o**2)) ** -0.5` and `b = -a * rate * o`; in inference `y = x`.

    Differs from `keras.layers.AlphaDropout`: `rate` is live (see `LiveRate`), and `rate=1` raises an error at once
    instead of in the first step.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        noise_shape: None, or a tuple of ints and None. Shape of the mask; see `Dropout`.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 1 or more.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        Any.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> x = keras.random.normal((1000, 100), seed=0)
    >>> y = layers.AlphaDropout(0.3, seed=0)(x, training=True)
    >>> abs(round(float(keras.ops.mean(y)), 1)), round(float(keras.ops.std(y)), 1)
    (0.0, 1.0)

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = check_noise_shape(noise_shape)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        keep = draw.keep(mask_shape(inputs, self.noise_shape), rate)
        a = ((1.0 - rate) * (1.0 + rate * _OFF**2)) ** -0.5
        b = -a * rate * _OFF
        dtype = inputs.dtype
        off = ops.cast(_OFF, dtype)
        return ops.where(keep, inputs, off) * ops.cast(a, dtype) + ops.cast(b, dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape}
