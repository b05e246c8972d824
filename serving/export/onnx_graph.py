"""Converts the functions of an export to ONNX, and joins them to one graph around a loop."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dropzoo.common.images import channels_first
from dropzoo.common.tensorflow_internals import inlined
from dropzoo.serving.export.onnx_loop import loop_of
from dropzoo.serving.export.onnx_operations import handlers
from dropzoo.serving.export.parts import Parts
from dropzoo.serving.export.unsupported import UnsupportedError

OPSET = 18  # the newest that tf2onnx writes; it brought the operations on bits
_IR_VERSION = 9  # that of ONNX 1.14, of May 2023


def graph_of(parts: Parts, simple: bool = False) -> Any:
    """Returns the ONNX model of an export.

    Args:
        parts: The functions of the export.
        simple: Bool. Whether to leave out what OpenVINO does not have: inputs with a default, and values of a loop
            that change their sizes. Otherwise, if the model has a loop, its last input, `sampled`, has the default
            True. With False, no sample is computed.

    Raises:
        ValueError: If an input has the name of another value.
        UnsupportedError: If ONNX has no operation for one of TensorFlow.
    """
    import onnx
    from onnx import helper

    first = _converted(parts.before, "before")
    nodes, constants, inputs = list(first.node), list(first.initializer), list(first.input)
    outputs = [output for output in first.output if output.name in parts.answers]
    if parts.turn is not None:
        moved, loop, more = loop_of(parts, _converted(parts.turn, "turn", whole=True), hand_on=not simple)
        if not simple:
            inputs.append(helper.make_tensor_value_info("sampled", onnx.TensorProto.BOOL, []))
        last = _converted(parts.after, "after")
        nodes += [*moved, loop, *last.node]
        constants += [*more, *last.initializer]
        outputs += last.output
    _check_names([value.name for value in inputs], [value.name for value in outputs])
    graph = helper.make_graph(nodes, "dropzoo", inputs, outputs, constants)
    _name_axes(graph)
    _merge_constants(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="dropzoo")
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    return model


def _check_names(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raises a ValueError if an input and an output have the same name, since ONNX has one list of names."""
    taken = {name for name in inputs if inputs.count(name) > 1 or name in outputs}
    if taken:
        raise ValueError(
            f"In an ONNX file, no input of the model can be called {', '.join(sorted(taken))}, because the file "
            f"already has an input or output of this name. Rename the `keras.Input`, or use format='saved_model'"
        )


class _Traced:
    """A traced function as tf2onnx takes one."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def get_concrete_function(self, *specs: tf.TensorSpec) -> Any:
        return self._function


def _converted(function: Any, prefix: str, whole: bool = False) -> Any:
    """A function as a graph of ONNX, whose inner names begin with a prefix; with `whole`, all names do."""
    import onnx
    import tf2onnx

    errors: list[Exception] = []
    try:
        with _quiet(), inlined(function.graph):
            model, _ = tf2onnx.convert.from_function(
                _Traced(function), [], opset=OPSET, custom_op_handlers=handlers(errors)
            )
    finally:
        if errors:
            raise errors[0]
    if missing := [node for node in model.graph.node if not onnx.defs.has(node.op_type)]:
        raise UnsupportedError([node.op_type for node in missing], [node.name for node in missing])
    _keep_captured(model.graph, function.graph)
    return onnx.compose.add_prefix(model, f"{prefix}/", rename_inputs=whole, rename_outputs=whole).graph


def _keep_captured(graph: Any, traced: Any) -> None:
    """Makes constants of the tensors that a function reads from outside, such as the mean of a `Normalization`."""
    from onnx import numpy_helper

    outside = {inner.name: outer for outer, inner in traced.captures if outer.dtype != tf.resource}
    for value in [value for value in graph.input if value.name in outside]:
        graph.input.remove(value)
        graph.initializer.append(numpy_helper.from_array(outside[value.name].numpy(), value.name))


def _merge_constants(graph: Any) -> None:
    """Keeps one of all equal constants."""
    kept: dict[bytes, str] = {}
    instead, unique = {}, []
    for constant in graph.initializer:
        if constant.name == "sampled":  # the default of an input, which no other node may read
            unique.append(constant)
            continue
        data = constant.SerializeToString()
        name, constant.name = constant.name, ""
        key = hashlib.sha256(constant.SerializeToString()).digest()
        constant.ParseFromString(data)
        if key in kept:
            instead[name] = kept[key]
        else:
            kept[key] = name
            unique.append(constant)
    del graph.initializer[:]
    graph.initializer.extend(unique)
    for node in _all_nodes(graph):
        node.input[:] = [instead.get(name, name) for name in node.input]


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.g.node:
                yield from _all_nodes(attribute.g)


def _name_axes(graph: Any) -> None:
    """Names the batch, and the height and width of a model's only images; other open axes lose their names.

    Equal names mean equal sizes, and the maps of an answer may be smaller than the images.
    """
    inputs = [value for value in graph.input if value.name != "sampled"]
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        names = {0: "batch"}
        if len(dims) == 4 and len(inputs) == 1 and value is inputs[0]:
            first = channels_first([dim.dim_value if dim.HasField("dim_value") else None for dim in dims])
            names |= {2: "height", 3: "width"} if first else {1: "height", 2: "width"}
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and axis:
                continue
            dim.Clear()
            if axis in names:
                dim.dim_param = names[axis]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the log of tf2onnx to errors that nobody else reports."""
    log = logging.getLogger("tf2onnx")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
