"""Random bits in a graph of ONNX, as OpenVINO computes them exactly.

On processors, OpenVINO computes unsigned integers of 32 bits as signed ones, whose sums and products have the same
bits, and some operations in float32. So the random bits of a graph become signed here, and the operations that
would be inexact are marked. OpenVINO reads these as exact operations, and its files hold its own operations only.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dropzoo.serving.export.openvino_operations import conversions

_DOMAIN = "dropzoo"
_EXACT = {
    "Add", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Concat", "Expand", "Flatten", "Gather",
    "GatherND", "Identity", "If", "Loop", "Mul", "Neg", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze",
    "Sub", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_UNSIGNED = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Where"}
_SIGNED = {"Div", "Mod"}  # known only for signed numbers


def make_signed(model: Any) -> None:
    """Turns the random bits of an ONNX model into signed integers, and marks what has to be exact.

    Args:
        model: The model, which `read` can read afterwards.

    Raises:
        ValueError: If there is no exact operation for one that reads random bits.
    """
    import onnx
    from onnx import TensorProto, helper

    types = _types_of(model)
    bits = _bits_of(model.graph, types)
    constants = {x.name: onnx.numpy_helper.to_array(x) for g in _all_graphs(model.graph) for x in g.initializer}
    small = {node.output[0] for node in _all_nodes(model.graph) if _shifts_right(node, constants)}
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in _all_nodes(model.graph):
        _Marker(node, types, bits, small, constants).mark()
    for graph in _all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.UINT32 and value.name not in given:
                value.type.tensor_type.elem_type = TensorProto.INT32
        for constant in graph.initializer:
            if constant.data_type == TensorProto.UINT32:
                signed = onnx.numpy_helper.to_array(constant).view(np.int32)
                constant.CopyFrom(onnx.numpy_helper.from_array(signed, constant.name))
    _read_inputs_as_signed(model.graph)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def read(content: bytes) -> Any:
    """Returns the model of OpenVINO for a file of ONNX that `make_signed` has changed.

    Args:
        content: The content of the file.
    """
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    core = openvino.Core()
    for name, convert in conversions().items():
        core.add_extension(ConversionExtension(name, _DOMAIN, convert))
    return core.read_model(content)


class _Marker:
    """Marks one node, if it reads random bits.

    Args:
        node: The node.
        types: The type of each value.
        bits: The names of integers that are random bits.
        small: The names of unsigned integers that are the same as signed ones.
        constants: The constants by name.
    """

    def __init__(
        self, node: Any, types: dict[str, int], bits: set[str], small: set[str], constants: dict[str, np.ndarray]
    ) -> None:
        self._node, self._types, self._small, self._constants = node, types, small, constants
        self._reads = [name for name in node.input if name in bits]

    def mark(self) -> None:
        from onnx import TensorProto, helper

        node = self._node
        given = self._types.get(node.input[0]) if node.input else None
        unsigned = any(self._types.get(name) == TensorProto.UINT32 for name in self._reads)
        if node.op_type == "Cast":
            self._mark_cast(given)
        elif not self._reads or node.op_type in _EXACT:
            return
        elif node.op_type == "BitShift" and (places := self._constants.get(node.input[1])) is not None:
            node.domain = _DOMAIN
            node.attribute.append(helper.make_attribute("places", int(places.item()) % 32))
        elif node.op_type in _UNSIGNED or (node.op_type in _SIGNED and not unsigned):
            node.domain = _DOMAIN
            node.attribute.append(helper.make_attribute("unsigned", int(unsigned)))
        elif node.op_type == "ReduceSum" and (axes := self._constants.get(node.input[1])) is not None:
            node.domain = _DOMAIN
            node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes]))
            if not any(attribute.name == "keepdims" for attribute in node.attribute):
                node.attribute.append(helper.make_attribute("keepdims", 1))
        else:
            self._refuse(node.op_type)

    def _mark_cast(self, given: int | None) -> None:
        from onnx import TensorProto

        node = self._node
        (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
        wide, floats = (TensorProto.INT64, TensorProto.UINT64), (TensorProto.FLOAT, TensorProto.DOUBLE)
        if to.i == TensorProto.UINT32:
            to.i = TensorProto.INT32
            if given in floats:
                node.domain, node.op_type = _DOMAIN, "FromFloat"
        elif given == TensorProto.UINT32 and node.input[0] not in self._small:
            if to.i in floats:
                node.domain, node.op_type = _DOMAIN, "ToFloat"
            elif to.i in wide:
                self._refuse("a cast to 64 bits")

    def _refuse(self, what: str) -> None:
        raise ValueError(
            f"{self._node.name!r} needs {what} of random bits, which OpenVINO cannot compute exactly. Use "
            "format='onnx', or pass num_samples=0 for the deterministic answer"
        )


def _shifts_right(node: Any, constants: dict[str, np.ndarray]) -> bool:
    """Whether a node moves bits to the right, so that the highest one is 0."""
    directions = [attribute.s for attribute in node.attribute if attribute.name == "direction"]
    return node.op_type == "BitShift" and directions == [b"RIGHT"] and bool(constants.get(node.input[1], 0))


def _types_of(model: Any) -> dict[str, int]:
    """The type of each value of a model, in inner graphs too."""
    import onnx

    types = {}
    for graph in _all_graphs(onnx.shape_inference.infer_shapes(model).graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            types[value.name] = value.type.tensor_type.elem_type
        types |= {constant.name: constant.data_type for constant in graph.initializer}
    return types


def _bits_of(graph: Any, types: dict[str, int]) -> set[str]:
    """The names of the integers that are random bits, or computed from them."""
    from onnx import TensorProto

    integers = (TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64, TensorProto.UINT64)
    found, before = {name for name, dtype in types.items() if dtype == TensorProto.UINT32}, 0
    while len(found) > before:
        before = len(found)
        for node in _all_nodes(graph):
            for one, other in _handed_on(node):
                found.update({other} if one in found else {})
            if node.op_type not in ("If", "Loop", "Shape", "Size") and found.intersection(node.input):
                found.update(name for name in node.output if types.get(name) in integers)
    return found


def _handed_on(node: Any) -> Iterator[tuple[str, str]]:
    """Pairs of names of one value, outside and inside the inner graphs of a node."""
    for graph in _graphs(node):
        outputs = [value.name for value in graph.output]
        if node.op_type == "If":
            yield from zip(outputs, node.output, strict=True)
        elif node.op_type == "Loop":
            inputs = [value.name for value in graph.input]
            yield from zip(node.input[2:], inputs[2:], strict=True)
            yield from zip(outputs[1:], node.output, strict=True)
            yield from zip(outputs[1:], inputs[2:], strict=False)


def _read_inputs_as_signed(graph: Any) -> None:
    from onnx import TensorProto, helper

    names = {x.name for x in graph.input if x.type.tensor_type.elem_type == TensorProto.UINT32}
    for node in _all_nodes(graph):
        node.input[:] = [f"{name}/signed" if name in names else name for name in node.input]
    casts = [helper.make_node("Cast", [name], [f"{name}/signed"], to=TensorProto.INT32) for name in names]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _all_graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for inner in _graphs(node):
            yield from _all_graphs(inner)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for each in _all_graphs(graph):
        yield from each.node


def _graphs(node: Any) -> list[Any]:
    return [attribute.g for attribute in node.attribute if attribute.g.node]
