"""The meaning of a model's outputs, as its graph shows it: logits or probabilities."""

import re
from typing import Any, Literal

import keras

from dropzoo import layers
from dropzoo.common.keras_internals import nodes_of, recorded_graph
from dropzoo.models.graph.bounds import meanings_by_bounds

Meaning = Literal["softmax", "sigmoid", "logits"]
"""The meaning of an output: probabilities that sum to 1 on the last axis, independent probabilities, or logits."""

_ENDINGS = ("softmax", "sigmoid")
# Layers that end in their `activation`; recurrent layers do not.
_ACTIVATED = ("activation", "dense", "einsumdense", "conv", "depthwiseconv", "separableconv")
# Activations without bounds: a layer of weights that ends in one of them gives logits.
_UNBOUNDED = frozenset("linear relu leaky_relu leakyrelu elu selu gelu silu swish mish log_softmax".split())
# Layers and operations whose outputs have the meaning of their inputs, if they keep the last axis.
_TRANSPARENT = frozenset(
    "averagepooling cast cropping flatten getitem globalaveragepooling identity reshape resize resizing squeeze "
    "upsampling".split()
)


def output_meanings(model: keras.Model, structure: Any = None) -> list[Meaning | None]:
    """Returns the meaning of each output of a model, in the order of `model.outputs`; None if no graph shows it.

    Keras' own graph is read first. It shows a last softmax, sigmoid or layer of weights, and the layers that may
    follow it: reshapes, casts, permutations, resizes, pooling and `Average`. If a layer or a model has a custom
    `call`, or if other operations follow, the bounds of the values are computed along TensorFlow's graph (see
    `bounds`), if TensorFlow is the backend.

    Args:
        model: Any Keras model.
        structure: The structure of the inputs, with symbolic tensors, for a model that does not have it itself.
            Without it, the result for a subclassed model is an empty list.
    """
    found = recorded_meanings(model)
    if found and None not in found:
        return found
    if keras.backend.backend() != "tensorflow" or not (found or structure is not None):
        return found
    traced = meanings_by_bounds(model, recorded_graph(model).input if found else structure)
    return (
        [known or other for known, other in zip(found, traced, strict=True)]
        if found and traced
        else traced or found
    )


def recorded_meanings(model: keras.Model) -> list[Meaning | None]:
    """Returns the meaning of each output of a model that Keras' own graph shows; see `output_meanings`."""
    return [_Graph(model).meaning(each) for each in getattr(model, "outputs", None) or []]


def output_activation(model: keras.Model) -> str | None:
    """Returns `"softmax"` or `"sigmoid"` if the only output of a model is known to have this meaning.

    The result is None for logits, for a meaning that the graph does not show, and for a model of several outputs.

    Args:
        model: Any Keras model.
    """
    meanings = output_meanings(model)
    return meanings[0] if len(meanings) == 1 and meanings[0] in _ENDINGS else None


def channels_first_outputs(model: keras.Model) -> list[bool]:
    """Returns for each output of a model whether its channels are on axis 1, as its last layer has them.

    Such a layer has `data_format="channels_first"`. Layers that keep the shape may follow it.
    """
    return [_Graph(model).channels_first(each) for each in getattr(model, "outputs", None) or []]


class _Graph:
    """A model's own graph, even if the model has a `call` of its own."""

    def __init__(self, model: keras.Model) -> None:
        self._makers = {id(tensor): node for node in nodes_of(recorded_graph(model)) for tensor in node.outputs}

    def meaning(self, tensor: keras.KerasTensor) -> Any:
        """Returns the meaning of a tensor, or None."""
        node = self._makers[id(tensor)]
        operation, before = node.operation, node.input_tensors
        if isinstance(operation, keras.Model):
            return _Graph(operation).meaning(_inside(node, tensor)) if recorded_graph(operation) else None
        last = operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation
        kind = re.sub("[123]d|transpose$", "", type(last).__name__.lower())  # conv2dtranspose is a conv
        function = _function(last, kind, len(tensor.shape))
        if function in _ENDINGS:
            return function
        if kind in _ACTIVATED and kind != "activation" and function in _UNBOUNDED:
            return None if function == "relu" and tensor.shape[-1] == 1 else "logits"  # a logit can be negative
        if kind == "average":
            meanings = {self.meaning(each) for each in before}
            return meanings.pop() if len(meanings) == 1 else None
        padded = getattr(operation, "pad_to_aspect_ratio", False)  # with zeros, which sum to 0
        keeps = (kind in _TRANSPARENT and not padded) or (kind == "activation" and function == "linear")
        if keeps and before[0].shape[-1] == tensor.shape[-1]:
            return self.meaning(before[0])
        if _keeps_last_axis(last, len(tensor.shape)) or layers.is_dropout(last):
            return self.meaning(before[0])
        return None

    def channels_first(self, tensor: keras.KerasTensor) -> bool:
        """Returns whether a layer made a tensor of at least three axes with its channels on axis 1."""
        if len(tensor.shape) < 3 or id(tensor) not in self._makers:
            return False
        node = self._makers[id(tensor)]
        if isinstance(node.operation, keras.Model):
            inner = recorded_graph(node.operation)
            return bool(inner) and _Graph(node.operation).channels_first(_inside(node, tensor))
        if hasattr(node.operation, "data_format"):
            return node.operation.data_format == "channels_first"
        before = node.input_tensors
        return bool(before) and before[0].shape == tensor.shape and self.channels_first(before[0])


def _keeps_last_axis(operation: Any, rank: int) -> bool:
    """Returns whether an operation is a permutation of the axes that leaves the last one where it is."""
    axes = getattr(operation, "dims", None) or getattr(operation, "axes", None)
    if type(operation).__name__ not in ("Permute", "Transpose") or not isinstance(axes, (tuple, list)):
        return False
    return axes[-1] in (-1, rank - 1)


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
