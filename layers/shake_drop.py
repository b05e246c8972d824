"""Stochastic depth that shakes a branch instead of dropping it."""

from typing import Any

from keras import ops

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws.plain import Draw, draw_keep, uniform

_LEVELS = ("sample", "channel", "unit")


@register_layer
class ShakeDrop(BaseDropout):
    """Multiplies a residual branch by noise, another one in the backward pass, for the fraction `rate`.

    At the end of a residual branch, before the addition, with rates that rise with depth (`models.ramp`), mostly
    to 0.5. Stronger than `DropPath`: a branch that is not kept comes back with a random sign and size, and its
    gradient with another.

    In training `y = x` for the fraction `1 - rate` of the samples; for the others `y = alpha * x` with
    `alpha ~ U(-1, 1)`, and their gradient is multiplied by `beta ~ U(0, 1)` instead of alpha. In inference
    `y = (1 - rate) * x`, which is the expectation.

    Differs from the paper: whether a branch is kept is drawn for each sample and not once for the batch.

    Args:
        rate: Float in [0, 1). Fraction of the samples whose branch is shaken.
        level: `"sample"`, `"channel"` or `"unit"`: for what alpha and beta are drawn anew; channels are the last
            axis.
        seed: Int, the seed of the noise.

    Call arguments:
        inputs: Floating point tensor of any rank from 2.
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
        if level not in _LEVELS:
            raise ValueError(f"`level` must be 'sample', 'channel' or 'unit'. Received: level={level!r}")
        self.level = level

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        shape = tuple(ops.shape(inputs))
        single = (shape[0], *(1,) * (len(shape) - 1))
        noise = {"sample": single, "channel": (*single[:-1], shape[-1]), "unit": shape}[self.level]
        keep = draw_keep(single, rate, draw)
        alpha = ops.where(keep, 1.0, 2.0 * uniform(draw(noise)) - 1.0)
        beta = ops.where(keep, 1.0, uniform(draw(noise)))
        alpha, beta = ops.cast(alpha, inputs.dtype), ops.cast(beta, inputs.dtype)
        # The value is that of alpha, the gradient that of beta.
        return beta * inputs + ops.stop_gradient((alpha - beta) * inputs)

    def infer(self, inputs: Any) -> Any:
        return inputs * ops.cast(1.0 - ops.convert_to_tensor(self.live_rate()), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "level": self.level}
