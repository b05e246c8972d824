"""What a model's output is: logits, or probabilities already."""

import re
from typing import Any

import keras

_ENDINGS = ("softmax", "sigmoid")
# Layers whose `activation` is what they end in; of recurrent ones it is not.
_ACTIVATED = ("activation", "dense", "einsumdense", "conv", "depthwiseconv", "separableconv")
# Layers and operations that keep probabilities what they are, as long as they keep the last axis.
_TRANSPARENT = frozenset(
    "averagepooling cast cropping flatten getitem globalaveragepooling identity reshape squeeze upsampling".split()
)


def output_activation(model: keras.Model) -> str | None:
    """`"softmax"` or `"sigmoid"` if the output went through one; None if not, or if the graph does not say.

    Shapes, casts, upsampling, pooling and `Average` may follow it. Layers and models of their own `call` do
    not say, nor do lambdas.

    Args:
        model: of one output, if it is to say anything.
    """
    outputs = getattr(model, "outputs", None) or []
    return _ending(outputs[0]) if len(outputs) == 1 else None


def _name(function: Any) -> str:
    """Of a function or a layer; TensorFlow's softmax calls itself softmax_v2."""
    return getattr(function, "__name__", type(function).__name__).lower().removesuffix("_v2")


def _ending(tensor: Any) -> str | None:
    operation, node, index = tensor._keras_history
    if isinstance(operation, keras.Model):
        outputs = getattr(operation, "outputs", None)
        return _ending(outputs[index]) if outputs else None
    last = operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation
    kind = re.sub("[123]d|transpose", "", type(last).__name__.lower())  # conv2dtranspose is a conv
    function = "linear"
    if kind in _ACTIVATED:
        activation = last.activation
        function = _name(activation)
    elif kind == "lambda":
        function = _name(last.function)
    elif kind in _ENDINGS and getattr(last, "axis", -1) in (-1, len(tensor.shape) - 1):
        function = kind
    if function in _ENDINGS:
        return function
    before = operation._inbound_nodes[node].input_tensors
    if kind == "average":
        endings = {_ending(each) for each in before}
        return endings.pop() if len(endings) == 1 else None
    smooth = kind == "resizing" and operation.interpolation in ("bilinear", "nearest")
    keeps = kind in _TRANSPARENT or smooth or (kind == "activation" and function == "linear")
    return _ending(before[0]) if keeps and before[0].shape[-1] == tensor.shape[-1] else None
