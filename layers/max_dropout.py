"""Dropout of the strongest activations."""

from typing import Any

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws.plain import Draw, uniform


@register_layer
class MaxDropout(BaseDropout):
    """Drops the units of the largest values, up to the top `rate` of each sample's range.

    The opposite of keeping what is strong: the network has to work without its loudest units.

    Each sample is brought to [0, 1] by its smallest and largest value, and units above `1 - r` are set to zero,
    where `r ~ U(0, rate)` for each sample. The others stay as they are, unscaled.
    So `rate` is no fraction of the units: it is how far down from the maximum a unit can be dropped, and how
    many that hits depends on the distribution of the values.

    Differs from the paper: there the whole batch is brought to [0, 1] together and has one threshold, so that a
    sample depends on its neighbours.

    Args:
        rate: Float in [0, 1). The largest part of the range, from the top, that is dropped.
        seed: Int, the seed of the thresholds.

    Call arguments:
        inputs: Floating point tensor of any rank from 2.
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

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        shape = ops.shape(inputs)
        axes = tuple(range(1, len(shape)))
        x = ops.stop_gradient(ops.cast(inputs, "float32"))
        # An empty batch or map has no extremes, hence the initial values.
        low = ops.min(x, axis=axes, keepdims=True, initial=float("inf"))
        high = ops.max(x, axis=axes, keepdims=True, initial=float("-inf"))
        depth = rate * uniform(draw((shape[0], *(1,) * len(axes))))  # r of each sample
        dropped = x > high - depth * (high - low)
        return ops.where(dropped, ops.zeros((), inputs.dtype), inputs)
