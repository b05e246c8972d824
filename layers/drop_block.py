"""Dropout of square blocks of a feature map."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format, check_pair
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class DropBlock2D(BaseDropout):
    """Drops contiguous blocks of each feature map; each unit is dropped with probability `rate`.

    Use it after convolutional layers: a dropped block removes a whole part of the object, and the neighbouring
    units cannot supply what is missing.

    At each position from which a block covers at least one unit of the map, a block starts with probability `g`,
    independently of the others. Every unit, wherever it is, can be covered from `n = block_height * block_width`
    positions, so it is dropped with probability `1 - (1 - g)**n`. With `g = 1 - (1 - rate)**(1 / n)` this is
    exactly `rate`, at the border as well as in the middle, and also on maps that are smaller than the block. Kept
    units are scaled by `1 / (1 - rate)`.

    Differs from the paper: there, only whole blocks are placed, so borders are dropped less often than the middle;
    `g` is an approximation, because it ignores that blocks overlap; and units are scaled by the fraction that is
    kept in the batch, so a sample depends on the rest of its batch. For blocks that can lie anywhere, as here, the
    paper's formula would drop far more than 10 % of a small map at rate 0.1 and block size 7.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        block_size: Positive int, or a pair of them `(height, width)`. Size of a block; 1 gives `Dropout`.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 4.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`. Height
        and width may be unknown, different, and smaller than the block.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.DropBlock2D(0.2, block_size=3, seed=0)(keras.ops.ones((64, 24, 8, 16)), training=True)
    >>> round(float(keras.ops.mean(keras.ops.cast(y == 0, "float32"))), 2)
    0.2

    Reference:
        Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018, arXiv:1810.12890.
    """

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, int] = 7,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        check_pair(block_size, "block_size")
        self.block_size = block_size if isinstance(block_size, int) else tuple(block_size)
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=4)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        block_height, block_width = check_pair(self.block_size, "block_size")
        batch, height, width, channels = ops.shape(inputs)
        if self.data_format == "channels_first":
            batch, channels, height, width = ops.shape(inputs)
        start_rate = -ops.expm1(ops.log1p(-rate) / (block_height * block_width))
        starts = (batch, height + block_height - 1, width + block_width - 1, channels)
        keep = draw.keep(starts, start_rate)  # False where a block starts
        # A unit is kept where no block starts within its reach.
        keep = draw.run(_all_within, keep, (block_height, block_width))
        if self.data_format == "channels_first":
            keep = ops.transpose(keep, (0, 3, 1, 2))  # (batch, channels, height, width)
        return draw.drop_and_scale(inputs, keep, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size, "data_format": self.data_format}


def _all_within(keep: Tensor, block: tuple[int, int]) -> Tensor:
    """Returns whether all positions of each block are True; height and width shrink by those of a block minus 1.

    It does the rows first, then the columns, by doubling: it joins the mask with a shifted copy of itself, which
    looks at 2, then 4, then 7 neighbours.
    """
    for axis, size in zip((1, 2), block, strict=True):
        reach = 1
        while reach < size:
            step = min(reach, size - reach)
            count = ops.shape(keep)[axis] - step
            first, second = (_slice(keep, axis, start, count) for start in (0, step))
            keep, reach = ops.logical_and(first, second), reach + step
    return keep


def _slice(x: Tensor, axis: int, start: int, count: int | Tensor) -> Tensor:
    index = [slice(None)] * 4
    index[axis] = slice(start, start + count)
    return x[tuple(index)]
