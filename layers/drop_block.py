"""Dropout of square blocks of a feature map."""

from typing import Any

import keras
from keras import ops

from dropzoo.layers._base import BaseDropout, Draw, drop_and_scale
from dropzoo.layers._checks import check_data_format, check_pair
from dropzoo.layers._masks import keep_mask
from dropzoo.layers._registry import register_layer


@register_layer
class DropBlock2D(BaseDropout):
    """Drops contiguous blocks of each feature map; each unit with probability `rate`.

    For convolutional layers: a block removes a whole semantic part, which its neighbours cannot fill in.

    Every position whose block touches the map, those partly outside included, starts a block with probability
    `g`, independently. A unit lies under `n = block_height * block_width` such positions wherever it is, so it
    is dropped with probability `1 - (1 - g)**n`, and `g = 1 - (1 - rate)**(1 / n)` makes that exactly `rate`: on
    any map, also where the block is larger, and as often at the border as in the middle. Kept units are scaled
    by `1 / (1 - rate)`.

    Differs from the paper: there only whole blocks are placed, `g` is an approximation that ignores overlaps,
    borders are dropped less often than the middle, and the scale is the realised fraction of the batch (so that
    a sample depends on its neighbours). At rate 0.1 and block 7 that formula drops far more than 10 % of small
    maps when blocks may be placed anywhere.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        block_size: Int or pair of ints `(height, width)`, the size of a block. 1 gives `Dropout`.
        data_format: `"channels_last"` or `"channels_first"`; Keras' global setting by default.
        seed: Int, the seed of the masks.

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

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        block_height, block_width = check_pair(self.block_size, "block_size")
        batch, height, width, channels = ops.shape(inputs)
        if self.data_format == "channels_first":
            batch, channels, height, width = ops.shape(inputs)
        start_rate = -ops.expm1(ops.log1p(-rate) / (block_height * block_width))
        starts = (batch, height + block_height - 1, width + block_width - 1, channels)
        free = ops.cast(keep_mask(draw(starts), start_rate), "float32")  # 0 where a block starts
        # A unit is kept where no block starts within reach: a minimum over the block, rows, then columns.
        free = -ops.max_pool(-free, (block_height, 1), strides=1, data_format="channels_last")
        free = -ops.max_pool(-free, (1, block_width), strides=1, data_format="channels_last")
        if self.data_format == "channels_first":
            free = ops.transpose(free, (0, 3, 1, 2))  # (batch, channels, height, width)
        return drop_and_scale(inputs, free > 0, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size, "data_format": self.data_format}
