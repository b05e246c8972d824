"""Random bits in OpenVINO, which computes unsigned integers as signed ones, and some operations by way of floats.

On processors, OpenVINO adds, multiplies and shifts signed integers of 32 bits exactly, and their bits are those of
unsigned ones. It compares, selects, divides and sums them in float32, which keeps 24 of the 32 bits. So the random
bits of an ONNX graph become signed here, and the operations that would round them get names of their own, which
OpenVINO reads as exact ones. The files that it writes only contain its own operations.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any
"""The output of a node of OpenVINO."""

_DOMAIN = "dropzoo"
_TOP = np.int32(-(2**31))  # the highest bit
_EXACT = {
    "Add", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Concat", "Expand", "Flatten", "Gather",
    "GatherND", "Identity", "If", "Loop", "Mul", "Neg", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze",
    "Sub", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_UNSIGNED = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Where"}
_SIGNED = {"Div", "Mod"}  # known for signed numbers alone


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
    shifted = {name for node in _all_nodes(model.graph) if node.op_type == "BitShift" for name in node.output}
    constants = {x.name: onnx.numpy_helper.to_array(x) for g in _all_graphs(model.graph) for x in g.initializer}
    for node in _all_nodes(model.graph):
        _Marker(node, types, bits, shifted, constants).mark()
    for graph in _all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.UINT32 and not _is_given(value, model):
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
    for name, convert in _CONVERSIONS.items():
        core.add_extension(ConversionExtension(name, _DOMAIN, convert))
    return core.read_model(content)


class _Marker:
    """Marks one node, if it reads random bits."""

    def __init__(
        self, node: Any, types: dict[str, int], bits: set[str], shifted: set[str], constants: dict[str, np.ndarray]
    ) -> None:
        self._node, self._types, self._shifted, self._constants = node, types, shifted, constants
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
        elif given == TensorProto.UINT32 and to.i in floats and node.input[0] not in self._shifted:
            node.domain, node.op_type = _DOMAIN, "ToFloat"
        elif (given == TensorProto.UINT32 and to.i in wide) or to.i == TensorProto.UINT64:
            if node.input[0] not in self._shifted:
                self._refuse("a cast to 64 bits")

    def _refuse(self, what: str) -> None:
        raise ValueError(
            f"OpenVINO cannot compute {what} of random bits exactly, as {self._node.name!r} needs. Use "
            "format='onnx', or pass num_samples=0 for the deterministic answer"
        )


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


def _is_given(value: Any, model: Any) -> bool:
    return any(value is other for other in (*model.graph.input, *model.graph.output))


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


def _bit_shift(node: Any) -> list[Value]:
    from openvino import opset15 as ops

    x, places = _signed(node, 0), node.get_attribute("places")
    if node.get_attribute("direction") == "LEFT":
        return _outputs(ops.multiply(x, _int(2**places)))
    return _outputs(_shifted(x, places))


def _shifted(x: Value, places: int) -> Value:
    """The bits of x, moved to the right. OpenVINO's own shift takes 40 times as long as its other operations.

    A division in float32 is exact for the 24 highest bits, once the others are 0.
    """
    from openvino import opset15 as ops

    if places == 0:
        return x
    if 8 <= places <= 16:
        high = ops.divide(ops.bitwise_and(x, _int(-(2**places))), _int(2**places))
        return ops.bitwise_and(high, _int(2 ** (32 - places) - 1))
    upper = _shifted(x, 16)
    if places > 16:
        return ops.divide(upper, _int(2 ** (places - 16)))
    lower = ops.divide(ops.bitwise_and(x, _int(0xFFFF)), _int(2**places))
    return ops.add(ops.multiply(upper, _int(2 ** (16 - places))), lower)


def _from_float(node: Any) -> list[Value]:
    """Floats in [0, 2**32) as integers, by halves of the range that signed integers can hold."""
    from openvino import opset15 as ops

    x = node.get_input(0)
    top = ops.greater_equal(x, _like(x, 2.0**31))
    rest = ops.subtract(x, ops.multiply(ops.convert(top, x.get_element_type().to_string()), _like(x, 2.0**31)))
    return _outputs(ops.add(ops.convert(rest, "i32"), ops.multiply(ops.convert(top, "i32"), _int(_TOP))))


def _to_float(node: Any) -> list[Value]:
    """Unsigned integers as floats, by halves, which floats hold exactly; their sum is rounded once."""
    from openvino import opset15 as ops

    x = _signed(node, 0)
    low = ops.convert(ops.bitwise_and(x, _int(0xFFFF)), "f32")
    high = ops.convert(_shifted(x, 16), "f32")
    return _outputs(ops.add(ops.multiply(high, ops.constant(np.float32(2**16))), low))


def _comparison(compare: Callable[[Value, Value], Value]) -> Callable[[Any], list[Value]]:
    def convert(node: Any) -> list[Value]:
        return _outputs(compare(*_ordered(node)))

    return convert


def _at_least(x: Value, y: Value) -> Value:
    """Whether x >= y. As floats, the two are in the same order or equal; then their difference is small."""
    from openvino import opset15 as ops

    close = ops.greater_equal(ops.subtract(x, y), _int(0))
    return ops.logical_or(ops.greater(x, y), ops.logical_and(ops.equal(x, y), close))


def _less(x: Value, y: Value) -> Value:
    from openvino import opset15 as ops

    return ops.logical_not(_at_least(x, y))


def _equal(x: Value, y: Value) -> Value:
    from openvino import opset15 as ops

    return ops.equal(ops.bitwise_xor(x, y), _int(0))


def _where(node: Any) -> list[Value]:
    return _as_given(node, 1, _selected(node.get_input(0), _signed(node, 1), _signed(node, 2)))


def _extreme(larger: bool) -> Callable[[Any], list[Value]]:
    def convert(node: Any) -> list[Value]:
        x, y = _ordered(node)
        first = _at_least(x, y) if larger else _at_least(y, x)
        return _as_given(node, 0, _selected(first, _signed(node, 0), _signed(node, 1)))

    return convert


def _selected(condition: Value, x: Value, y: Value) -> Value:
    from openvino import opset15 as ops

    mask = ops.subtract(_int(0), ops.convert(condition, "i32"))
    return ops.bitwise_xor(y, ops.bitwise_and(ops.bitwise_xor(x, y), mask))


def _div(node: Any) -> list[Value]:
    """The quotient, rounded towards 0."""
    from openvino import opset15 as ops

    x, y = _signed(node, 0), _signed(node, 1)
    whole, rest = _divided(x, y)
    negative = ops.not_equal(ops.less(x, _int(0)), ops.less(y, _int(0)))
    up = ops.logical_and(negative, ops.not_equal(rest, _int(0)))
    return _as_given(node, 0, ops.add(whole, ops.convert(up, "i32")))


def _mod(node: Any) -> list[Value]:
    """The remainder with the sign of the divisor."""
    return _as_given(node, 0, _divided(_signed(node, 0), _signed(node, 1))[1])


def _divided(x: Value, y: Value) -> tuple[Value, Value]:
    """The quotient of x and y, |y| < 2**20, rounded down, and the remainder.

    What floats lose of the first quotient is so small that they can divide it exactly. A product with an inverse
    may take the place of a division, so that half a unit keeps the quotient away from whole numbers.
    """
    from openvino import opset15 as ops

    divisor = ops.convert(y, "f32")
    rough = ops.convert(ops.divide(ops.convert(x, "f32"), divisor), "i32")
    lost = ops.convert(ops.subtract(x, ops.multiply(rough, y)), "f32")
    half = ops.multiply(ops.sign(divisor), ops.constant(np.float32(0.5)))
    more = ops.convert(ops.floor(ops.divide(ops.add(lost, half), divisor)), "i32")
    whole = ops.add(rough, more)
    return whole, ops.subtract(x, ops.multiply(whole, y))


def _reduce_sum(node: Any) -> list[Value]:
    """A sum that wraps around. Running sums are exact; their last ones are the sums."""
    from openvino import opset15 as ops

    total = _signed(node, 0)
    axes = np.array(node.get_attribute("axes"), np.int64)
    for axis in axes:
        total = ops.gather(
            ops.cum_sum(total, ops.constant(axis)), ops.constant(np.array([-1])), ops.constant(axis)
        )
    if not node.get_attribute("keepdims"):
        total = ops.squeeze(total, ops.constant(axes))
    return _as_given(node, 0, total)


def _ordered(node: Any) -> tuple[Value, Value]:
    """The two inputs as signed numbers in the order of the graph's own numbers."""
    from openvino import opset15 as ops

    x, y = _signed(node, 0), _signed(node, 1)
    if node.get_attribute("unsigned"):
        return ops.add(x, _int(_TOP)), ops.add(y, _int(_TOP))
    return x, y


