"""The graph of a Functional or Sequential model: its calls, and those of the models inside it.

`keras_internals.nodes_of` reads Keras' own records. Code outside this folder uses the functions here instead.
"""

import collections
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import check_keras_model
from dropzoo.common.keras_internals import KerasFunctional, calls_of_operation, nodes_of, recorded_graph


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, or of another Keras operation (`x + 1`), in a graph.

    Attributes:
        node: Keras' record of the call.
        layer: The layer or operation that is called.
        name: The layer's name, followed by `_call1`, `_call2`, ... if the layer is called several times.
        path: Path of the model that the call is in: `"encoder/"` for a nested model called encoder, `""` for the
            outermost one.
        other_paths: Further paths of that model, if it is nested in several others.
    """

    node: Any
    layer: Any
    name: str
    path: str
    other_paths: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the call. A node alone does not: a model made of the tensors of another shares its nodes."""
        return self.path, id(self.node)

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths of the model that the call is in."""
        return self.path, *self.other_paths

    @property
    def arguments(self) -> Any:
        """Keras' record of the arguments: `args`, `kwargs`, and `fill_in`, which puts tensors in their places."""
        return self.node.arguments

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The symbolic tensors among the arguments."""
        return list(self.node.input_tensors)

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """The symbolic tensors that the call makes."""
        return list(self.node.outputs)


def graph_of(model: Any) -> Any:
    """Returns the Functional model that runs a model: itself, or the one inside a Sequential model.

    The result is None for all other models. It is also None if `call` is overridden in a subclass or in the
    instance, because the model then runs that code and not the graph. A `__call__` that passes its inputs on to
    Keras' own `__call__` does not count as such code.
    """
    graph = recorded_graph(model)
    if graph is None or "call" in vars(model):
        return None
    plain = keras.Sequential if isinstance(model, keras.Sequential) else KerasFunctional
    own = type(model).call is not plain.call or not _calls_super(type(model).__call__, plain.__call__)
    return None if own else graph


def _calls_super(method: Any, plain: Any) -> bool:
    """Returns whether a `__call__` is Keras' own, or one that passes its inputs on, as those of KerasHub do.

    It may change the inputs before that. Surgery finds out, because it compares the outputs of the copy.
    """
    names = getattr(getattr(method, "__code__", None), "co_names", ())
    return method is plain or {"super", "__call__"} <= set(names)


def model_in(layer: Any) -> keras.Model | None:
    """Returns the model with a graph that a layer runs: the layer itself, or the one in a `TimeDistributed`."""
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    own = isinstance(layer, keras.layers.TimeDistributed) and (
        "call" in vars(layer) or type(layer).call is not keras.layers.TimeDistributed.call
    )
    return inner if graph_of(inner) is not None and not own else None


def check_graph(model: keras.Model) -> None:
    """Raises a ValueError if a model has no graph; the error says what to do."""
    check_keras_model(model)
    if graph_of(model) is not None:
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "The model must be built, so that it has a graph: begin it with a keras.Input, or call it once. "
            f"Received: {model!r}"
        )
    if "call" in vars(model):
        raise ValueError(
            "The sites of a model are read from its graph, but this model has an attribute `call`, which runs "
            f"instead of the graph. Delete it with `del model.call`. Received: {model!r}"
        )
    raise ValueError(
        "The sites of a model are read from its graph, so the model must be Functional or Sequential. A "
        "subclassed model has no graph. If its `call` only uses layers and keras.ops, build a Functional model: "
        "inputs = keras.Input(...), then keras.Model(inputs, model.call(inputs)). Otherwise create "
        f"a dropout layer in `__init__`, with dropzoo.layers.get(...), and call it in `call`. Received: {model!r}"
    )


def calls_of(model: keras.Model, path: str = "", *other_paths: str) -> list[Call]:
    """Returns the calls of a model's own graph, sorted by their longest distance from an input, then by name.

    Dropout adds nothing to the distance, so the order of the other calls does not depend on it. A layer's second
    call comes after its first, so a graph can be built again by going through the list.
    """
    nodes = nodes_of(graph_of(model))
    calls_of_layer = collections.defaultdict(list)
    for node in nodes:
        calls_of_layer[id(node.operation)].append(node)
    for same in calls_of_layer.values():
        same.sort(key=lambda node: _index(calls_of_operation(node.operation), node))

    def name(node: Any) -> str:
        same = calls_of_layer[id(node.operation)]
        return node.operation.name + (f"_call{_index(same, node) + 1}" if len(same) > 1 else "")

    distance = _distances(nodes, calls_of_layer)
    calls = [Call(node, node.operation, name(node), path, other_paths) for node in nodes]
    return sorted(calls, key=lambda call: (distance[id(call.node)], _natural(call.name)))


def _distances(nodes: list[Any], calls_of_layer: dict[int, list[Any]]) -> dict[int, tuple[int, int]]:
    """Returns each node's longest distance from an input, by id; a second number counts dropouts in a row."""
    makers = {id(tensor): node for node in nodes for tensor in node.outputs}

    def earlier(node: Any) -> list[Any]:
        same = calls_of_layer[id(node.operation)]
        return [makers[id(x)] for x in node.input_tensors] + same[: _index(same, node)][-1:]

    distance: dict[int, tuple[int, int]] = {}
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
    return distance


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts `conv2` before `conv10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _index(nodes: list[Any], node: Any) -> int:
    return next(i for i, other in enumerate(nodes) if other is node)


def makers_of(calls: Iterable[Call]) -> dict[int, Call]:
    """Returns the call that makes each tensor, by the tensor's id."""
    return {id(tensor): call for call in calls for tensor in call.outputs}


def walk(model: keras.Model) -> Iterator[Call]:
    """Yields the calls of a model and of the models in it, each model once, in the order of the forward pass.

    The calls in a model that a `TimeDistributed` runs have the path of that layer, `"frames/conv"`. Their other
    paths include the one with the name of the model, `"frames/cnn/conv"`.
    """
    paths: dict[int, dict[str, None]] = collections.defaultdict(dict)  # all paths of each model, in order
    seen: set[int] = set()

    def find(model: keras.Model, path: str) -> None:
        paths[id(model)][path] = None
        for layer in {id(call.layer): call.layer for call in calls_of(model)}.values():
            if (inner := model_in(layer)) is not None:
                find(inner, f"{path}{layer.name}/")
                if inner is not layer:
                    find(inner, f"{path}{layer.name}/{inner.name}/")

    def inside(model: keras.Model) -> Iterator[Call]:
        seen.add(id(model))
        for call in calls_of(model, *paths[id(model)]):
            inner = model_in(call.layer)
            if inner is not None and id(inner) not in seen:
                yield from inside(inner)
            yield call

    find(model, "")
    return inside(model)


def shapes_at(model: keras.Model, size: tuple[int, int]) -> dict[int, tuple[int | None, ...]]:
    """Returns the shapes of the tensors of a model's own graph, by id, for images of a given size.

    Args:
        model: A Functional or Sequential model.
        size: Pair of ints, the height and width to use if the model leaves them open. For a signal, the height is
            its length; the third spatial axis of a volume is as long as the second.
    """
    known: dict[int, keras.KerasTensor] = {}
    for call in calls_of(model):
        if isinstance(call.layer, keras.layers.InputLayer):
            (tensor,) = call.outputs
            lengths = [size[min(i, 1)] if n is None else n for i, n in enumerate(tensor.shape[1:-1])]
            shape = (tensor.shape[0], *lengths, *tensor.shape[1:][-1:])
            known[id(tensor)] = keras.KerasTensor(shape, tensor.dtype)
        else:
            args, kwargs = call.arguments.fill_in(known)
            made = keras.tree.flatten(call.layer.compute_output_spec(*args, **kwargs))
            known |= {id(old): new for old, new in zip(call.outputs, made, strict=True)}
    return {key: tuple(tensor.shape) for key, tensor in known.items()}
