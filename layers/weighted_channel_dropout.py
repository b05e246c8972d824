"""Dropout of feature maps that favours the strong ones."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class WeightedChannelDropout(BaseDropout):
    """Drops a fraction `rate` of the feature maps of each sample; maps with a high mean are kept more often.

    Use it in the last stages of a network that is fine-tuned on few images. In these stages, only a few maps
    respond to the object. This layer mostly keeps these maps, and drops the others, which are mostly noise.

    The score of a map is its mean, or 0 if the mean is negative. A sample keeps `k = (1 - rate) * channels` of its
    maps by weighted random selection without replacement: those with the largest keys `u**(1 / score)`, where
    `u ~ U(0, 1)`. A `k` between two whole numbers is rounded up or down at random, so that the fraction is `rate`
    on average. Kept maps are scaled by `1 / (1 - rate)`. No gradient flows through the scores.

    Differs from the paper, which then drops some of the selected maps by plain dropout (put a `SpatialDropout2D`
    after this layer for that), and scales by the sum of all scores divided by the sum of the selected scores.

    Args:
        rate: Float in [0, 1). Fraction of the feature maps to drop.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 4, preferably the output of a ReLU.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.WeightedChannelDropout(0.25, seed=0)(keras.ops.ones((2, 6, 5, 8)), training=True)
    >>> keras.ops.convert_to_numpy(y[0, 0, 0] == 0).sum().item()
    2

    Reference:
        Hou and Wang, "Weighted Channel Dropout for Regularization of Deep Convolutional Neural Network", AAAI
        2019.
    """

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=4)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        channels_last = self.data_format == "channels_last"
        space = (1, 2) if channels_last else (2, 3)
        score = ops.stop_gradient(ops.mean(ops.cast(inputs, "float32"), axis=space))  # (batch, channels)
        batch, channels = ops.shape(score)
        # The logarithm of the key; maps without a positive mean come last, in random order.
        key = ops.log(draw.uniform((batch, channels))) / ops.maximum(score, 1e-12)
        rank = ops.argsort(ops.argsort(-key, axis=-1), axis=-1)  # 0 for the largest key
        count = ops.floor((1.0 - rate) * ops.cast(channels, "float32") + draw.uniform((batch, 1)))
        keep = ops.cast(rank, "float32") < count  # (batch, channels)
        keep = ops.expand_dims(keep, (1, 2) if channels_last else (2, 3))
        return draw.drop_and_scale(inputs, keep, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}
