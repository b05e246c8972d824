"""SegNet: a decoder that puts maxima back where they came from."""

from typing import Any

import keras
from keras import layers as kl
from keras import ops

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.resize import PadToMultiple
from dropzoo.models.blocks.segmentation import pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def segnet(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 2,
    *,
    dropout: DropoutPlan = None,
    filters: int = 64,
    convs: tuple[int, ...] = (2, 2, 3, 3, 3),
    normalization: str | None = "batch",
    activation: str = "relu",
    weight_decay: float = 0.0,
    name: str = "segnet",
) -> keras.Model:
    """SegNet: the 13 convolutions of VGG16, mirrored in a decoder that unpools to the positions of the maxima.

    Sites: `encoder1_conv1`, `encoder1_conv2`, `encoder1_pool`, ..., `encoder5_pool`, `decoder1_up` (the deepest
    unpooling), `decoder1_conv1`, ..., `decoder5_conv1`, `head`.
    Plan `"paper"`: the variant of Bayesian SegNet that its authors recommend, 0.5 in the deeper half of the
    encoder and of the decoder; the other variants are the plans `"bayesian_segnet_encoder"`,
    `"bayesian_segnet_decoder"`, `"bayesian_segnet_center"`, `"bayesian_segnet_encoder_decoder"` and
    `"bayesian_segnet_classifier"`.

    Args:
        input_shape: `(height, width, channels)`; height and width may be any numbers, or None.
        num_classes: Positive int, number of logits for each pixel; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first stage; each stage has twice as many as the one before it, up
            to eight times `filters`.
        convs: Tuple of positive ints, convolutions of each stage.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, height, width, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
        Segmentation", 2015, arXiv:1511.00561; Kendall et al., "Bayesian SegNet", 2015, arXiv:1511.02680.
    """
    check_count(filters, "filters")
    check_count(num_classes, "num_classes")
    if not isinstance(convs, (tuple, list)) or not convs:
        raise ValueError(f"`convs` must be a tuple of ints, one for each stage. Received: convs={convs!r}")
    stages = len(convs)
    counts = [check_count(count, "convs") for count in convs]
    widths = [filters * min(2**stage, 8) for stage in range(stages)]
    # The decoder mirrors the encoder; the very last convolution is that of the logits.
    upward = [*reversed(counts[1:]), max(counts[0] - 1, 1)]
    central = [f"encoder{s}_pool" for s in range(stages // 2 + 1, stages + 1)]
    central += [f"decoder{s}_conv{upward[s - 1]}" for s in range(1, (stages + 1) // 2 + 1)]
    drop = Sites(dropout, paper=dict.fromkeys(central, 0.5))
    unit: dict[str, Any] = {"normalization": normalization, "activation": activation, "weight_decay": weight_decay}

    inputs = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    x, before = PadToMultiple(2**stages, name="encoder1_conv1_pad")(inputs), []
    for stage, (count, width) in enumerate(zip(counts, widths, strict=True), start=1):
        for conv in range(1, count + 1):
            x = conv_unit(x, width, f"encoder{stage}_conv{conv}", drop, **unit)
        before.append(x)
        x = drop(kl.MaxPooling2D(name=f"encoder{stage}_pool")(x), f"encoder{stage}_pool")  # half the size
    for stage in range(1, stages + 1):
        up, level = f"decoder{stage}_up", stages - stage
        x = drop(MaxUnpooling2D(name=up)([x, before.pop()]), up)  # twice the size
        for conv in range(1, upward[stage - 1] + 1):
            narrow = level > 0 and conv == upward[stage - 1]  # the last convolution has the next stage's channels
            x = conv_unit(x, widths[level - narrow], f"decoder{stage}_conv{conv}", drop, **unit)
    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    return keras.Model(inputs, logits, name=name)


@keras.saving.register_keras_serializable(package="dropzoo")
class MaxUnpooling2D(keras.Layer):
    """Undoes a max-pooling of 2x2: each value goes where the maximum was; the other three units are zero.

    Call arguments:
        inputs: List of two tensors, the maps to unpool and the maps that were pooled. If several of the four units
            are equal to the maximum, the first one counts.

    Input shape:
        `(batch, height, width, channels)` and `(batch, 2 * height, 2 * width, channels)`

    Output shape:
        `(batch, 2 * height, 2 * width, channels)`

    Example:
    >>> import numpy as np
    >>> from dropzoo.models.segnet import MaxUnpooling2D
    >>> pooled = np.array([[1.0, 2.0], [4.0, 3.0]], "float32").reshape(1, 2, 2, 1)
    >>> unpooled = MaxUnpooling2D()([np.array([[[[7.0]]]], "float32"), pooled])
    >>> np.array(unpooled)[0, :, :, 0].tolist()
    [[0.0, 0.0], [7.0, 0.0]]

    Reference:
        Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
        Segmentation", 2015, arXiv:1511.00561.
    """

    def call(self, inputs: Any) -> Any:
        small, large = inputs
        batch, height, width, channels = ops.shape(large)
        units = [large[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]  # of each square, in order
        largest = ops.maximum(ops.maximum(units[0], units[1]), ops.maximum(units[2], units[3]))
        # Comparisons instead of an `argmax`: Keras reads the bits of numbers in it, and many runtimes cannot.
        free, placed = ops.ones_like(large[:, ::2, ::2], dtype="bool"), []
        for unit in units[:3]:
            here = ops.logical_and(free, unit == largest)
            placed.append(ops.where(here, small, ops.zeros((), small.dtype)))
            free = ops.logical_and(free, ops.logical_not(here))
        placed.append(ops.where(free, small, ops.zeros((), small.dtype)))
        half = (batch, height // 2, width, channels)
        rows = [ops.reshape(ops.stack(placed[i : i + 2], axis=3), half) for i in (0, 2)]
        return ops.reshape(ops.stack(rows, axis=2), (batch, height, width, channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[1][:-1], input_shape[0][-1])
