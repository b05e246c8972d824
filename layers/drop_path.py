"""Stochastic depth: a residual branch is dropped for whole samples."""

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class DropPath(BaseDropout):
    """Drops whole samples with probability `rate`.

    Put it at the end of a residual branch, before the addition. If the branch of a block is dropped, only the
    shortcut remains, so each sample trains a shallower network. Rates usually rise linearly with depth, from 0 at
    the first block to 0.1 or 0.5 at the last: see `models.ramp`. At any other site, this layer would erase the
    whole signal of a sample.

    In training `y[n] = x[n] * m[n] / (1 - rate)` with `m ~ Bernoulli(1 - rate)`; in inference `y = x`.

    Differs from the paper: there, a block is dropped for the whole batch, and its output is scaled in inference by
    the probability of keeping it. This layer draws for each sample separately, as is usual today, and scales in
    training.

    Args:
        rate: Float in [0, 1). Fraction of the samples to drop.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 1 or more.
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

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = ops.shape(inputs)
        return draw.drop_units(inputs, (shape[0], *(1,) * (len(shape) - 1)), rate)
