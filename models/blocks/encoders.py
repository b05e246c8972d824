"""U-Nets whose encoder is a network of keras.applications."""

import math
import re
from typing import Any

import keras
from keras import layers as kl
from keras import ops

from dropzoo.common.checks import check_choice, snake_case, unknown
from dropzoo.models.blocks.resize import FitTo, PadToMultiple
from dropzoo.models.blocks.segmentation import go_up, pixel_logits
from dropzoo.models.blocks.units import check_input_shape, conv_unit
from dropzoo.models.graph.walk import calls_of, shapes_at
from dropzoo.models.sites import DropoutPlan, Sites, as_patterns
from dropzoo.models.surgery.retrofit import retrofit

# Layers whose outputs are not features for a skip, since they only scale, pad or crop.
_PLAIN = (kl.InputLayer, kl.Normalization, kl.Rescaling, kl.ZeroPadding2D, kl.Cropping2D)


@keras.saving.register_keras_serializable(package="dropzoo")
class EncoderInput(keras.Layer):
    """Turns images in [0, 1] into the input of a network of keras.applications, by that network's preprocessing.

    Args:
        module: Str. Name of a module of keras.applications, such as `"resnet"`.

    Input shape:
        `(batch, height, width, 1 or 3)`; one channel is repeated.

    Output shape:
        `(batch, height, width, 3)`
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.module = module

    def call(self, inputs: Any) -> Any:
        if inputs.shape[-1] == 1:
            inputs = ops.repeat(inputs, 3, axis=-1)
        preprocess = getattr(keras.applications, self.module).preprocess_input
        return preprocess(inputs * 255.0, data_format="channels_last")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:3], 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "module": self.module}


def encoder_unet(
    input_shape: Any,
    num_classes: int,
    encoder: str,
    weights: str | None,
    dropout: DropoutPlan,
    depth: int,
    filters: int,
    upsample: str,
    weight_decay: float,
    name: str,
    **unit: Any,
) -> keras.Model:
    """Builds the decoder of `unet` on the features of a network of keras.applications; see `unet`."""
    if check_input_shape(input_shape)[2] not in (1, 3):
        raise ValueError(
            "An `encoder` of keras.applications takes images with 3 channels, or with 1, which is then "
            "repeated. Received: "
            f"input_shape={input_shape!r}"
        )
    inputs = keras.Input(input_shape, name="images")  # (batch, height, width, channels)
    padded = PadToMultiple(2**depth, name="images_pad")(inputs)
    features, exact = _features(encoder, weights, padded, depth)
    drop = Sites(None, paper={})  # the plan is applied at the end, to the sites of the encoder too
    x = drop(kl.Identity(name="bottleneck")(features.pop(depth)), "bottleneck")
    for level in range(1, depth + 1):
        stage, width = f"decoder{level}", filters * 2 ** (depth - level)
        skip = features.get(depth - level)
        x = go_up(x, width, f"{stage}_up", upsample, drop, weight_decay)
        if not exact and (skip is not None or level == depth):
            x = FitTo(name=f"{stage}_conv1_pad")([x, padded if skip is None else skip])
        if skip is not None:
            skip = kl.Identity(name=f"skip{depth - level + 1}")(skip)
            x = kl.Concatenate(name=f"{stage}_conv1_concat")([skip, x])
        for conv in (1, 2):
            x = conv_unit(x, width, f"{stage}_conv{conv}", drop, weight_decay=weight_decay, **unit)
    logits = pixel_logits(x, inputs, num_classes, drop, weight_decay)
    drop.done()
    model = keras.Model(inputs, logits, name=name)
    plan: dict[Any, Any] = as_patterns(dropout, paper={"bottleneck": 0.5})
    if any(isinstance(layer, kl.Dropout) for layer in model.layers):  # the encoder's own
        plan = {"after:Dropout": None, **plan}
    return retrofit(model, plan, share_weights=True) if plan else model


def _module(encoder: str) -> str:
    """Returns the name of the module of keras.applications that has the preprocessing of a network."""
    everything = vars(keras.applications)
    modules = {name: vars(m) for name, m in everything.items() if hasattr(m, "preprocess_input")}
    if encoder not in everything or encoder in modules:
        raise unknown("encoder", encoder, [name for name in everything if name[0].isupper()])
    own = next((name for name, content in modules.items() if encoder in content), None)
    # A module that does not export its networks has a name that theirs begin with: mobilenet_v3.
    return own or max((n for n in modules if encoder.lower().startswith(n.replace("_", ""))), key=len)


def _features(
    encoder: str, weights: str | None, padded: keras.KerasTensor, depth: int
) -> tuple[dict[int, Any], bool]:
    """Returns the encoder's last feature map for each number of halvings, and whether the halvings are exact."""
    scaled = EncoderInput(_module(encoder), name="images_scale")(padded)
    network = getattr(keras.applications, encoder)(include_top=False, weights=weights, input_tensor=scaled)
    size: Any = tuple(256 if length is None else length for length in padded.shape[1:3])
    try:
        shapes = shapes_at(network, size)
    except ValueError:  # NASNet pads by the sizes of the images that it is built for
        raise ValueError(
            f"{encoder} takes images of one size only: pass input_shape=(height, width, channels) with that size"
        ) from None
    features: dict[int, Any] = {}
    numbers: dict[str, int] = {}
    for call in calls_of(network):
        layer: Any = call.layer
        automatic = snake_case(type(layer).__name__)
        if re.fullmatch(rf"{automatic}(_\d+)?", layer.name):  # Keras counts over all models; sites must not
            numbers[automatic] = numbers.get(automatic, 0) + 1
            layer.name = f"{automatic}_{numbers[automatic]}"
        shape: Any = shapes[id(call.outputs[0])]
        if isinstance(layer, (*_PLAIN, EncoderInput, PadToMultiple)) or len(shape) != 4:
            continue
        # Pooled features inside the network have one row, and so has its last feature map for 32 pixels.
        if shape[1] < 2 and call.outputs[0] is not network.outputs[0]:
            continue
        features[round(math.log2(size[0] / shape[1]))] = call.outputs[0]
    check_choice(depth, "depth", tuple(level for level in features if level))
    features = {level: tensor for level, tensor in features.items() if level <= depth}
    exact = all(shapes[id(x)][1:3] == (size[0] >> level, size[1] >> level) for level, x in features.items())
    return features, exact
