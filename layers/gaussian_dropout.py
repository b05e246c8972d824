"""Multiplicative Gaussian noise in place of a mask."""

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class GaussianDropout(BaseDropout):
    """Multiplies each unit by Gaussian noise with mean 1 and the variance of dropout at `rate`.

    No unit is set to zero, so no unit is ever completely missing. The mean and the variance of each unit are the
    same as with `Dropout`.

    In training `y = x * (1 + s * e)` with `e ~ N(0, 1)` for each unit and `s = sqrt(rate / (1 - rate))`; in
    inference `y = x`.

    Differs from `keras.layers.GaussianDropout`: `rate` is live (see `LiveRate`), and `rate=1` (an infinite
    variance) raises an error at once instead of in the first step.

    Args:
        rate: Float in [0, 1). The rate at which `Dropout` has the same variance as the noise.
        seed: Int or None. Seed of the noise; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 1 or more.
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
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014,
        section 10.
    """

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        noise = ops.sqrt(rate / (1.0 - rate)) * draw.normal(ops.shape(inputs))
        return inputs * ops.cast(1.0 + noise, inputs.dtype)
