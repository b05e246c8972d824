"""U-Net whose skips pass through attention gates."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import go_up, pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit, plain_conv
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites, add_parts

add_parts("phi", "psi", "sigmoid", "theta")  # the parts of a gate


@register_model
def attention_unet(
    input_shape: tuple[int | None, int | None, int] = (None, None, 1),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    depth: int = 4,
    filters: int = 64,
    upsample: str = "transpose",
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "attention_unet",
) -> keras.Model:
    """U-Net with attention gates: the deeper level helps to compute a weight for each pixel of a skip.

    The gate of a skip is `sigmoid(psi(relu(theta(skip) + phi(deeper))))`, resized to the size of the skip and
    multiplied by it; `theta` halves the size, so that both terms have the size of the deeper level.

    Sites: those of `unet`; `skip1` is the skip after its gate. Plan `"paper"`: 0.5 at the end of the deepest
    encoder stage and of the bottleneck, as in the U-Net, because Oktay et al. used no dropout.

    Differs from the paper: the model is two-dimensional and has no deep supervision.

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
        Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", 2018, arXiv:1804.03999.
    """
    check_count(depth, "depth")
    check_count(filters, "filters")
    check_count(num_classes, "num_classes")
    drop = Sites(dropout, paper={f"encoder{depth}_conv2": 0.5, "bottleneck_conv2": 0.5})
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x, skips = PadToMultiple(2**depth, name="encoder1_conv1_pad")(inputs), []
    for level in range(1, depth + 1):
        stage, width = f"encoder{level}", filters * 2 ** (level - 1)
        x = conv_unit(x, width, f"{stage}_conv1", drop, **unit)
        x = conv_unit(x, width, f"{stage}_conv2", drop, **unit)
        skips.append(x)
        x = drop(kl.MaxPooling2D(name=f"{stage}_pool")(x), f"{stage}_pool")  # half the size

    x = conv_unit(x, filters * 2**depth, "bottleneck_conv1", drop, **unit)
    x = conv_unit(x, filters * 2**depth, "bottleneck_conv2", drop, **unit)

    for i in range(1, depth + 1):
        stage, level = f"decoder{i}", depth + 1 - i
        width = filters * 2 ** (level - 1)
        skip = drop(_gated(skips.pop(), x, f"skip{level}", weight_decay), f"skip{level}")
        x = go_up(x, width, f"{stage}_up", upsample, drop, weight_decay)
        x = kl.Concatenate(name=f"{stage}_conv1_concat")([skip, x])
        x = conv_unit(x, width, f"{stage}_conv1", drop, **unit)
        x = conv_unit(x, width, f"{stage}_conv2", drop, **unit)
    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    return keras.Model(inputs, logits, name=name)


def _gated(
    skip: keras.KerasTensor, deeper: keras.KerasTensor, site: str, weight_decay: float
) -> keras.KerasTensor:
    """Returns a skip multiplied by its gate."""
    width = max(skip.shape[-1] // 2, 1)
    options: dict[str, Any] = {"kernel_size": 1, "weight_decay": weight_decay}
    theta = plain_conv(skip, width, f"{site}_theta", strides=2, use_bias=False, **options)
    phi = plain_conv(deeper, width, f"{site}_phi", **options)
    x = kl.Activation("relu", name=f"{site}_act")(kl.Add(name=f"{site}_add")([theta, phi]))
    x = kl.Activation("sigmoid", name=f"{site}_sigmoid")(plain_conv(x, 1, f"{site}_psi", **options))
    x = kl.UpSampling2D(interpolation="bilinear", name=f"{site}_resize")(x)  # (batch, height, width, 1)
    return kl.Multiply(name=site)([skip, x])
