"""Stochastic depth that shakes a branch instead of dropping it."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_choice
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class ShakeDrop(BaseDropout):
    """Multiplies a residual branch and its gradient by different noise, for a fraction `rate` of the samples.

    Put it at the end of a residual branch, before the addition, with rates that rise with depth, usually to 0.5
    (see `models.ramp`). It is stronger than `DropPath`: a branch that is not kept is multiplied by a random
    number, which may be negative, and its gradient is multiplied by a different one.

    In training `y = x` for a fraction `1 - rate` of the samples. For the others `y = alpha * x` with
    `alpha ~ U(-1, 1)`, and their gradient is multiplied by `beta ~ U(0, 1)` instead of alpha. In inference
    `y = (1 - rate) * x`, the expectation.

    Differs from the paper: there, one draw decides for the whole batch whether a branch is kept; here, each sample
    has its own draw.

    Args:
        rate: Float in [0, 1). Fraction of the samples whose branch is shaken.
        level: Str, `"sample"`, `"channel"` or `"unit"`: whether each sample, each channel of a sample or each unit
            has its own alpha and beta. The channels are the last axis.
        seed: Int or None. Seed of the noise; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more.
        training: Bool. Whether to shake; defaults to False.

    Input shape:
        `(batch, ...)`.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> y = layers.ShakeDrop(0.5, seed=1)(keras.ops.ones((100, 4, 4, 3)), training=True)
    >>> bool(keras.ops.min(y) < 0), bool(keras.ops.max(y) == 1)
    (True, True)

    Reference:
        Yamada et al., "ShakeDrop Regularization for Deep Residual Learning", 2018, arXiv:1802.02375.
    """

    def __init__(self, rate: float, level: str = "sample", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.level = check_choice(level, "level", ("sample", "channel", "unit"))
        self.input_spec = keras.InputSpec(min_ndim=2)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = tuple(ops.shape(inputs))
        single = (shape[0], *(1,) * (len(shape) - 1))
        noise = {"sample": single, "channel": (*single[:-1], shape[-1]), "unit": shape}[self.level]
        keep = draw.keep(single, rate)
        alpha = ops.where(keep, 1.0, 2.0 * draw.uniform(noise) - 1.0)
        beta = ops.where(keep, 1.0, draw.uniform(noise))
        alpha, beta = ops.cast(alpha, inputs.dtype), ops.cast(beta, inputs.dtype)
        # The value is that of `alpha * inputs`, the gradient that of `beta * inputs`.
        return beta * inputs + ops.stop_gradient((alpha - beta) * inputs)

    def infer(self, inputs: Tensor) -> Tensor:
        return inputs * ops.cast(1.0 - ops.convert_to_tensor(self.live_rate()), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "level": self.level}
