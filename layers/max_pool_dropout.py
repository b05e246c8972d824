"""Max-pooling of the units that dropout keeps."""

from typing import Any

from keras import ops

from dropzoo.layers._base import LiveRate
from dropzoo.layers._pooling import RandomPooling2D
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class MaxPoolDropout2D(LiveRate, RandomPooling2D):
    """Max-pools after dropping each unit with probability `rate`.

    Dropout before max-pooling is a random choice among the largest units of each window: the largest wins with
    probability `1 - rate`, the second largest with `rate * (1 - rate)`, and so on.

    In training the result is the largest unit that is kept, or 0 if the whole window is dropped. In inference it
    is the expectation, `sum_i (1 - rate) * rate**i * a_i` over the units of a window in descending order
    (probabilistic weighted pooling). With `rate=0` the layer is plain max-pooling.

    Differs from the paper, which sets dropped units to zero. For non-negative inputs, both give the same results.
    For negative inputs, the formula above holds only in this layer.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        pool_size: Positive int, or a pair of them `(height, width)`. Size of a window.
        strides: Positive int, or a pair of them. Step between windows; `pool_size` by default.
        padding: Str, `"valid"` or `"same"`.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 4.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`.

    Output shape:
        That of `keras.layers.MaxPooling2D`.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> x = keras.ops.reshape(keras.ops.convert_to_tensor([8.0, 4.0, 2.0, 1.0]), (1, 2, 2, 1))
    >>> float(layers.MaxPoolDropout2D(0.5)(x)[0, 0, 0, 0])  # 8 / 2 + 4 / 4 + 2 / 8 + 1 / 16
    5.3125

    Reference:
        Wu and Gu, "Towards Dropout Training for Convolutional Neural Networks", 2015, arXiv:1512.00242.
    """

    def __init__(
        self,
        rate: float,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, rate=rate, seed=seed, **kwargs)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        # Some devices start pooling from the lowest finite number, others from -inf; this works on both.
        lowest = ops.cast(-65504.0 if inputs.dtype == "float16" else -3e38, inputs.dtype)
        left = ops.where(draw.keep(ops.shape(inputs), rate), inputs, lowest)
        largest = ops.max_pool(left, self.pool_size, self.strides, self.padding, self.data_format)
        return ops.where(largest > lowest, largest, ops.zeros((), inputs.dtype))

    def infer(self, inputs: Tensor) -> Tensor:
        units = self.windows(inputs)
        falling = ops.flip(ops.sort(units, axis=-1), axis=-1)  # (..., units)
        rate = ops.convert_to_tensor(self.live_rate())
        places = ops.arange(falling.shape[-1], dtype="float32")
        weight = ops.cast((1.0 - rate) * ops.power(rate, places), inputs.dtype)
        parts = ops.where(weight > 0, falling * weight, ops.zeros((), inputs.dtype))
        return ops.sum(ops.where(falling == float("-inf"), ops.zeros((), inputs.dtype), parts), axis=-1)
