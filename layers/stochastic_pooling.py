"""Pooling that picks one unit of each window at random."""

from typing import Any

from keras import ops

from dropzoo.layers._pooling import RandomPooling2D
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class StochasticPooling2D(RandomPooling2D):
    """Pools by picking one unit of each window at random, with a probability proportional to its activation.

    It is a random compromise between max pooling and average pooling. There is no rate to choose, because the
    activations determine the probabilities.

    In training the result is unit `i` of the window with probability `p_i = a_i / sum_j a_j`, where
    `a = max(x, 0)`. In inference it is the expectation, `sum_i p_i * a_i`. Both are 0 if no unit is positive.

    Args:
        pool_size: Positive int, or a pair of them `(height, width)`. Size of a window.
        strides: Positive int, or a pair of them. Step between windows; `pool_size` by default.
        padding: Str, `"valid"` or `"same"`.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the picks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 4, after a ReLU: negative units count as 0.
        training: Bool. Whether to pick; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`.

    Output shape:
        That of `keras.layers.MaxPooling2D`.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> x = keras.ops.reshape(keras.ops.convert_to_tensor([3.0, 1.0, 0.0, 0.0]), (1, 2, 2, 1))
    >>> float(layers.StochasticPooling2D(2)(x)[0, 0, 0, 0])  # 3 * 3 / 4 + 1 * 1 / 4
    2.5

    Reference:
        Zeiler and Fergus, "Stochastic Pooling for Regularization of Deep Convolutional Neural Networks", 2013,
        arXiv:1301.3557.
    """

    rate = property()  # it can be neither read nor set: the activations decide

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, seed=seed, **kwargs)

    def sample(self, inputs: Tensor, draw: Draw) -> Tensor:
        units = self._positive(inputs)  # (..., units)
        until = ops.cumsum(ops.cast(units, "float32"), axis=-1)
        total = until[..., -1]
        chance = draw.uniform(ops.shape(total)) * total
        # Picks the unit in whose part of the sum the draw falls.
        before = ops.concatenate([ops.zeros_like(until[..., :1]), until[..., :-1]], axis=-1)
        picked = ops.logical_and(before <= chance[..., None], chance[..., None] < until)
        return ops.sum(ops.where(picked, units, ops.zeros((), units.dtype)), axis=-1)

    def infer(self, inputs: Tensor) -> Tensor:
        units = self._positive(inputs)
        total = ops.sum(units, axis=-1, keepdims=True)
        share = units / ops.where(total > 0, total, ops.ones((), units.dtype))
        return ops.sum(share * units, axis=-1)

    def _positive(self, inputs: Tensor) -> Tensor:
        units = self.windows(inputs)
        return ops.maximum(units, ops.zeros((), units.dtype))
