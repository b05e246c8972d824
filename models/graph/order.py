"""The axis of the channels in the images that a model takes, as the layers that read them show it."""

from typing import Any

import keras

from dropzoo.common.images import channels_first, image_shape
from dropzoo.common.keras_internals import nodes_of, recorded_graph


def channels_first_inputs(model: Any) -> list[bool]:
    """Returns for each input of a model whether it has its channels on axis 1, in the order of `model.inputs`.

    The first convolution, pooling or padding that reads an input says so by its `data_format`, even if it is
    behind layers that keep the shape or inside a nested model. If there is none, the shape of the input decides.
    An input `(1, 64, 22)` that a convolution reads with channels last has 22 channels. The list is empty for a
    model without a graph.

    Args:
        model: Any Keras model.
    """
    graph = recorded_graph(model)
    return [] if graph is None else [is_channels_first(graph, tensor) for tensor in graph.inputs]


def shape_of_images(model: Any) -> tuple[int | None, int | None, int]:
    """Returns `(height, width, channels)` of the images that a model of one input takes.

    Args:
        model: A Keras model whose only input has four axes.
    """
    said = channels_first_inputs(model)
    return image_shape(model.input_shape, said[0] if said else None)


def is_channels_first(graph: Any, tensor: keras.KerasTensor) -> bool:
    """Returns whether an input of a graph has its channels on axis 1, as `channels_first_inputs` does.

    Args:
        graph: The graph of a model.
        tensor: One of its inputs.
    """
    said = _said(graph, tensor)
    return channels_first(tensor.shape) if said is None else said


def _said(graph: Any, tensor: keras.KerasTensor) -> bool | None:
    """Returns the answer of the first spatial layer that reads a tensor, or None if there is no such layer."""
    if len(tensor.shape) < 3:
        return None
    pending = [tensor]
    for each in pending:  # the list grows
        for node in nodes_of(graph):
            places = [i for i, read in enumerate(node.input_tensors) if read is each]
            layer, outputs = node.operation, node.outputs
            inner = recorded_graph(layer) if places else None
            if inner is not None and len(inner.inputs) == len(node.input_tensors):
                if (found := _said(inner, inner.inputs[places[0]])) is not None:
                    return found
            elif places and _is_spatial(layer):
                return layer.data_format == "channels_first"
            if places and len(outputs) == 1 and outputs[0].shape == each.shape:
                pending.append(outputs[0])
    return None


def _is_spatial(layer: Any) -> bool:
    """Returns whether a layer needs to know the axis of the channels.

    `Flatten` and the layers that scale or augment images have a `data_format` too, which is often left as it is.
    """
    spec = getattr(layer, "input_spec", None)
    rank = getattr(spec, "ndim", None) or getattr(spec, "min_ndim", None) or 0
    return hasattr(layer, "data_format") and rank >= 3
