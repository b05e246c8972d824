"""Parts of the builders: a convolution unit, normalisation, the head of a classifier."""

import math
from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count, unknown
from dropzoo.models.sites import Sites

_NORMALIZATIONS = ("batch", "group", "layer")


def normalize(
    x: keras.KerasTensor, normalization: str | None, name: str, epsilon: float = 1e-3
) -> keras.KerasTensor:
    """Returns the normalised tensor `x`.

    Args:
        x: Tensor `(..., channels)`.
        normalization: `"batch"`, `"group"`, `"layer"`, or None to return `x` itself.
        name: Name of the layer.
        epsilon: Float, added to the variance.
    """
    layer = _normalization(normalization, name, x.shape[-1], epsilon)
    return x if layer is None else layer(x)


def _normalization(normalization: str | None, name: str, channels: int, epsilon: float) -> keras.Layer | None:
    if normalization is None:
        return None
    if normalization not in _NORMALIZATIONS:
        raise unknown("normalization", normalization, [*_NORMALIZATIONS, "None"])
    if normalization == "batch":
        # With Keras' momentum of 0.99, the statistics lag behind in runs of a few hundred steps.
        return kl.BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)
    if normalization == "group":  # 32 groups, as Wu and He 2018, arXiv:1803.08494, or a divisor
        return kl.GroupNormalization(math.gcd(32, channels), epsilon=epsilon, name=name)
    return kl.LayerNormalization(epsilon=epsilon, name=name)


def conv_unit(
    x: keras.KerasTensor,
    filters: int,
    site: str,
    drop: Sites,
    *,
    kernel_size: int | tuple[int, int] = 3,
    strides: int = 1,
    padding: str = "same",
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
) -> keras.KerasTensor:
    """Applies a convolution, a normalisation, an activation and the dropout of the site.

    Args:
        x: Map `(batch, height, width, channels)`.
        filters: Int, channels of the result.
        site: Name of the site and of the activation; the other layers are `<site>_conv` and `<site>_norm`.
        drop: The builder's `Sites`.
        kernel_size: Int or pair of ints.
        strides: Int.
        padding: `"same"` or `"valid"`.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernel.
    """
    x = kl.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=normalization is None,
        kernel_initializer="he_normal",
        kernel_regularizer=l2(weight_decay),
        name=f"{site}_conv",
    )(x)
    x = normalize(x, normalization, f"{site}_norm")
    return drop(kl.Activation(activation, name=site)(x), site)


def plain_conv(
    x: keras.KerasTensor,
    filters: int,
    name: str,
    *,
    kernel_size: int = 3,
    strides: int = 1,
    weight_decay: float,
    **kwargs: Any,
) -> keras.KerasTensor:
    """Applies a padded convolution, and nothing after it; `kwargs` are passed to `Conv2D`."""
    return kl.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        kernel_initializer="he_normal",
        kernel_regularizer=l2(weight_decay),
        name=name,
        **kwargs,
    )(x)


def pooled_head(
    x: keras.KerasTensor,
    num_classes: int,
    drop: Sites,
    *,
    include_top: bool,
    weight_decay: float,
    normalization: str | None = None,
) -> keras.KerasTensor:
    """Returns the logits of a classifier: `features`, global average pooling, `head` and a dense layer.

    Args:
        x: Map `(batch, height, width, channels)`.
        num_classes: Int, number of logits.
        drop: The builder's `Sites`.
        include_top: Bool. If False, the result is the map of the site `features`.
        weight_decay: Float of at least 0, the L2 penalty on the kernel.
        normalization: `"batch"`, `"group"`, `"layer"` or None, for the pooled features.
    """
    x = drop(kl.Identity(name="features")(x), "features")
    if not include_top:
        return x
    x = kl.GlobalAveragePooling2D(name="features_pool")(x)  # (batch, channels)
    x = normalize(x, normalization, "features_norm", epsilon=1e-6)
    x = drop(kl.Identity(name="head")(x), "head")
    kernel = {"kernel_regularizer": l2(weight_decay), "dtype": "float32"}
    return kl.Dense(check_count(num_classes, "num_classes"), name="logits", **kernel)(x)


def l2(weight_decay: float) -> keras.Regularizer | None:
    """Returns the penalty `weight_decay * sum(w ** 2)`, or None for 0, so that the model has no penalty at all."""
    if (
        not isinstance(weight_decay, (int, float))
        or isinstance(weight_decay, bool)
        or not 0 <= weight_decay < math.inf
    ):
        raise ValueError(f"`weight_decay` must be a number of at least 0. Received: weight_decay={weight_decay!r}")
    return keras.regularizers.L2(weight_decay) if weight_decay else None


def check_input_shape(input_shape: Any) -> tuple[int | None, int | None, int]:
    """Returns `(height, width, channels)`, where height and width may be None; otherwise raises a ValueError."""
    ok = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and isinstance(input_shape[2], int)
    if not ok or not all(n is None or (isinstance(n, int) and n > 0) for n in input_shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels), where height and width may be None. "
            f"Received: input_shape={input_shape!r}"
        )
    return tuple(input_shape)
