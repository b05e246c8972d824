"""The One Hundred Layers Tiramisu: a U-Net of dense blocks."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import pixel_logits
from dropzoo.models.blocks.units import check_input_shape, l2, normalize, plain_conv
from dropzoo.models.registry import register_model, register_variant
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def fc_densenet103(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    filters: int = 48,
    growth_rate: int = 16,
    layers_per_block: tuple[int, ...] = (4, 5, 7, 10, 12, 15),
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "fc_densenet103",
) -> keras.Model:
    """FC-DenseNet of 103 layers: a U-Net whose stages are dense blocks.

    To limit the number of channels, the decoder upsamples only the maps that the previous block has added.

    Sites: `conv1`, then `encoder1_conv1`, `encoder1_conv2`, ... (the convolutions of a block, before the next
    normalisation, where the paper has its dropout), `encoder1_down` (the convolution of the transition),
    `encoder1_pool`, `skip1`, ..., `bottleneck_conv1`, ..., `decoder1_up`, `decoder1_conv1`, ..., `head`. Plan
    `"paper"`: 0.2 after each convolution except the first and the last.

    Args:
        input_shape: `(height, width, channels)`; height and width may be any numbers, or None.
        num_classes: Positive int, number of logits for each pixel; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first convolution.
        growth_rate: Positive int, channels that each layer adds.
        layers_per_block: Tuple of two or more positive ints: the layers of each encoder stage, then of the
            bottleneck. The decoder mirrors the encoder.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, height, width, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Jégou et al., "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation",
        2017, arXiv:1611.09326.
    """
    check_count(filters, "filters")
    check_count(growth_rate, "growth_rate")
    check_count(num_classes, "num_classes")
    if not isinstance(layers_per_block, (tuple, list)) or len(layers_per_block) < 2:
        raise ValueError(
            "`layers_per_block` must be a tuple of at least two ints; the last is for the bottleneck. "
            f"Received: layers_per_block={layers_per_block!r}"
        )
    *counts, center = (check_count(count, "layers_per_block") for count in layers_per_block)
    depth = len(counts)
    blocks = {f"encoder{i}": count for i, count in enumerate(counts, start=1)} | {"bottleneck": center}
    blocks |= {f"decoder{i}": count for i, count in enumerate(reversed(counts), start=1)}
    paper = [f"{block}_conv{i}" for block, count in blocks.items() for i in range(1, count + 1)]
    drop = Sites(dropout, paper=dict.fromkeys([*paper, *(f"encoder{i}_down" for i in range(1, depth + 1))], 0.2))

    def unit(x: keras.KerasTensor, width: int, site: str, kernel_size: int = 3) -> keras.KerasTensor:
        x = kl.Activation(activation, name=f"{site}_act")(normalize(x, normalization, f"{site}_norm"))
        return drop(plain_conv(x, width, site, kernel_size=kernel_size, weight_decay=weight_decay), site)

    def dense_block(x: keras.KerasTensor, block: str) -> tuple[Any, list[Any]]:
        """Returns the input of the block joined with all maps that it has added, and a list of these maps."""
        added = []
        for i in range(1, blocks[block] + 1):
            added.append(unit(x, growth_rate, f"{block}_conv{i}"))
            x = kl.Concatenate(name=f"{block}_conv{i}_join")([x, added[-1]])
        return x, added

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x, skips = PadToMultiple(2**depth, name="conv1_pad")(inputs), []
    x = drop(plain_conv(x, filters, "conv1", weight_decay=weight_decay), "conv1")
    for level in range(1, depth + 1):
        stage = f"encoder{level}"
        x, _ = dense_block(x, stage)
        skips.append(drop(kl.Identity(name=f"skip{level}")(x), f"skip{level}"))
        x = unit(x, x.shape[-1], f"{stage}_down", kernel_size=1)
        x = drop(kl.MaxPooling2D(name=f"{stage}_pool")(x), f"{stage}_pool")  # half the size
    x, added = dense_block(x, "bottleneck")
    for level in range(1, depth + 1):
        stage = f"decoder{level}"
        new = kl.Concatenate(name=f"{stage}_up_concat")(added) if len(added) > 1 else added[0]
        kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": l2(weight_decay)}
        up = kl.Conv2DTranspose(new.shape[-1], 3, strides=2, padding="same", name=f"{stage}_up", **kernel)(new)
        x = kl.Concatenate(name=f"{stage}_conv1_concat")([drop(up, f"{stage}_up"), skips.pop()])
        x, added = dense_block(x, stage)
    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    return keras.Model(inputs, logits, name=name)


for _layers, _count, _growth in ((56, 4, 12), (67, 5, 16)):
    register_variant(
        fc_densenet103,
        f"fc_densenet{_layers}",
        f"FC-DenseNet of {_layers} layers: a U-Net whose stages are dense blocks.",
        layers_per_block=(_count,) * 6,
        growth_rate=_growth,
    )
