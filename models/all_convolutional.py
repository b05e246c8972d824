"""Networks without dense layers: All-CNN and Network in Network."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.units import check_input_shape, conv_unit, plain_conv
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def all_cnn_c(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: int = 96,
    normalization: str | None = None,
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "all_cnn_c",
) -> keras.Model:
    """All-CNN-C: nine convolutions without pooling; strides reduce the size of the maps.

    Sites: `input`, `module1_conv1` to `module1_conv3` (the one with the stride), `module1` (the end of the
    module), `module2_...`, `module3_conv1`, `module3_conv2`, `features`. Plan `"paper"`: 0.2 on the input, 0.5
    after each convolution that replaces a pooling.

    Differs from the paper: the first convolution of the last module is padded, so that images may have any size.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first module; twice as many in the others.
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
        Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015, arXiv:1412.6806.
    """
    check_count(filters, "filters")
    drop = Sites(dropout, paper={"input": 0.2, "module1": 0.5, "module2": 0.5})
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = drop(kl.Identity(name="input")(inputs), "input")
    for module, width in (("module1", filters), ("module2", 2 * filters)):
        for conv in (1, 2, 3):
            x = conv_unit(x, width, f"{module}_conv{conv}", drop, strides=2 if conv == 3 else 1, **unit)
        x = drop(kl.Identity(name=module)(x), module)
    x = conv_unit(x, 2 * filters, "module3_conv1", drop, **unit)
    x = conv_unit(x, 2 * filters, "module3_conv2", drop, kernel_size=1, **unit)
    outputs = _convolutional_head(x, num_classes, drop, include_top, weight_decay)
    drop.done()
    return keras.Model(inputs, outputs, name=name)


@register_model
def network_in_network(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: int = 192,
    normalization: str | None = None,
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "network_in_network",
) -> keras.Model:
    """Network in Network: after each convolution, two 1x1 convolutions act as a dense network for each pixel.

    Sites: `module1_conv1` to `module1_conv3`, `module1` (the pooling of the module), `module2_...`,
    `module3_conv1`, `module3_conv2`, `features`. Plan `"paper"`: 0.5 after the two poolings.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of a convolution. As in the authors' network, the second and third
            convolutions of the first module have 5/6 and 1/2 of this number.
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
        Lin, Chen and Yan, "Network In Network", 2014, arXiv:1312.4400.
    """
    check_count(filters, "filters")
    drop = Sites(dropout, paper={"module1": 0.5, "module2": 0.5})
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}
    narrow = (max(filters * 5 // 6, 1), max(filters // 2, 1))

    inputs = x = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    for module, widths, pooling in (
        ("module1", (filters, *narrow), kl.MaxPooling2D),
        ("module2", (filters,) * 3, kl.AveragePooling2D),
    ):
        for conv, width in enumerate(widths, start=1):
            x = conv_unit(x, width, f"{module}_conv{conv}", drop, kernel_size=5 if conv == 1 else 1, **unit)
        x = drop(pooling(3, strides=2, padding="same", name=module)(x), module)
    x = conv_unit(x, filters, "module3_conv1", drop, **unit)
    x = conv_unit(x, filters, "module3_conv2", drop, kernel_size=1, **unit)
    outputs = _convolutional_head(x, num_classes, drop, include_top, weight_decay)
    drop.done()
    return keras.Model(inputs, outputs, name=name)


def _convolutional_head(
    x: keras.KerasTensor, num_classes: int, drop: Sites, include_top: bool, weight_decay: float
) -> keras.KerasTensor:
    """Returns the logits: the site `features`, a convolution of size 1 to a map for each class, and its mean."""
    x = drop(kl.Identity(name="features")(x), "features")
    if include_top:
        check_count(num_classes, "num_classes")
        options: dict[str, Any] = {"kernel_size": 1, "weight_decay": weight_decay, "dtype": "float32"}
        x = plain_conv(x, num_classes, "logits_conv", **options)
        x = kl.GlobalAveragePooling2D(dtype="float32", name="logits")(x)  # (batch, classes)
    return x
