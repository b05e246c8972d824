"""The activation that a model ends in: whether its output is logits, or probabilities already."""

import re
from typing import Any

import keras

from dropzoo.common.keras_internals import nodes_of, recorded_graph

_ENDINGS = ("softmax", "sigmoid")
# Layers that end in their `activation`; recurrent layers do not.
_ACTIVATED = ("activation", "dense", "einsumdense", "conv", "depthwiseconv", "separableconv")
# Layers and operations whose outputs are probabilities if their inputs are, as long as they keep the last axis.
_TRANSPARENT = frozenset(
    "averagepooling cast cropping flatten getitem globalaveragepooling identity reshape squeeze upsampling".split()
)


def output_activation(model: keras.Model) -> str | None:
    """Returns `"softmax"` or `"sigmoid"` if a model's output went through one.

    Reshapes, casts, upsampling, pooling and `Average` may follow it. The result is None if there is no such
    activation, or if the graph does not show one: layers and models with a `call` of their own hide what they do,
    and so do most lambdas.

    Args:
        model: Model with exactly one output; for any other the result is None.
    """
    outputs = getattr(model, "outputs", None) or []
    return _Graph(model).ending(outputs[0]) if len(outputs) == 1 else None


class _Graph:
    """A model's own graph, also if the model has a `call` of its own."""

    def __init__(self, model: keras.Model) -> None:
        self._makers = {id(tensor): node for node in nodes_of(recorded_graph(model)) for tensor in node.outputs}

    def ending(self, tensor: keras.KerasTensor) -> str | None:
        """Returns the softmax or sigmoid that a tensor went through last, or None."""
        node = self._makers[id(tensor)]
        operation, before = node.operation, node.input_tensors
        if isinstance(operation, keras.Model):
            return _Graph(operation).ending(_inside(node, tensor)) if recorded_graph(operation) else None
        last = operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation
        kind = re.sub("[123]d|transpose", "", type(last).__name__.lower())  # conv2dtranspose is a conv
        function = _function(last, kind, len(tensor.shape))
        if function in _ENDINGS:
            return function
        if kind == "average":
            endings = {self.ending(each) for each in before}
            return endings.pop() if len(endings) == 1 else None
        smooth = kind == "resizing" and operation.interpolation in ("bilinear", "nearest")
        keeps = kind in _TRANSPARENT or smooth or (kind == "activation" and function == "linear")
        return self.ending(before[0]) if keeps and before[0].shape[-1] == tensor.shape[-1] else None


def _inside(node: Any, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the tensor inside a model that became one of the outputs of its call."""
    return next(
        inner for inner, outer in zip(node.operation.outputs, node.outputs, strict=True) if outer is tensor
    )


def _function(layer: Any, kind: str, rank: int) -> str:
    """Returns the name of the function that a layer ends in."""
    if kind in _ACTIVATED:
        return _name(layer.activation)
    if kind == "lambda":
        return _name(layer.function)
    return kind if kind in _ENDINGS and getattr(layer, "axis", -1) in (-1, rank - 1) else "linear"


def _name(function: Any) -> str:
    """Returns the name of a function or a layer; TensorFlow's softmax calls itself softmax_v2."""
    return getattr(function, "__name__", type(function).__name__).lower().removesuffix("_v2")
