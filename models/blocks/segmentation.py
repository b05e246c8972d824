"""What the segmentation models share: going up, and the logits of each pixel."""

from typing import Any

from keras import layers as kl

from dropzoo.models.blocks.resize import CropLike
from dropzoo.models.blocks.units import check_choice, l2, plain_conv
from dropzoo.models.sites import Sites


def go_up(x: Any, filters: int, site: str, upsample: str, drop: Sites, weight_decay: float) -> Any:
    """Twice the size: by a transposed convolution, or bilinear resizing and a convolution."""
    check_choice(upsample, "upsample", ("transpose", "resize"))
    if upsample == "transpose":
        kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": l2(weight_decay)}
        x = kl.Conv2DTranspose(filters, 2, strides=2, name=site, **kernel)(x)
    else:
        x = kl.UpSampling2D(interpolation="bilinear", name=f"{site}_resize")(x)
        x = plain_conv(x, filters, site, kernel_size=2, weight_decay=weight_decay)
    return drop(x, site)


def pixel_logits(x: Any, inputs: Any, num_classes: int, drop: Sites, weight_decay: float) -> Any:
    """`head`, a convolution of size 1, and the crop to the images' size; closes the plan's account."""
    x = drop(kl.Identity(name="head")(x), "head")
    x = kl.Conv2D(num_classes, 1, kernel_regularizer=l2(weight_decay), dtype="float32", name="logits_conv")(x)
    drop.done()
    return CropLike(dtype="float32", name="logits")([x, inputs])
