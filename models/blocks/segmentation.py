"""Parts of the segmentation models: the way up in the decoder, and the logits of each pixel."""

import keras
from keras import layers as kl

from dropzoo.common.checks import check_choice
from dropzoo.models.blocks.resize import CropLike
from dropzoo.models.blocks.units import l2, plain_conv
from dropzoo.models.sites import Sites


def go_up(
    x: keras.KerasTensor, filters: int, site: str, upsample: str, drop: Sites, weight_decay: float
) -> keras.KerasTensor:
    """Returns a map of twice the size, with its dropout.

    Args:
        x: Map `(batch, height, width, channels)`.
        filters: Int, channels of the result.
        site: Name of the site.
        upsample: `"transpose"`, a 2x2 transposed convolution, or `"resize"`, bilinear resizing and a convolution.
        drop: The builder's `Sites`.
        weight_decay: Float of at least 0, the L2 penalty on the kernel.
    """
    check_choice(upsample, "upsample", ("transpose", "resize"))
    if upsample == "transpose":
        kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": l2(weight_decay)}
        x = kl.Conv2DTranspose(filters, 2, strides=2, name=site, **kernel)(x)
    else:
        x = kl.UpSampling2D(interpolation="bilinear", name=f"{site}_resize")(x)
        x = plain_conv(x, filters, site, kernel_size=2, weight_decay=weight_decay)
    return drop(x, site)


def pixel_logits(
    x: keras.KerasTensor, inputs: keras.KerasTensor, num_classes: int, drop: Sites, weight_decay: float
) -> keras.KerasTensor:
    """Returns the logits of each pixel: the site `head`, a convolution of size 1, the crop to the images' size.

    Args:
        x: Map `(batch, height', width', channels)`.
        inputs: The images, `(batch, height, width, channels)`. The logits get their height and width.
        num_classes: Int, channels of the logits.
        drop: The builder's `Sites`.
        weight_decay: Float of at least 0, the L2 penalty on the kernel.
    """
    x = drop(kl.Identity(name="head")(x), "head")
    x = kl.Conv2D(num_classes, 1, kernel_regularizer=l2(weight_decay), dtype="float32", name="logits_conv")(x)
    return CropLike(dtype="float32", name="logits")([x, inputs])
