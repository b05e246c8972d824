"""Densely connected networks for small images."""

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.units import check_input_shape, normalize, plain_conv, pooled_head
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def densenet_bc_100_12(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    growth_rate: int = 12,
    layers_per_block: int = 16,
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "densenet_bc_100_12",
) -> keras.Model:
    """DenseNet-BC of 100 layers and growth rate 12: three dense blocks, with bottlenecks and compression.

    Each layer applies normalisation, activation and convolution, twice. Its output is concatenated with the
    outputs of all layers before it.

    Sites: `conv1`, then `block1_layer1_conv1` and `block1_layer1_conv2` (the convolutions themselves, before the
    next normalisation, where the paper has its dropout), `transition1_conv1`, `transition1_pool`, ..., `features`,
    `head`. Plan `"paper"`: 0.2 after each convolution except the first; the paper uses dropout only without data
    augmentation.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        growth_rate: Positive int, channels that each layer adds.
        layers_per_block: Positive int, layers of each block; the network has `6 * layers_per_block + 4` layers in
            all.
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
        Huang et al., "Densely Connected Convolutional Networks", 2017, arXiv:1608.06993.
    """
    check_count(growth_rate, "growth_rate")
    names = [
        f"block{b}_layer{i}"
        for b in (1, 2, 3)
        for i in range(1, check_count(layers_per_block, "layers_per_block") + 1)
    ]
    convs = [f"{layer}_conv{conv}" for layer in names for conv in (1, 2)]
    drop = Sites(dropout, paper=dict.fromkeys([*convs, "transition1_conv1", "transition2_conv1"], 0.2))

    def unit(x: keras.KerasTensor, filters: int, site: str, kernel_size: int) -> keras.KerasTensor:
        x = kl.Activation(activation, name=f"{site}_act")(normalize(x, normalization, f"{site}_norm"))
        x = plain_conv(x, filters, site, kernel_size=kernel_size, weight_decay=weight_decay, use_bias=False)
        return drop(x, site)

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = drop(plain_conv(inputs, 2 * growth_rate, "conv1", weight_decay=weight_decay, use_bias=False), "conv1")
    for block in (1, 2, 3):
        for i in range(1, layers_per_block + 1):
            y = unit(x, 4 * growth_rate, f"block{block}_layer{i}_conv1", 1)
            y = unit(y, growth_rate, f"block{block}_layer{i}_conv2", 3)
            x = kl.Concatenate(name=f"block{block}_layer{i}_conv2_concat")([x, y])
        if block < 3:
            transition = f"transition{block}"
            x = unit(x, x.shape[-1] // 2, f"{transition}_conv1", 1)
            pool = f"{transition}_pool"
            x = drop(kl.AveragePooling2D(2, padding="same", name=pool)(x), pool)
    x = kl.Activation(activation, name="features_act")(normalize(x, normalization, "features_norm"))
    outputs = pooled_head(x, num_classes, drop, include_top=include_top, weight_decay=weight_decay)
    drop.done()
    return keras.Model(inputs, outputs, name=name)
