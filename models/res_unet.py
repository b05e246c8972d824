"""U-Net of residual units."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import go_up, pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit, normalize, plain_conv
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def res_unet(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    depth: int = 3,
    filters: int = 64,
    upsample: str = "resize",
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "res_unet",
) -> keras.Model:
    """U-Net whose stages are residual units with pre-activation; strides reduce the size of the maps.

    Sites: for each stage `encoder1_conv1`, `encoder1_branch` (the end of the branch, before the addition: where
    whole branches are dropped) and `encoder1_block`; `skip1`, ..., `bottleneck_conv1`, `bottleneck_branch`,
    `bottleneck_block`, `decoder1_up`, `decoder1_conv1`, `decoder1_branch`, `decoder1_block`, ..., `head`.
    Plan `"paper"`: 0.5 at the end of the deepest encoder stage and of the bottleneck, as in the U-Net, because
    Zhang et al. used no dropout.

    Differs from the paper: after the resizing in the decoder, a convolution halves the channels.

    Args:
        input_shape: `(height, width, channels)`; height and width may be any numbers, or None.
        num_classes: Positive int, number of logits for each pixel; 1 for a single logit.
        dropout: The plan, see `build_model`.
        depth: Positive int, number of halvings.
        filters: Positive int, channels of the first stage.
        upsample: `"transpose"` (convolution) or `"resize"` (bilinear, then a convolution).
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, height, width, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Zhang, Liu and Wang, "Road Extraction by Deep Residual U-Net", 2018, arXiv:1711.10684.
    """
    check_count(depth, "depth")
    check_count(filters, "filters")
    check_count(num_classes, "num_classes")
    drop = Sites(dropout, paper={f"encoder{depth}_block": 0.5, "bottleneck_block": 0.5})
    options: dict[str, Any] = {
        "normalization": normalization,
        "activation": activation,
        "weight_decay": weight_decay,
        "drop": drop,
    }

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x, skips = PadToMultiple(2**depth, name="encoder1_conv1_pad")(inputs), []
    for level in range(1, depth + 1):
        first = level == 1  # it begins with a convolution, at full size
        x = _unit(
            x, filters * 2 ** (level - 1), f"encoder{level}", 1 if first else 2, preactivate=not first, **options
        )
        skips.append(drop(kl.Identity(name=f"skip{level}")(x), f"skip{level}"))
    x = _unit(x, filters * 2**depth, "bottleneck", 2, **options)
    for level in range(1, depth + 1):
        stage, width = f"decoder{level}", filters * 2 ** (depth - level)
        x = go_up(x, width, f"{stage}_up", upsample, drop, weight_decay)
        x = kl.Concatenate(name=f"{stage}_conv1_concat")([skips.pop(), x])
        x = _unit(x, width, stage, 1, **options)
    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    return keras.Model(inputs, logits, name=name)


def _unit(
    x: keras.KerasTensor,
    width: int,
    stage: str,
    strides: int,
    *,
    normalization: str | None,
    activation: str,
    weight_decay: float,
    drop: Sites,
    preactivate: bool = True,
) -> keras.KerasTensor:
    """Returns the output of a residual unit: two convolutions, and a shortcut that is a convolution of size 1."""
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}
    y = x
    if preactivate:
        y = normalize(y, normalization, f"{stage}_block_norm")
        y = kl.Activation(activation, name=f"{stage}_block_act")(y)
    y = conv_unit(y, width, f"{stage}_conv1", drop, strides=strides, **unit)
    y = drop(plain_conv(y, width, f"{stage}_branch", weight_decay=weight_decay), f"{stage}_branch")
    shortcut: dict[str, Any] = {"kernel_size": 1, "strides": strides, "weight_decay": weight_decay}
    x = plain_conv(x, width, f"{stage}_block_shortcut", **shortcut)
    # The branch comes first, so that Keras lists its weights first even if dropout makes it the longer path.
    return drop(kl.Add(name=f"{stage}_block")([y, x]), f"{stage}_block")
