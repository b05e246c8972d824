"""Multiplicative Gaussian noise in place of a mask."""

from typing import Any

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws.plain import Draw, standard_normal


@register_layer
class GaussianDropout(BaseDropout):
    """Multiplies each unit by Gaussian noise of mean 1 and the variance of dropout at `rate`.

    Nothing is set to zero, so no unit is ever entirely missing; mean and variance of each unit are those of
    `Dropout`.

    In training `y = x * (1 + s * e)` with `e ~ N(0, 1)` for each unit and `s = sqrt(rate / (1 - rate))`; in
    inference `y = x`.

    Differs from `keras.layers.GaussianDropout`: `rate` is live, and `rate=1` (an infinite variance) is refused
    instead of failing in the first step.

    Args:
        rate: Float in [0, 1). The drop rate whose noise is imitated.
        seed: Int, the seed of the noise.

    Call arguments:
        inputs: Floating point tensor of any rank.
        training: Bool. Whether to add noise; defaults to False.

    Input shape:
        Any.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.GaussianDropout(0.5, seed=0)(keras.ops.ones((1000, 100)), training=True)
    >>> round(float(keras.ops.std(y)), 1)  # sqrt(0.5 / (1 - 0.5))
    1.0

    Reference:
        Srivastava et al., JMLR 15, 2014, section 10.
    """

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        noise = ops.sqrt(rate / (1.0 - rate)) * standard_normal(draw(ops.shape(inputs)))
        return inputs * ops.cast(1.0 + noise, inputs.dtype)
