"""Errors for models that a format cannot express: they name the layer, and say what to do."""

import re
from collections.abc import Collection, Sequence

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers
from dropzoo.serving.export.inputs import Input

_TEXTS = (keras.layers.StringLookup, keras.layers.TextVectorization, keras.layers.Hashing)
_LOOKUPS = (*_TEXTS, keras.layers.IntegerLookup, keras.layers.HashedCrossing)
_RUNTIMES = {"onnx": "ONNX", "openvino": "ONNX", "litert": "LiteRT"}


class UnsupportedError(Exception):
    """Raised if a runtime cannot express operations of a model.

    Args:
        operations: The names of operations of TensorFlow, or nothing if it is not known which ones.
        nodes: Names of nodes of the graph, which begin with the names of layers: `model/lstm_1/while`.
    """

    def __init__(self, operations: Collection[str], nodes: Sequence[str]) -> None:
        super().__init__(", ".join(operations))
        self.operations, self.nodes = sorted(set(operations)), nodes


def refusal(error: UnsupportedError, models: Sequence[keras.Model], format: str, sampled: bool) -> ValueError:
    """Returns the error for the user, which names the layers.

    Args:
        error: The error of the conversion.
        models: The models of the export.
        format: The format of the file.
        sampled: Whether the file would hold samples.
    """
    found = _layers_at(error.nodes, models)
    names = ", ".join(repr(layer.name) for layer in found)
    advice = list(dict.fromkeys(filter(None, map(_advice, found))))
    others = "'onnx' or 'saved_model'" if format == "litert" else "'saved_model'"
    advice.append(f"export the model with format={others}")
    if sampled:
        advice.append("pass num_samples=0: the deterministic answer alone may work")
    return ValueError(
        f"{_RUNTIMES[format]} "
        + (
            f"has no operation for {', '.join(error.operations)}, which {names or 'the model'} uses. "
            if error.operations
            else f"cannot run {names or 'the model'}. "
        )
        + _sentence(advice)
    )


def check_texts(inputs: Sequence[Input], models: Sequence[keras.Model], format: str) -> None:
    """Raises a ValueError if a model takes texts, which the runtimes of files cannot look up.

    Args:
        inputs: The inputs of the export.
        models: The models of the export.
        format: The format of the file.
    """
    texts = [each.name for each in inputs if each.spec.dtype == tf.string]
    if not texts:
        return
    found = [layer for layer in flatten_layers(models[0]) if isinstance(layer, _TEXTS)]
    inside = {id(each) for layer in found for each in flatten_layers(layer, include_self=False)}
    found = [layer for layer in found if id(layer) not in inside]
    readers = f", which {', '.join(repr(layer.name) for layer in found)} reads" if found else ""
    advice = [*filter(None, map(_advice, found)), "use format='saved_model'"]
    raise ValueError(
        f"A file of format={format!r} only takes numbers. Received: a model that takes strings as "
        f"{', '.join(texts)}{readers}. " + _sentence(advice)
    )


def _sentence(advice: Sequence[str]) -> str:
    text = "; or ".join(advice)
    return text[0].upper() + text[1:]


def _layers_at(nodes: Sequence[str], models: Sequence[keras.Model]) -> list[keras.layers.Layer]:
    """Returns the innermost layer that each node belongs to, without repeats."""
    known = {layer.name: layer for model in models for layer in flatten_layers(model) if layer is not model}
    found: dict[int, keras.layers.Layer] = {}
    for node in nodes:
        for part in reversed(node.split("/")):
            name = part if part in known else re.sub(r"_\d+$", "", part)  # a second call has a number at the end
            if name in known:
                found[id(known[name])] = known[name]
                break
    return list(found.values())


def _advice(layer: keras.layers.Layer) -> str | None:
    """Returns how a model can do without the operations of a layer, or None."""
    if isinstance(layer, keras.layers.Bidirectional):
        return _advice(layer.forward_layer)
    if isinstance(layer, (keras.layers.RNN, keras.layers.ConvLSTM2D)):
        return f"build {layer.name!r} with unroll=True, and with a fixed number of steps in keras.Input"
    if isinstance(layer, keras.layers.TimeDistributed):
        return "fix the number of steps in keras.Input"
    if getattr(layer, "quantization_mode", None) is not None:
        return "export the model as it was before `quantize`, with precision='int8' for LiteRT"
    if isinstance(layer, _LOOKUPS):
        return (
            f"call {layer.name!r} outside of the file: export keras.Model(x, model.output), where x is the output "
            "of this layer"
        )
    return None
