"""Dropout of the strongest activations."""

from typing import Any

import keras
from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class MaxDropout(BaseDropout):
    """Drops the largest units of each sample: all units above a random threshold near the maximum.

    The network has to work without its strongest units.

    The values of each sample are mapped to [0, 1] by their minimum and maximum, and units that are mapped above
    `1 - r` are set to zero, where `r ~ U(0, rate)` for each sample. The other units keep their original values. So
    `rate` is not a fraction of the units: it says how far below the maximum a unit can be and still be dropped.
    The number of units dropped depends on the distribution of the values.

    Differs from the paper: there, the whole batch is scaled to [0, 1] together and has one threshold, so a sample
    depends on the rest of its batch.

    Args:
        rate: Float in [0, 1). The fraction of the range of values, from the maximum down, in which units can be
            dropped.
        seed: Int or None. Seed of the thresholds; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, ...)`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> x = keras.ops.convert_to_tensor([[0.0, 1.0, 2.0, 10.0]])
    >>> [round(v, 1) for v in layers.MaxDropout(0.5, seed=0)(x, training=True)[0].numpy().tolist()]
    [0.0, 1.0, 2.0, 0.0]

    Reference:
        Santos et al., "MaxDropout: Deep Neural Network Regularization Based on Maximum Output Values", 2020,
        arXiv:2007.13723.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.input_spec = keras.InputSpec(min_ndim=2)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = ops.shape(inputs)
        axes = tuple(range(1, len(shape)))
        x = ops.stop_gradient(ops.cast(inputs, "float32"))
        # An empty batch or map has no extremes, hence the initial values.
        low = ops.min(x, axis=axes, keepdims=True, initial=float("inf"))
        high = ops.max(x, axis=axes, keepdims=True, initial=float("-inf"))
        depth = rate * draw.uniform((shape[0], *(1,) * len(axes)))  # r of each sample
        dropped = x > high - depth * (high - low)
        return ops.where(dropped, ops.zeros((), inputs.dtype), inputs)
