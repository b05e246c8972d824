"""Wide residual networks: dropout inside the residual block."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.units import check_input_shape, conv_unit, normalize, plain_conv, pooled_head
from dropzoo.models.registry import register_model, register_variant
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def wide_resnet_28_10(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: int = 16,
    width: int = 10,
    blocks: int = 4,
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "wide_resnet_28_10",
) -> keras.Model:
    """A wide residual network of 28 layers, ten times as wide as a standard ResNet, for small images.

    Blocks are pre-activated: normalisation and activation come before a convolution.

    Sites: `conv1`, then for each block `stage1_block1_conv1` (after the first convolution and the normalisation
    and activation that follow it), `stage1_block1_branch` (the second convolution, before the addition) and
    `stage1_block1`; `features` and `head`. Plan `"paper"`: 0.3 at each `stage*_block*_conv1`, between the
    convolutions of a block. The plan `"filter_wise"` drops whole filters after every convolution.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first convolution.
        width: Positive int, the factor by which the stages are wider than those of a standard ResNet. They have 1,
            2 and 4 times `filters * width` channels.
        blocks: Positive int, residual blocks of each of the three stages; the network has `6 * blocks + 4` layers.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        include_top: Bool. If False, the model ends at the feature map `features`, and `num_classes` has no effect.
        name: Name of the model.

    Output shape:
        `(batch, num_classes)`, float32 logits; without the top `(batch, height, width, channels)`.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Zagoruyko and Komodakis, "Wide Residual Networks", 2016, arXiv:1605.07146.
    """
    check_count(filters, "filters")
    check_count(width, "width")
    check_count(blocks, "blocks")
    drop = Sites(dropout, paper={f"stage{s}_block{i}_conv1": 0.3 for s in (1, 2, 3) for i in range(1, blocks + 1)})
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    def preactivated(x: keras.KerasTensor, site: str) -> keras.KerasTensor:
        return kl.Activation(activation, name=f"{site}_act")(normalize(x, normalization, f"{site}_norm"))

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = drop(plain_conv(inputs, filters, "conv1", weight_decay=weight_decay, use_bias=False), "conv1")
    for stage in (1, 2, 3):
        channels = filters * width * 2 ** (stage - 1)
        for i in range(1, blocks + 1):
            block, strides = f"stage{stage}_block{i}", 2 if stage > 1 and i == 1 else 1
            start = preactivated(x, block)
            y = conv_unit(start, channels, f"{block}_conv1", drop, strides=strides, **unit)
            y = plain_conv(y, channels, f"{block}_branch", weight_decay=weight_decay, use_bias=False)
            if x.shape[-1] != channels:  # the shortcut starts after the activation, as the branch does
                options: dict[str, Any] = {"kernel_size": 1, "strides": strides, "weight_decay": weight_decay}
                x = plain_conv(start, channels, f"{block}_shortcut", use_bias=False, **options)
            # The branch comes first, so that Keras lists its weights first even if dropout makes it longer.
            x = drop(kl.Add(name=block)([drop(y, f"{block}_branch"), x]), block)
    x = preactivated(x, "features")
    outputs = pooled_head(x, num_classes, drop, include_top=include_top, weight_decay=weight_decay)
    drop.done()
    return keras.Model(inputs, outputs, name=name)


register_variant(
    wide_resnet_28_10,
    "wide_resnet_16_8",
    "A wide residual network of 16 layers, eight times as wide as a standard ResNet, for small images.",
    blocks=2,
    width=8,
)