def _signed(node: Any, index: int) -> Value:
    from openvino import opset15 as ops

    x = node.get_input(index)
    return x if x.get_element_type().to_string() == "i32" else ops.convert(x, "i32")


def _as_given(node: Any, index: int, x: Any) -> list[Value]:
    """A result in the type of an input of the node."""
    from openvino import opset15 as ops

    dtype = node.get_input(index).get_element_type().to_string()
    return _outputs(x if dtype == "i32" else ops.convert(x, dtype))


def _outputs(x: Any) -> list[Value]:
    return list(x.outputs())


def _int(value: int | np.integer) -> Value:
    from openvino import opset15 as ops

    return ops.constant(np.int32(value))


def _like(x: Value, value: float) -> Value:
    from openvino import opset15 as ops

    return ops.constant(value, x.get_element_type())


_CONVERSIONS: dict[str, Callable[[Any], list[Value]]] = {
    "BitShift": _bit_shift,
    "Div": _div,
    "Equal": _comparison(_equal),
    "FromFloat": _from_float,
    "Greater": _comparison(lambda x, y: _less(y, x)),
    "GreaterOrEqual": _comparison(_at_least),
    "Less": _comparison(_less),
    "LessOrEqual": _comparison(lambda x, y: _at_least(y, x)),
    "Max": _extreme(larger=True),
    "Min": _extreme(larger=False),
    "Mod": _mod,
    "ReduceSum": _reduce_sum,
    "ToFloat": _to_float,
    "Where": _where,
}
