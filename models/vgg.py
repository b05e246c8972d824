"""VGG: stages of 3x3 convolutions and max-pooling, then dense layers."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_choice, check_count
from dropzoo.models.blocks.units import check_input_shape, conv_unit, l2, normalize
from dropzoo.models.registry import register_model, register_variant
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def vgg16(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: int = 64,
    convs: tuple[int, ...] = (2, 2, 3, 3, 3),
    head: str = "cifar",
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "vgg16",
) -> keras.Model:
    """VGG16: 13 convolutions in five stages, with a head for small images or for ImageNet.

    Sites: `stage1_conv1`, `stage1_conv2`, `stage1_pool`, ..., `features`, `dense1` (and `dense2`), `head`.
    Plan `"paper"` for `head="cifar"`: that of Liu and Deng, 0.3 after the very first convolution, 0.4 after the
    others except the last of each stage, 0.5 before and after the dense layer; for `head="imagenet"`: that of
    Simonyan and Zisserman, 0.5 after both dense layers.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None unless `head="imagenet"`.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first stage; each stage has twice as many as the one before it, up
            to eight times `filters`.
        convs: Tuple of positive ints, convolutions of each stage.
        head: `"cifar"`: global average pooling and one dense layer of `8 * filters` units; `"imagenet"`: two dense
            layers of 4096 units on the flattened map.
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
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015,
        arXiv:1409.1556; Liu and Deng, "Very Deep Convolutional Neural Network Based Image Classification Using
        Small Training Sample Size", ACPR 2015.
    """
    check_count(filters, "filters")
    check_choice(head, "head", ("cifar", "imagenet"))
    if not isinstance(convs, (tuple, list)) or not convs:
        raise ValueError(f"`convs` must be a tuple of ints, one for each stage. Received: convs={convs!r}")
    sites = [f"stage{s}_conv{c}" for s, count in enumerate(convs, start=1) for c in range(1, count)]
    inner = dict.fromkeys(sites, 0.4) | {"stage1_conv1": 0.3, "features": 0.5} if head == "cifar" else {}
    dense = {"dense1": 0.5} if head == "cifar" else {"dense1": 0.5, "dense2": 0.5}
    drop = Sites(dropout, paper=inner | dense if include_top else inner)
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    inputs = x = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    for stage, count in enumerate(convs, start=1):
        for conv in range(1, check_count(count, "convs") + 1):
            x = conv_unit(x, filters * min(2 ** (stage - 1), 8), f"stage{stage}_conv{conv}", drop, **unit)
        pool = f"stage{stage}_pool"  # half the size, rounded up, so that a map of one pixel stays
        x = drop(kl.MaxPooling2D(padding="same", name=pool)(x), pool)
    x = drop(kl.Identity(name="features")(x), "features")
    if not include_top:
        drop.done()
        return keras.Model(inputs, x, name=name)
    check_count(num_classes, "num_classes")
    if head == "imagenet" and None in x.shape[1:]:
        raise ValueError(
            "`head='imagenet'` needs images of a fixed size; use head='cifar' for any size. "
            f"Received: input_shape={input_shape!r}"
        )
    small_head = head == "cifar"
    x = (kl.GlobalAveragePooling2D if small_head else kl.Flatten)(name="features_pool")(x)  # (batch, channels)
    for i, units in enumerate((8 * filters,) if small_head else (4096, 4096), start=1):
        kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": l2(weight_decay)}
        x = kl.Dense(units, name=f"dense{i}_dense", **kernel)(x)
        x = normalize(x, normalization, f"dense{i}_norm") if small_head else x
        x = drop(kl.Activation(activation, name=f"dense{i}")(x), f"dense{i}")
    x = drop(kl.Identity(name="head")(x), "head")
    drop.done()
    logits = kl.Dense(num_classes, kernel_regularizer=l2(weight_decay), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


for _layers, _convs in ((11, (1, 1, 2, 2, 2)), (13, (2, 2, 2, 2, 2)), (19, (2, 2, 4, 4, 4))):
    register_variant(
        vgg16,
        f"vgg{_layers}",
        f"VGG{_layers}: {_layers - 3} convolutions in five stages, with a head for small images or for ImageNet.",
        convs=_convs,
    )
