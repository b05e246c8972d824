"""Dropout of single units."""

from typing import Any

from keras import ops

from dropzoo.common.checks import check_choice
from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Shape, Tensor


@register_layer
class Dropout(BaseDropout):
    """Drops each unit with probability `rate`.

    This is the original dropout, and the usual choice after dense layers. On feature maps, the neighbours of a
    dropped unit carry nearly the same information, so at the same rate `SpatialDropout2D` and `DropBlock2D`
    regularise more.

    In training `y = x * m / (1 - rate)` with `m ~ Bernoulli(1 - rate)` for each unit, so that the expectation of
    `y` is `x`; in inference `y = x`. That is `scaling="inverted"`. The first papers scaled in inference instead:
    with `scaling="standard"`, `y = x * m` in training and `y = x * (1 - rate)` in inference.

    Differs from `keras.layers.Dropout`: `rate` is live (see `LiveRate`); `rate=1` raises an error; a seed gives
    the same mask eagerly, in a graph and under XLA; and the replicas of a `tf.distribute` strategy draw different
    masks.

    Args:
        rate: Float in [0, 1). Fraction of the units to drop.
        noise_shape: None, or a tuple of ints and None with one entry for each axis of the inputs. Shape of the
            mask; None for the shape of the inputs. In a tuple, None stands for the size of the inputs, and 1
            shares the mask along that axis.
        seed: Int or None. Seed of the masks; None takes one from Keras' global seed.
        scaling: Str, `"inverted"` or `"standard"`.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 1 or more.
        training: Bool. Whether to drop; defaults to False.

    Input shape:
        Any.

    Output shape:
        The input shape.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layer = layers.Dropout(0.5, seed=1)
    >>> y = layer(keras.ops.ones((2, 3)), training=True)  # 0 or 1 / (1 - 0.5)
    >>> sorted(set(keras.ops.convert_to_numpy(y).ravel().tolist()))
    [0.0, 2.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014;
        Hinton et al., 2012, arXiv:1207.0580.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        scaling: str = "inverted",
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = check_noise_shape(noise_shape)
        self.scaling = check_choice(scaling, "scaling", ("inverted", "standard"))

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        shape = mask_shape(inputs, self.noise_shape)
        if self.scaling == "inverted":
            return draw.drop_units(inputs, shape, rate)
        return ops.where(draw.keep(shape, rate), inputs, ops.zeros((), inputs.dtype))

    def infer(self, inputs: Tensor) -> Tensor:
        if self.scaling == "inverted":
            return inputs
        return inputs * ops.cast(1.0 - ops.convert_to_tensor(self.live_rate()), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape, "scaling": self.scaling}


def check_noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    """Returns `noise_shape` as a tuple or None; raises a ValueError if it is neither."""
    if noise_shape is None:
        return None
    ok = isinstance(noise_shape, (tuple, list))
    if not ok or not all(n is None or (type(n) is int and n > 0) for n in noise_shape):
        raise ValueError(
            "`noise_shape` must be a tuple of positive ints and None, one for each axis of the inputs. "
            f"Received: noise_shape={noise_shape!r}"
        )
    return tuple(noise_shape)


def mask_shape(inputs: Tensor, noise_shape: tuple[int | None, ...] | None) -> Shape:
    """Returns the shape to draw for `inputs`: `noise_shape` with each None filled in."""
    shape = ops.shape(inputs)
    if noise_shape is None:
        return shape
    if len(noise_shape) != len(shape):
        raise ValueError(
            f"`noise_shape` must have one entry for each of the {len(shape)} axes of the inputs. "
            f"Received: noise_shape={noise_shape}, inputs of shape {tuple(inputs.shape)}"
        )
    return tuple(size if n is None else n for n, size in zip(noise_shape, shape, strict=True))
