"""ConvNeXt: a convolutional network in the manner of transformers, with stochastic depth."""

from typing import Any

import keras
from keras import layers as kl

from dropzoo.common.checks import check_count
from dropzoo.models.blocks.units import check_input_shape, l2, normalize, pooled_head
from dropzoo.models.registry import register_model
from dropzoo.models.sites import DropoutPlan, Sites


@register_model
def convnext_tiny(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    dropout: DropoutPlan = None,
    filters: int = 96,
    blocks: tuple[int, ...] = (3, 3, 9, 3),
    normalization: str | None = "layer",
    activation: str = "gelu",
    weight_decay: float = 0.0,
    include_top: bool = True,
    name: str = "convnext_tiny",
) -> keras.Model:
    """ConvNeXt of 18 blocks in four stages.

    A block is a 7x7 depthwise convolution, a normalisation, two dense layers for each pixel (the first has four
    times as many units as there are channels), a learned scale, and the addition of the shortcut. The stem reduces
    the size of the images by a factor of four, and each further stage by a factor of two.

    Sites: for each block `stage1_block1_dense1` (inside the dense network), `stage1_block1_branch` (before the
    addition) and `stage1_block1`; `features` and `head`. Plan `"paper"`: `drop_path` at the branches, at rates
    that rise from 0 at the first block to 0.1 at the last.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Positive int, channels of the first stage; each further one has twice as many.
        blocks: Tuple of positive ints, blocks of each stage.
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
        Liu et al., "A ConvNet for the 2020s", 2022, arXiv:2201.03545.
    """
    check_count(filters, "filters")
    if not isinstance(blocks, (tuple, list)) or not blocks:
        raise ValueError(f"`blocks` must be a tuple of ints, one for each stage. Received: blocks={blocks!r}")
    branches = [
        f"stage{stage}_block{i}_branch"
        for stage, count in enumerate(blocks, start=1)
        for i in range(1, check_count(count, "blocks") + 1)
    ]
    rates = {branch: 0.1 * i / max(len(branches) - 1, 1) for i, branch in enumerate(branches)}
    drop = Sites(dropout, paper={branch: f"drop_path:{rate:.4g}" for branch, rate in rates.items()})

    def kernel(kind: str = "kernel") -> dict[str, Any]:
        """Returns options with a new initializer: layers that share one would start with the same weights."""
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        return {f"{kind}_initializer": start, f"{kind}_regularizer": l2(weight_decay)}

    inputs = x = keras.Input(check_input_shape(input_shape), name="images")  # (batch, height, width, channels)
    for stage, count in enumerate(blocks, start=1):
        width, size, first = filters * 2 ** (stage - 1), 4 if stage == 1 else 2, f"stage{stage}_block1"
        if stage > 1:
            x = normalize(x, normalization, f"{first}_norm", epsilon=1e-6)
        x = kl.Conv2D(width, size, strides=size, padding="same", name=f"{first}_conv", **kernel())(x)
        if stage == 1:
            x = normalize(x, normalization, f"{first}_norm", epsilon=1e-6)
        for i in range(1, count + 1):
            block = f"stage{stage}_block{i}"
            y = kl.DepthwiseConv2D(7, padding="same", name=f"{block}_branch_conv", **kernel("depthwise"))(x)
            y = normalize(y, normalization, f"{block}_branch_norm", epsilon=1e-6)
            y = kl.Dense(4 * width, name=f"{block}_dense1_dense", **kernel())(y)
            y = drop(kl.Activation(activation, name=f"{block}_dense1")(y), f"{block}_dense1")
            y = kl.Dense(width, name=f"{block}_branch_dense", **kernel())(y)
            y = drop(LayerScale(name=f"{block}_branch")(y), f"{block}_branch")
            x = drop(kl.Add(name=block)([x, y]), block)
    options: dict[str, Any] = {"include_top": include_top, "weight_decay": weight_decay}
    outputs = pooled_head(x, num_classes, drop, normalization=normalization, **options)
    drop.done()
    return keras.Model(inputs, outputs, name=name)


@keras.saving.register_keras_serializable(package="dropzoo")
class LayerScale(keras.Layer):
    """Multiplies each channel by a weight that starts small, so that a block starts almost as the identity.

    Args:
        initial: Float, the initial value of the weights.

    Input shape:
        `(..., channels)`

    Output shape:
        The input shape.

    Reference:
        Touvron et al., "Going Deeper with Image Transformers", 2021, arXiv:2103.17239.
    """

    def __init__(self, initial: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}
