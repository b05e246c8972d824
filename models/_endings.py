"""What a model's output is: logits, or probabilities already."""

from typing import Any

import keras

# Names of functions, layers and operations alike.
_ENDINGS = ("softmax", "sigmoid")
_TRANSPARENT = ("activation", "cast", "flatten", "identity", "permute", "reshape", "transpose")


def output_activation(model: keras.Model) -> str | None:
    """`"softmax"` or `"sigmoid"` if the output went through one; None if not, or if the graph does not say.

    Args:
        model: of one output, if it is to say anything.
    """
    outputs = getattr(model, "outputs", None) or []
    return _activation(outputs[0]) if len(outputs) == 1 else None


def _activation(tensor: Any) -> str | None:
    operation, node, index = tensor._keras_history
    if isinstance(operation, keras.Model):
        outputs = getattr(operation, "outputs", None)
        return _activation(outputs[index]) if outputs else None
    kind = type(operation).__name__.lower()
    function = getattr(getattr(operation, "activation", None), "__name__", "linear")
    for name in (kind, function):
        if name in _ENDINGS:
            return name
    if kind in _TRANSPARENT and function == "linear":
        return _activation(operation._inbound_nodes[node].input_tensors[0])
    return None
