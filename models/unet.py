"""U-Net for images of any size."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.encoders import encoder_unet
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import go_up, pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def unet(
    input_shape: tuple[int | None, int | None, int] = (None, None, 1),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    depth: int | None = None,
    filters: int | None = None,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    normalization: str | None = "batch",
    upsample: str = "transpose",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "unet",
) -> keras.Model:
    """U-Net: a contracting and an expanding path, joined by skips.

    Differs from the paper: convolutions are normalised, and padded, so that the output has the size of the input.
    If the size of an image is not a multiple of `2**depth`, the image is padded with zeros and the logits are
    cropped.

    Sites: `encoder1_conv1`, `encoder1_conv2`, `skip1`, `encoder1_pool`, ..., `bottleneck_conv1`,
    `bottleneck_conv2`, `decoder1_up`, `decoder1_conv1`, `decoder1_conv2`, ..., `head`. `encoder1` and `skip1` have
    the full resolution; `decoder1` is the deepest stage of the decoder. Dropout at `encoderN_conv2` acts on the
    skip and on the pool; dropout at `skipN` acts only on the skip, and dropout at `encoderN_pool` only on the path
    down. Plan `"paper"`: 0.5 at the end of the deepest encoder stage and of the bottleneck, that is, at the end of
    the contracting path.

    With an encoder from keras.applications, the sites are the layers of the encoder under their own names,
    `bottleneck`, one `skipN` for each resolution at which the encoder has features, the sites of the decoder, and
    `head`. Most encoders have no features at full resolution; then there is no `skip1`. With an encoder, plan
    `"paper"` is 0.5 at `bottleneck`. The encoder's own dropout is left out. Images have values in [0, 1], as for
    all models; the preprocessing of the encoder is part of the model. The encoder determines the smallest possible
    size of an image after its padding, such as 75 for Inception.

    Args:
        input_shape: `(height, width, channels)`; height and width may be any numbers, or None.
        num_classes: Positive int, channels of the logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        depth: Positive int, number of poolings; 4 by default, or 5 with an encoder.
        filters: Positive int, channels of the first stage; each deeper stage has twice as many. 64 by default, or
            16 with an encoder.
        encoder: None for the encoder of the paper, or the name of a network of keras.applications, such as
            `"EfficientNetB0"`. For such a network, images must have 3 channels, or 1, which is repeated; for
            NASNet, `input_shape` must have a height and a width.
        encoder_weights: None for random weights, `"imagenet"` (which Keras downloads), or the path of a file.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        upsample: `"transpose"` (2x2 transposed convolution, as in the paper) or `"resize"` (bilinear, then a
            convolution).
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, height, width, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
        arXiv:1505.04597.
    """
    depth = check_count((5 if encoder else 4) if depth is None else depth, "depth")
    filters = check_count((16 if encoder else 64) if filters is None else filters, "filters")
    check_count(num_classes, "num_classes")
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}
    if encoder is not None:
        decoder = {"depth": depth, "filters": filters, "upsample": upsample, "name": name, **unit}
        return encoder_unet(input_shape, num_classes, encoder, encoder_weights, dropout, **decoder)
    if encoder_weights is not None:
        raise ValueError(f"`encoder_weights` needs an `encoder`. Received: encoder_weights={encoder_weights!r}")

    drop = Sites(dropout, paper={f"encoder{depth}_conv2": 0.5, "bottleneck_conv2": 0.5})
    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x, skips = PadToMultiple(2**depth, name="encoder1_conv1_pad")(inputs), []
    for level in range(1, depth + 1):
        stage, width = f"encoder{level}", filters * 2 ** (level - 1)
        x = conv_unit(x, width, f"{stage}_conv1", drop, **unit)
        x = conv_unit(x, width, f"{stage}_conv2", drop, **unit)
        skips.append(drop(kl.Identity(name=f"skip{level}")(x), f"skip{level}"))
        x = drop(kl.MaxPooling2D(name=f"{stage}_pool")(x), f"{stage}_pool")  # half the size

    x = conv_unit(x, filters * 2**depth, "bottleneck_conv1", drop, **unit)
    x = conv_unit(x, filters * 2**depth, "bottleneck_conv2", drop, **unit)

    for level in range(1, depth + 1):
        stage, width = f"decoder{level}", filters * 2 ** (depth - level)
        x = go_up(x, width, f"{stage}_up", upsample, drop, weight_decay)
        x = kl.Concatenate(name=f"{stage}_conv1_concat")([skips.pop(), x])
        x = conv_unit(x, width, f"{stage}_conv1", drop, **unit)
        x = conv_unit(x, width, f"{stage}_conv2", drop, **unit)

    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    return keras.Model(inputs, logits, name=name)
