"""Residual networks for small images, and stochastic depth."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import SubsampleAndPad
from dropzoo.models.blocks.units import check_input_shape, conv_unit, normalize, plain_conv, pooled_head
from dropzoo.models.registry import register_model, register_variant
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def resnet20(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: int = 16,
    blocks: int = 3,
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "resnet20",
) -> keras.Model:
    """A residual network of 20 layers for small images.

    The network has three stages of `blocks` residual blocks, and each block has two convolutions. The first block
    of the second and of the third stage halves the map and doubles the channels, with a shortcut that has no
    weights (the paper's option A).

    Sites: `conv1`, then for each block `stage1_block1_conv1`, `stage1_block1_branch` (the end of the branch,
    before the addition: where whole branches are dropped) and `stage1_block1`; `features` and `head`.
    Plan `"paper"`: `drop_path` on block `l` of `L` at the rate `0.5 * l / L`. This is the stochastic depth that
    Huang et al. used in these networks; He et al. used no dropout.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first stage.
        blocks: Positive int, residual blocks of each stage; the network has `6 * blocks + 2` layers.
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
        He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv:1512.03385; Huang et al., "Deep
        Networks with Stochastic Depth", 2016, arXiv:1603.09382.
    """
    check_count(filters, "filters")
    count = 3 * check_count(blocks, "blocks")
    branches = [f"stage{stage}_block{i}_branch" for stage in (1, 2, 3) for i in range(1, blocks + 1)]
    paper = {branch: f"drop_path:{0.5 * i / count:.4g}" for i, branch in enumerate(branches, start=1)}
    drop = Sites(dropout, paper)
    unit: dict[str, Any] = {"normalization": normalization, "weight_decay": weight_decay}

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = conv_unit(inputs, filters, "conv1", drop, activation=activation, **unit)
    for stage in (1, 2, 3):
        width = filters * 2 ** (stage - 1)
        for i in range(1, blocks + 1):
            block, strides = f"stage{stage}_block{i}", 2 if stage > 1 and i == 1 else 1
            y = conv_unit(x, width, f"{block}_conv1", drop, strides=strides, activation=activation, **unit)
            y = _branch_end(y, width, f"{block}_branch", normalization, weight_decay)
            y = drop(y, f"{block}_branch")
            if strides > 1:
                x = SubsampleAndPad(strides, width, name=f"{block}_shortcut")(x)
            x = kl.Add(name=f"{block}_add")([x, y])
            x = drop(kl.Activation(activation, name=block)(x), block)
    outputs = pooled_head(x, num_classes, drop, include_top=include_top, weight_decay=weight_decay)
    drop.done()
    return keras.Model(inputs, outputs, name=name)


def _branch_end(
    x: keras.KerasTensor, width: int, site: str, normalization: str | None, weight_decay: float
) -> keras.KerasTensor:
    """Applies the second convolution and its normalisation; the last of the two has the site's name."""
    if normalization is None:
        return plain_conv(x, width, site, weight_decay=weight_decay)
    x = plain_conv(x, width, f"{site}_conv", weight_decay=weight_decay, use_bias=False)
    return normalize(x, normalization, site)


for _blocks in (5, 7, 9, 18):
    _layers = 6 * _blocks + 2
    register_variant(
        resnet20, f"resnet{_layers}", f"A residual network of {_layers} layers for small images.", blocks=_blocks
    )
