"""Dropout of the weakest units."""

import numbers
from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class TargetedDropout(BaseDropout):
    """Drops weak channels with probability `rate`; a fraction `target_fraction` of the channels counts as weak.

    The network learns to do without its weak channels, so that they can be pruned afterwards with little loss.

    The channels of a sample are ranked by their mean magnitude (over the map, if there is one). Each of the
    `floor(target_fraction * channels)` weakest is set to zero with probability `rate`, independently; the others
    are never dropped. Kept units are not scaled, because the dropped ones are small and are meant to be pruned.

    Differs from the paper, which ranks weights, or units by the norm of their weights, once for the whole batch.
    This layer has no weights and ranks its inputs, for each sample.

    Args:
        rate: Float in [0, 1). Probability that a targeted channel is dropped.
        target_fraction: Float in [0, 1]. Fraction of the channels that may be dropped: the weakest ones.
        data_format: Str, `"channels_last"` or `"channels_first"`. Keras' global setting by default.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        `(batch, ..., channels)`, or `(batch, channels, ...)` for `"channels_first"`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layer = layers.TargetedDropout(0.99, target_fraction=0.5, seed=0)
    >>> layer(keras.ops.convert_to_tensor([[4.0, -1.0, 3.0, 2.0]]), training=True)[0].numpy().tolist()
    [4.0, 0.0, 3.0, 0.0]

    Reference:
        Gomez et al., "Learning Sparse Networks Using Targeted Dropout", 2019, arXiv:1905.13678.
    """

    def __init__(
        self,
        rate: float,
        target_fraction: float = 0.5,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        is_number = isinstance(target_fraction, numbers.Real) and not isinstance(target_fraction, bool)
        if not is_number or not 0 <= target_fraction <= 1:
            raise ValueError(
                "`target_fraction` must be a number in [0, 1], the fraction of the channels that may be dropped. "
                f"Received: target_fraction={target_fraction!r}"
            )
        self.target_fraction = target_fraction
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(min_ndim=2)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        rank = len(inputs.shape)
        axis = rank - 1 if self.data_format == "channels_last" else 1
        rest = [a for a in range(1, rank) if a != axis]
        strength = ops.abs(ops.stop_gradient(ops.cast(inputs, "float32")))
        strength = ops.mean(strength, axis=rest, keepdims=True) if rest else strength  # one for each channel
        order = ops.argsort(ops.argsort(strength, axis=axis), axis=axis)  # 0 for the weakest
        channels = ops.cast(ops.shape(inputs)[axis], "float32")
        spared = ops.cast(order, "float32") >= ops.floor(self.target_fraction * channels)
        keep = ops.logical_or(spared, draw.keep(ops.shape(strength), rate))
        return ops.where(keep, inputs, ops.zeros((), inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        own = {"target_fraction": self.target_fraction, "data_format": self.data_format}
        return {**super().get_config(), **own}
