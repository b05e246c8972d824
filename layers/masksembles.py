"""Dropout with a few fixed masks, each of which makes a member of an ensemble."""

from typing import Any

import keras
import numpy as np
from keras import ops

from dropzoo.common.checks import check_count, check_data_format, check_seed
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class Masksembles(BaseDropout):
    """Drops channels with one of a few fixed masks; each mask drops about a fraction `rate` of the channels.

    Use it if you want an ensemble but can store only one network. Each mask selects a part of the network. So with
    `masks=4`, one network contains four networks, which share most of their weights. In training, each image of a
    batch trains one of them, chosen at random. This is a compromise between `Dropout`, where each image trains a
    new network, and a deep ensemble, whose networks share no weights. With `MonteCarlo(model, num_samples=masks)`,
    each image gets one sample with each mask of a layer.

    Mask m drops channel c if `v[m, c] < rate`, where `v[m, c] = (p[m, c] + u[c]) / masks`, `p[:, c]` is a
    permutation of 0, ..., masks - 1, and `u` is a permutation of the numbers `(i + 1/2) / channels`. So each
    channel is dropped by `masks * rate` masks, rounded up or down. If the rate rises, a mask drops the same
    channels and some more. Averaged over all masks, the dropped fraction differs from `rate` by at most
    `1 / (2 * masks * channels)`. The permutations depend only on `mask_seed`, `masks` and the number of channels,
    so a saved model has the same masks. Kept units are scaled by `1 / (1 - rate)`.

    Differs from the paper: the mask of a sample is random, instead of depending on its place in the batch; each
    layer chooses its mask independently of the other layers; the argument is the dropped fraction, instead of
    a scale for the overlap of the masks; and inference uses no mask, as for all layers of this package.

    Args:
        rate: Float in [0, 1). Fraction of the channels that a mask drops, on average over all masks.
        masks: Int above 0. Number of masks.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        mask_seed: Int in [0, 2**32). Seed of the masks themselves.
        seed: Int or None. Seed of the choice among the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more, whose number of channels is known.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, ..., channels)`, or `(batch, channels, ...)` for `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras, numpy as np
    >>> from dropzoo import layers
    >>> y = layers.Masksembles(0.5, masks=4, seed=0)(keras.ops.ones((64, 8)), training=True)
    >>> len(np.unique(np.asarray(y), axis=0))
    4

    Reference:
        Durasov, Bagautdinov, Baque and Fua, "Masksembles for Uncertainty Estimation", 2021, arXiv:2012.08334.
    """

    def __init__(
        self,
        rate: float,
        masks: int = 4,
        data_format: str | None = None,
        mask_seed: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.masks = check_count(masks, "masks")
        self.data_format = check_data_format(data_format)
        self.mask_seed = check_seed(mask_seed, "mask_seed")
        self.input_spec = keras.InputSpec(min_ndim=2)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        rank = len(inputs.shape)
        axis = rank - 1 if self.data_format == "channels_last" else 1
        channels = inputs.shape[axis]
        if channels is None:
            raise ValueError(
                f"The number of channels must be known. Received: inputs of the shape {tuple(inputs.shape)}"
            )
        batch = ops.shape(inputs)[0]
        chosen = ops.cast(ops.floor(draw.uniform((batch, 1)) * self.masks), "int32")[:, 0]
        values = ops.take(ops.convert_to_tensor(_values(self.masks, channels, self.mask_seed)), chosen, axis=0)
        keep = ops.reshape(values >= rate, (batch, *(channels if i == axis else 1 for i in range(1, rank))))
        return draw.drop_and_scale(inputs, keep, rate)

    def get_config(self) -> dict[str, Any]:
        own = {"masks": self.masks, "data_format": self.data_format, "mask_seed": self.mask_seed}
        return {**super().get_config(), **own}


def _values(masks: int, channels: int, seed: int) -> np.ndarray:
    """Float32 numbers in (0, 1), `(masks, channels)`; a mask drops the channels with numbers below the rate."""
    random = np.random.default_rng([seed, masks, channels])
    places = random.permuted(np.tile(np.arange(masks)[:, None], (1, channels)), axis=0)
    inside = (random.permutation(channels) + 0.5) / channels
    return ((places + inside) / masks).astype("float32")
