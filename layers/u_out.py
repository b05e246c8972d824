"""Multiplicative uniform noise in place of a mask."""

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class UOut(BaseDropout):
    """Multiplies each unit by uniform noise between `1 - rate` and `1 + rate`.

    Use it in networks with batch normalisation. With dropout, the variance of a unit is different in training and
    in inference, so a BatchNormalization after the dropout learns the wrong variance. The noise of this layer has
    a variance of only `rate**2 / 3`, compared with `rate / (1 - rate)` for dropout.

    In training `y = x * (1 + u)` with `u ~ U(-rate, rate)` for each unit; in inference `y = x`. The paper calls
    the rate beta.

    Args:
        rate: Float in [0, 1). Half the width of the noise.
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
    >>> y = layers.UOut(0.3, seed=0)(keras.ops.ones((1000, 100)), training=True)
    >>> round(float(keras.ops.min(y)), 2), round(float(keras.ops.max(y)), 2)
    (0.7, 1.3)

    Reference:
        Li et al., "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift", 2018,
        arXiv:1801.05134.
    """

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        noise = (2.0 * draw.uniform(ops.shape(inputs)) - 1.0) * rate
        return inputs * ops.cast(1.0 + noise, inputs.dtype)
