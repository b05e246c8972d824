"""A plain CNN: modules of convolutions, then dense layers."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_choice, check_count
from dropzoo.models.blocks.units import check_input_shape, conv_unit, l2
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites

_HEADS = {"flatten": kl.Flatten, "average_pool": kl.GlobalAveragePooling2D, "max_pool": kl.GlobalMaxPooling2D}


@register_model
def simple_cnn(
    input_shape: tuple[int | None, int | None, int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: tuple[int, ...] = (32, 64, 128),
    convs_per_module: int | tuple[int, ...] = 1,
    kernel_size: int | tuple[int, ...] = 3,
    padding: str | tuple[str, ...] | None = None,
    downsample: str = "max_pool",
    strides: int | tuple[int, ...] | None = None,
    head: str = "flatten",
    dense: int | tuple[int, ...] = (128,),
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "simple_cnn",
) -> keras.Model:
    """A CNN of modules (convolutions, then downsampling), dense layers and a classifier.

    Sites: `input`, `module1_conv1`, `module1_conv2`, ..., `module1` (the module's end, after its downsampling),
    `module2_conv1`, ..., `features` (before Flatten or global pooling), `dense1`, ..., `head` (before the
    classifier). These are the placements that are discussed in the literature: on the input, after each
    convolution (even between two convolutions), between modules, before Flatten, and between dense layers. Plan
    `"paper"`: the rates that Srivastava et al. used in all layers of their convolutional networks, 0.1 on the
    input, 0.25 after each module except the last, 0.5 after the last module and after each dense layer.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None unless `head="flatten"`.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Tuple of positive ints, channels of each module; its length is the number of modules.
        convs_per_module: Positive int, the convolutions of a module, or a tuple with one for each module.
        kernel_size: Positive int, the side of the filters, or a tuple with one for each module.
        padding: `"same"` or `"valid"`, or a tuple of them, one for each module; `"valid"` by default if
            `downsample="valid"`, otherwise `"same"`.
        downsample: Str. How a module shrinks its maps: `"max_pool"`, `"average_pool"`, `"stride"` (of its last
            convolution) or `"valid"` (only by convolutions without padding).
        strides: Positive int, or a tuple of them, one for each module: the factor by which a module shrinks its
            maps, 2 by default. Not allowed with `downsample="valid"`.
        head: `"flatten"`, `"average_pool"` or `"max_pool"` (global).
        dense: Positive int, or a tuple of them, units of the dense layers; `()` for none.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """
    check_choice(downsample, "downsample", ("max_pool", "average_pool", "stride", "valid"))
    check_choice(head, "head", tuple(_HEADS))
    check_count(num_classes, "num_classes")
    if not isinstance(filters, (tuple, list)) or not filters:
        raise ValueError(f"`filters` must be a tuple of ints, one for each module. Received: filters={filters!r}")
    if downsample == "valid" and (strides is not None or padding not in (None, "valid")):
        raise ValueError(
            "With `downsample='valid'`, only convolutions without padding reduce the size, so `strides` or "
            f"another `padding` cannot be passed. Received: strides={strides!r}, padding={padding!r}"
        )
    modules = range(1, len(filters) + 1)
    convs = _per_module("convs_per_module", convs_per_module, len(filters))
    kernels = _per_module("kernel_size", kernel_size, len(filters))
    paddings = _per_module(
        "padding", ("valid" if downsample == "valid" else "same") if padding is None else padding, len(filters)
    )
    steps = _per_module(
        "strides", (1 if downsample == "valid" else 2) if strides is None else strides, len(filters)
    )
    units = (dense,) if isinstance(dense, int) else tuple(dense)
    paper = {"input": 0.1, **{f"module{module}": 0.25 for module in modules}, f"module{len(filters)}": 0.5}
    drop = Sites(dropout, paper | {f"dense{i}": 0.5 for i in range(1, len(units) + 1)})

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x = drop(kl.Identity(name="input")(inputs), "input")
    for module in modules:
        site, i = f"module{module}", module - 1
        for conv in range(1, check_count(convs[i], "convs_per_module") + 1):
            shrink = steps[i] if downsample == "stride" and conv == convs[i] else 1
            x = conv_unit(
                x,
                check_count(filters[i], "filters"),
                f"{site}_conv{conv}",
                drop,
                kernel_size=kernels[i],
                strides=shrink,
                padding=paddings[i],
                normalization=normalization,
                activation=activation,
                weight_decay=weight_decay,
            )
        x = drop(_end(downsample, steps[i], site)(x), site)

    x = drop(kl.Identity(name="features")(x), "features")
    if head == "flatten" and None in x.shape[1:]:
        raise ValueError(
            "`head='flatten'` needs images of a fixed size; use head='average_pool' for any size. "
            f"Received: input_shape={input_shape!r}"
        )
    x = _HEADS[head](name="features_flatten" if head == "flatten" else "features_pool")(x)  # (batch, channels)
    for i, width in enumerate(units, start=1):
        kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": l2(weight_decay)}
        x = kl.Dense(check_count(width, "dense"), name=f"dense{i}_dense", **kernel)(x)
        x = drop(kl.Activation(activation, name=f"dense{i}")(x), f"dense{i}")
    x = drop(kl.Identity(name="head")(x), "head")
    drop.done()
    logits = kl.Dense(num_classes, kernel_regularizer=l2(weight_decay), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _per_module(name: str, value: Any, modules: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * modules
    if len(values) != modules:
        raise ValueError(
            f"`{name}` must be one value, or one for each of the {modules} modules. Received: {name}={value!r}"
        )
    return values


def _end(downsample: str, step: int, site: str) -> keras.Layer:
    """Returns the layer that ends a module and has its name."""
    if downsample == "max_pool":
        return kl.MaxPooling2D(step, name=site)
    if downsample == "average_pool":
        return kl.AveragePooling2D(step, name=site)
    return kl.Identity(name=site)
