"""The graph of a Functional or Sequential model: its calls, those of models inside it, and the places.

Keras keeps the graph in nodes and has no public way to read them; only this and `_rebuild.py` do.
"""

import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src.models.functional import Functional

from dropzoo import layers


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, or of another Keras operation (`x + 1`), in a graph.

    Attributes:
        node: Keras' record of the call.
        layer: What is called.
        name: The layer's name; of a layer that is called several times with `_call1`, `_call2`, ... behind it.
        path: `"encoder/"` in a model called encoder that is inside another, `""` in the outermost.
        other_paths: Of a model that several others have inside: through the others.
    """

    node: Any
    layer: Any
    name: str
    path: str
    other_paths: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return self.path, *self.other_paths

    @property
    def inputs(self) -> list[Any]:
        return list(self.node.input_tensors)

    @property
    def outputs(self) -> list[Any]:
        return list(self.node.outputs)


@dataclass(eq=False)
class Place:
    """A tensor where dropout can stand: the output of a call, wherever it is read.

    Attributes:
        call: What makes the tensor.
        tensor: A KerasTensor.
        readers: The calls that read it, in models inside and outside too.
        standing: The dropout layers that are there, in a row.
        aliases: The calls of models whose output it is.
        around: The full names of the layers of the model.
    """

    call: Call
    tensor: Any
    readers: list[Call]
    around: set[str]
    standing: list[Call] = field(default_factory=list)
    aliases: list[Call] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.call.path + self.call.name

    @property
    def dropout_name(self) -> str:
        """Of the layer to be put there: `<site>_dropout`, or what the dropout on an edge is called."""
        return self.call.name if layers.is_dropout(self.call.layer) else f"{self.call.name}_dropout"


def graph_of(model: Any) -> Any:
    """The Functional model that runs a model: itself, or what a Sequential has inside. None for all others.

    A subclass that overrides `call` does what its code says and not what a graph says.
    """
    if isinstance(model, keras.Sequential):
        return model._functional if type(model).call is keras.Sequential.call else None
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        return None
    return model


def check_graph(model: Any) -> None:
    """A ValueError for a model without a graph, which says what to do instead."""
    if graph_of(model) is not None:
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "The model must be built, so that it has a graph: begin it with a keras.Input, or call it once. "
            f"Received: {model!r}"
        )
    raise ValueError(
        "The sites of a model are read off its graph, so it must be Functional or Sequential. A subclassed model "
        "is Python code: call layers.get(...) in its `call`, or write the network as keras.Model(inputs, outputs) "
        f"and pass that. Received: {model!r}"
    )


def calls_of(model: Any, path: str = "", *other_paths: str) -> list[Call]:
    """The calls of a model's own graph, by their longest distance from an input, then by name.

    Dropout adds nothing to the distance, so the others come in one order whatever dropout there is. A layer's
    second call comes after its first, so a graph can be built again by going through the list.
    """
    nodes = _nodes(model)
    makers = {id(tensor): node for node in nodes for tensor in node.outputs}
    calls_of_layer = collections.defaultdict(list)
    for node in nodes:
        calls_of_layer[id(node.operation)].append(node)
    for same in calls_of_layer.values():
        same.sort(key=lambda node: _index(node.operation._inbound_nodes, node))

    def earlier(node: Any) -> list[Any]:
        same = calls_of_layer[id(node.operation)]
        return [makers[id(x)] for x in node.input_tensors] + same[: _index(same, node)][-1:]

    distance: dict[int, tuple[int, int]] = {}  # the second number counts dropouts in a row
    pending = nodes[::-1]
    while pending:  # no recursion: a network may be a thousand layers deep
        node = pending[-1]
        waiting = [other for other in earlier(node) if id(other) not in distance]
        if waiting:
            pending += waiting
            continue
        pending.pop()
        steps, drops = max((distance[id(other)] for other in earlier(node)), default=(0, 0))
        distance[id(node)] = (steps, drops + 1) if layers.is_dropout(node.operation) else (steps + 1, 0)

    def name(node: Any) -> str:
        same = calls_of_layer[id(node.operation)]
        return node.operation.name + (f"_call{_index(same, node) + 1}" if len(same) > 1 else "")

    calls = [Call(node, node.operation, name(node), path, other_paths) for node in nodes]
    return sorted(calls, key=lambda call: (distance[id(call.node)], _natural(call.name)))


def _nodes(model: Any) -> list[Any]:
    by_depth = graph_of(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _natural(name: str) -> list[Any]:
    """`conv2` before `conv10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _index(nodes: list[Any], node: Any) -> int:
    return next(i for i, other in enumerate(nodes) if other is node)


def shapes_at(model: Any, size: tuple[int, int]) -> dict[int, tuple[int | None, ...]]:
    """The shapes of the tensors of a model's own graph, by id, where it leaves height and width open for these.

    A signal has the length of the height; the third axis of a volume is as long as the second.
    """
    known: dict[int, Any] = {}
    for call in calls_of(model):
        if isinstance(call.layer, keras.layers.InputLayer):
            tensor = call.outputs[0]
            lengths = [size[min(i, 1)] if n is None else n for i, n in enumerate(tensor.shape[1:-1])]
            made: Any = keras.KerasTensor((tensor.shape[0], *lengths, *tensor.shape[1:][-1:]), tensor.dtype)
        else:
            args, kwargs = call.node.arguments.fill_in(known)
            made = call.layer.compute_output_spec(*args, **kwargs)
        known |= {id(old): new for old, new in zip(call.outputs, keras.tree.flatten(made), strict=True)}
    return {key: tuple(tensor.shape) for key, tensor in known.items()}


def walk(model: Any) -> Iterator[Call]:
    """The calls of a model and of the models in it, each model once, in the order of the forward pass."""
    paths: dict[int, dict[str, None]] = collections.defaultdict(dict)  # of each model all, in order
    seen: set[int] = set()

    def find(model: Any, path: str) -> None:
        paths[id(model)][path] = None
        for layer in {id(node.operation): node.operation for node in _nodes(model)}.values():
            if graph_of(layer) is not None:
                find(layer, f"{path}{layer.name}/")

    def inside(model: Any) -> Iterator[Call]:
        seen.add(id(model))
        for call in calls_of(model, *paths[id(model)]):
            if graph_of(call.layer) is not None and id(call.layer) not in seen:
                yield from inside(call.layer)
            yield call

    find(model, "")
    return inside(model)


def _is_called_as_built(call: Call, inner: Any) -> bool:
    """Whether the tensors of a call are those of the model's inputs, in this order; Keras also goes by names."""
    if len(call.inputs) != len(inner.inputs):
        return False
    try:
        keras.tree.assert_same_structure(call.node.arguments.args[0], inner._inputs_struct)
    except (ValueError, TypeError, IndexError):
        return len(call.inputs) == 1
    return True


def places(model: Any) -> list[Place]:
    """Where dropout can stand in a model: each tensor once, in the order of the forward pass.

    A tensor that goes into a model inside, or comes out of it, is one tensor. What the whole model gives out is
    no place, nor are the outputs of a layer that has several.
    """
    check_graph(model)
    calls = list(walk(model))
    count = collections.Counter(id(call.layer) for call in calls)
    same: dict[int, Any] = {}  # from a tensor to what it is another name of
    passes_on: set[int] = set()  # calls of models whose inputs are the tensors outside
    for call in calls:
        inner = graph_of(call.layer)
        if inner is None:
            continue
        same |= {id(outside): inside for outside, inside in zip(call.outputs, inner.outputs, strict=True)}
        if count[id(call.layer)] == 1 and _is_called_as_built(call, inner):
            both = zip(inner.inputs, call.inputs, strict=True)
            same |= {id(inside): outside for inside, outside in both if inside is not outside}
            passes_on.add(id(call))

    dropped: dict[int, Any] = {}  # from the output of a dropout that stands at a place to its input

    def root(tensor: Any, *maps: dict[int, Any]) -> Any:
        while (known := next((m for m in maps if id(tensor) in m), None)) is not None:
            tensor = known[id(tensor)]
        return tensor

    readers: dict[int, list[Call]] = collections.defaultdict(list)
    models: dict[int, list[Call]] = collections.defaultdict(list)
    for call in calls:
        into = models if id(call) in passes_on else readers
        for tensor in {id(t): t for t in (root(x, same) for x in call.inputs)}.values():
            into[id(tensor)].append(call)
    final = {id(root(tensor, same)) for tensor in graph_of(model).outputs}
    names = {call.path + call.layer.name for call in calls}
    found: dict[int, Place] = {}
    for call in calls:
        if graph_of(call.layer) is not None:
            for tensor in call.outputs:
                place = found.get(id(root(tensor, same, dropped)))
                if place is not None:
                    place.aliases.append(call)
            continue
        (tensor, *others) = call.outputs
        if others or id(tensor) in same:
            continue
        if layers.is_dropout(call.layer):
            source = root(call.inputs[0], same)
            place = found.get(id(root(source, dropped, same)))
            if place is not None and len(readers[id(source)]) == 1:  # alone there
                place.standing.append(call)
                place.readers = readers[id(tensor)] + models[id(tensor)]
                dropped[id(tensor)] = source
                continue
        if id(tensor) in found:  # of a model that is made of tensors of this one, or the other way round
            continue
        if id(tensor) not in final and keras.backend.is_float_dtype(tensor.dtype):
            found[id(tensor)] = Place(call, tensor, readers[id(tensor)] + models[id(tensor)], names)
            if layers.is_dropout(call.layer):  # on one of several edges: a place of its own
                found[id(tensor)].standing.append(call)
    return list(found.values())
