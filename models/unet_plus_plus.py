"""U-Net++: nested U-Nets with dense skips."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import go_up, pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites
from dropzoo.models.surgery.ordered import in_forward_order


@register_model
def unet_plus_plus(
    input_shape: tuple[int | None, int | None, int] = (None, None, 1),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    depth: int = 4,
    filters: int = 32,
    upsample: str = "transpose",
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "unet_plus_plus",
) -> keras.Model:
    """U-Net++: a U-Net whose skips contain the decoders of all shallower U-Nets, with dense connections.

    The paper calls its nodes `X^{i,j}` (level `i` from 0, column `j`). Here the nodes of column 0 are the encoder
    (`encoder1` to `encoder4` and `bottleneck`). The other nodes are named by level (from 1) and column, such as
    `node1_1`.

    Sites: `encoder1_conv1`, `encoder1_conv2`, `encoder1_pool`, ..., `bottleneck_conv1`, `bottleneck_conv2`; for
    each node `node1_1_up`, `node1_1_conv1` and `node1_1_conv2`; and `head`. Plan `"paper"`: 0.5 at the end of the
    deepest encoder stage and of the bottleneck, as in the U-Net, because the paper mentions no dropout.

    Differs from the paper: there is no deep supervision; the logits are those of the last node of level 1.

    Args:
        input_shape: `(height, width, channels)`; height and width may be any numbers, or None.
        num_classes: Positive int, number of logits for each pixel; 1 for a single logit.
        dropout: The plan, see `build_model`.
        depth: Positive int, number of halvings.
        filters: Positive int, channels of the first level.
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
        Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", 2018, arXiv:1807.10165.
    """
    check_count(depth, "depth")
    check_count(filters, "filters")
    check_count(num_classes, "num_classes")
    drop = Sites(dropout, paper={f"encoder{depth}_conv2": 0.5, "bottleneck_conv2": 0.5})
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = PadToMultiple(2**depth, name="encoder1_conv1_pad")(inputs)
    rows: list[list[Any]] = []  # the nodes of each level, from left to right
    for level in range(1, depth + 2):
        stage = f"encoder{level}" if level <= depth else "bottleneck"
        for conv in (1, 2):
            x = conv_unit(x, filters * 2 ** (level - 1), f"{stage}_conv{conv}", drop, **unit)
        rows.append([x])
        if level <= depth:
            x = drop(kl.MaxPooling2D(name=f"{stage}_pool")(x), f"{stage}_pool")  # half the size
    for column in range(1, depth + 1):
        for level in range(1, depth + 2 - column):
            node, width = f"node{level}_{column}", filters * 2 ** (level - 1)
            x = go_up(rows[level][column - 1], width, f"{node}_up", upsample, drop, weight_decay)
            x = kl.Concatenate(name=f"{node}_conv1_concat")([*rows[level - 1], x])
            for conv in (1, 2):
                x = conv_unit(x, width, f"{node}_conv{conv}", drop, **unit)
            rows[level - 1].append(x)
    logits = pixel_logits(rows[0][-1], inputs, num_classes, drop, weight_decay)
    drop.done()
    return in_forward_order(inputs, logits, name)  # parallel branches: Keras' order would depend on the dropout
