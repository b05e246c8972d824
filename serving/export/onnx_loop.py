"""The loop over samples in a graph of ONNX, which repeats only what differs from sample to sample.

Nodes that read nothing of the loop move out of it. The hashes that choose a unit's masks are the same in each
turn, but their number follows from the sizes of maps in the loop. The first turn computes them and hands them on.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dropzoo.serving.export.parts import Parts

_SIZES_FROM_VALUES = {"Compress", "NonZero", "Unique"}  # operations whose answers may differ in size in each turn


def loop_of(parts: Parts, body: Any, hand_on: bool) -> tuple[list[Any], Any, list[Any]]:
    """Returns the nodes before the loop, the loop, and the constants of both.

    Args:
        parts: The functions of the export.
        body: The graph of `parts.turn`, in which all names begin with `turn/`.
        hand_on: Bool. Whether the first turn hands its hashes on, which OpenVINO has no operation for.
    """
    from onnx import TensorProto, helper, numpy_helper

    types = _types_of(body)
    shared = {f"turn/{name}": name for name in parts.shared}
    for node in body.node:
        node.input[:] = [shared.get(name, name) for name in node.input]
    known = {*parts.shared, *(constant.name for constant in body.initializer)}
    moved, kept = _parted(body.node, known)
    carried: list[str] = []
    if hand_on:
        kept, carried = _computed_once(kept, known.union(*(node.output for node in moved)), types)
    kept, shapes = _kernels_inside(kept, body.initializer)
    begin = [
        helper.make_node("Cast", ["turn/number"], ["turn/turn"], to=TensorProto.INT32),
        helper.make_node("Identity", ["turn/on"], ["turn/go_on"]),
        helper.make_node("Equal", ["turn/number", "dz_first"], ["turn/is_first"]),
    ]
    zeros = [numpy_helper.from_array(zero, f"dz_sum_{i}") for i, zero in enumerate(parts.zeros)]
    empty = [
        numpy_helper.from_array(np.zeros(0, helper.tensor_dtype_to_np_dtype(types[name])), f"{name}/none")
        for name in carried
    ]

    def sums(name: str) -> list[Any]:
        return [
            helper.make_tensor_value_info(f"turn/{name}_{i}", x.data_type, [None] * len(x.dims))
            for i, x in enumerate(zeros)
        ]

    def masks(ending: str) -> list[Any]:
        return [helper.make_tensor_value_info(name + ending, types[name], None) for name in carried]

    inputs = [
        helper.make_tensor_value_info("turn/number", TensorProto.INT64, []),
        helper.make_tensor_value_info("turn/on", TensorProto.BOOL, []),
    ]
    go_on = helper.make_tensor_value_info("turn/go_on", TensorProto.BOOL, [])
    turn = [*inputs, *sums("dz_sum"), *masks("/last")], [go_on, *sums("dz_total"), *masks("")]
    graph = helper.make_graph([*begin, *kept], "samples", *turn)
    turns = numpy_helper.from_array(np.array(parts.turns, np.int64), "dz_turns")
    first = numpy_helper.from_array(np.array(0, np.int64), "dz_first")
    sampled = numpy_helper.from_array(np.array(True), "sampled")
    names = [*(f"dz_total_{i}" for i in range(len(zeros))), *(f"{name}/end" for name in carried)]
    before = [x.name for x in (*zeros, *empty)]
    loop = helper.make_node("Loop", ["dz_turns", "sampled", *before], names, name="samples", body=graph)
    return moved, loop, [turns, first, sampled, *zeros, *empty, *shapes, *body.initializer]


def _types_of(body: Any) -> dict[str, int]:
    """The type of each value of a graph."""
    import onnx

    found = onnx.shape_inference.infer_shapes(onnx.helper.make_model(body)).graph
    return {value.name: value.type.tensor_type.elem_type for value in found.value_info}


def _parted(nodes: Sequence[Any], outer: set[str], fixed: Sequence[str] = ()) -> tuple[list[Any], list[Any]]:
    """Parts the nodes of a turn into those that compute the same in each turn, and the others.

    Args:
        nodes: The nodes, in the order in which they run.
        outer: The names of what is known before the loop.
        fixed: Operations whose answer is the same in each turn, regardless of what they read.
    """
    known, same, differing = set(outer), [], []
    for node in nodes:
        if node.op_type in fixed or (known.issuperset(filter(None, node.input)) and not _graphs(node)):
            same.append(node)
            known.update(node.output)
        else:
            differing.append(node)
    return same, differing


def _computed_once(nodes: list[Any], outer: set[str], types: dict[str, int]) -> tuple[list[Any], list[str]]:
    """Computes the hashes that are the same in each turn in the first turn only.

    Returns:
        The nodes of the loop, and the names of the values that a turn hands on to the next one.
    """
    if any(node.op_type in _SIZES_FROM_VALUES for node in nodes):
        return nodes, []
    same, differing = _parted(nodes, outer, fixed=["Shape"])
    hashed: set[str] = set()
    for node in same:
        if node.op_type == "BitwiseXor" or hashed.intersection(node.input):
            hashed.update(node.output)
    read = {name for node in differing for name in _reads(node)}
    carried = [name for name in sorted(hashed & read) if types.get(name)]
    groups: dict[tuple[str, ...], list[str]] = {}  # hashes that become known at the same place
    for name in carried:
        sizes = tuple(node.output[0] for node in _behind(same, [name]) if node.op_type == "Shape")
        groups.setdefault(sizes, []).append(name)
    begins = {sizes[-1]: _first_turn(same, names, types) for sizes, names in groups.items()}
    wanted = read.difference(carried).union(*groups)
    kept = {id(node) for node in (*differing, *_behind(same, wanted))}
    found = []
    for node in nodes:
        if id(node) in kept:
            found.append(node)
        found += [begins[name] for name in node.output if name in begins]
    return found, carried


def _first_turn(same: list[Any], names: list[str], types: dict[str, int]) -> Any:
    """A node that computes the named values in the first turn, and takes those of the last turn in the others."""
    from onnx import helper

    inside = [node for node in _behind(same, names) if node.op_type != "Shape"]
    new = {name: f"{name}/first" for node in inside for name in node.output}
    nodes = []
    for node in inside:
        copied = type(node)()
        copied.CopyFrom(node)
        copied.name = f"{node.name}/first"
        copied.input[:] = [new.get(name, name) for name in node.input]
        copied.output[:] = [new[name] for name in node.output]
        nodes.append(copied)
    same_again = [helper.make_node("Identity", [f"{name}/last"], [f"{name}/again"]) for name in names]
    first, others = (
        helper.make_graph(
            each, names[0], [], [helper.make_tensor_value_info(name + ending, types[name], None) for name in names]
        )
        for each, ending in ((nodes, "/first"), (same_again, "/again"))
    )
    return helper.make_node(
        "If", ["turn/is_first"], names, name=f"{names[0]}/once", then_branch=first, else_branch=others
    )


def _behind(nodes: Sequence[Any], names: Iterable[str]) -> list[Any]:
    """The nodes that the named values depend on, in the order in which they run."""
    wanted, found = set(names), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            found.append(node)
            if node.op_type != "Shape":
                wanted.update(node.input)
    return found[::-1]


def _reads(node: Any) -> set[str]:
    """The names that a node reads, those in its inner graphs included."""
    return {*node.input, *(name for graph in _graphs(node) for inner in graph.node for name in _reads(inner))}


def _graphs(node: Any) -> list[Any]:
    return [attribute.g for attribute in node.attribute if attribute.g.node]


def _kernels_inside(nodes: list[Any], constants: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Copies the kernels of convolutions into the loop while a runtime loads the file, not in the file.

    ONNX Runtime changes the layout of kernels that lie in the loop, which makes convolutions 1.4 times faster.
    It computes everything that depends only on constants when it loads a file.

    Returns:
        The nodes, and the constants that they need in addition.
    """
    from onnx import helper, numpy_helper

    kernels = {node.input[1] for node in nodes if node.op_type == "Conv"}
    copies, shapes = [], []
    for constant in constants:
        if constant.name in kernels:
            shape = numpy_helper.from_array(np.array(constant.dims, np.int64), f"{constant.name}/shape")
            shapes.append(shape)
            copies.append(helper.make_node("Reshape", [constant.name, shape.name], [f"{constant.name}/inside"]))
    inside = {copy.input[0]: copy.output[0] for copy in copies}
    for node in nodes:
        if node.op_type == "Conv":
            node.input[1] = inside.get(node.input[1], node.input[1])
    return [*copies, *nodes], shapes
