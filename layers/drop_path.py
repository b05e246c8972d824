"""Stochastic depth: whole samples of a branch are dropped."""

from typing import Any

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws.plain import Draw, drop_units


@register_layer
class DropPath(BaseDropout):
    """Drops all of a sample with probability `rate`: at the end of a residual branch, before the addition.

    What remains of a block whose branch is dropped is its shortcut, so each sample trains a shallower network.
    The usual rates rise linearly with depth, from 0 at the first block to 0.1 or 0.5 at the last:
    `models.ramp`. At a site that is no branch the whole signal of a sample is lost.

    `y[n] = x[n] * m[n] / (1 - rate)` with `m ~ Bernoulli(1 - rate)`.

    Differs from the paper: there a block is dropped for the whole batch, and its output is scaled by the
    probability to keep it in inference; here each sample has its own draw, as has become usual, and the scale is
    applied in training.

    Args:
        rate: Float in [0, 1). Fraction of the samples to drop.
        seed: Int, the seed of the masks.

    Call arguments:
        inputs: Floating point tensor of any rank from 1.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, ...)`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.DropPath(0.5, seed=0)(keras.ops.ones((6, 4, 4, 3)), training=True)
    >>> keras.ops.convert_to_numpy(y).std(axis=(1, 2, 3)).max().item()  # a sample is kept or dropped as a whole
    0.0

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", 2016, arXiv:1603.09382.
    """

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        shape = ops.shape(inputs)
        return drop_units(inputs, (shape[0], *(1,) * (len(shape) - 1)), rate, draw)
