"""The places of a model: each tensor where dropout can be put, with the calls that make it and read it."""

import collections
from dataclasses import dataclass, field

import keras

from dropzoo import layers
from dropzoo.models.graph.walk import Call, check_graph, graph_of, walk


@dataclass(eq=False)
class Place:
    """A tensor where dropout can be put: the output of a call, wherever it is read.

    Attributes:
        call: The call that makes the tensor.
        tensor: The symbolic tensor.
        readers: The calls that read the tensor, in whichever model they are.
        standing: The calls of the dropout layers that are there already, in the order in which they act.
        aliases: The calls of nested models that have the tensor as an output.
        around: The names of all layers of the whole model, with their paths.
        is_final: Whether the tensor is an output of the whole model. Only its edges can have dropout.
        entered: The readers that are models and pass the tensor on to a reader inside.
        is_on_edge: Whether the call is a dropout layer that is one of several readers of another place.
        reads: The tensor that each reader reads, as the model of the reader has it, by the key of the reader.
    """

    call: Call
    tensor: keras.KerasTensor
    readers: list[Call]
    around: set[str]
    standing: list[Call] = field(default_factory=list)
    aliases: list[Call] = field(default_factory=list)
    entered: list[Call] = field(default_factory=list)
    is_on_edge: bool = False
    is_final: bool = False
    reads: dict[tuple[str, int], keras.KerasTensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the site, with the path of the model that it is in."""
        return self.call.path + site_name(self.call.name)

    @property
    def branches(self) -> bool:
        """Whether the tensor has several readers; a model that passes it on to one of them does not count."""
        return len(self.readers) - len(self.entered) + self.is_final > 1

    @property
    def dropout_name(self) -> str:
        """The name for dropout to put here: `<site>_dropout`, or that of the dropout that makes the tensor."""
        return self.call.name if layers.is_dropout(self.call.layer) else f"{self.call.name}_dropout"


def site_name(call_name: str) -> str:
    """Returns the name of the site of a call: dropout on an edge, `enc->join_dropout`, is at `enc->join`."""
    return call_name.removesuffix("_dropout") if "->" in call_name else call_name


def places(model: keras.Model, final: bool = False) -> list[Place]:
    """Returns the places of a model, each tensor once, in the order of the forward pass.

    A tensor that goes into a nested model or comes out of it counts as one tensor inside and outside. The outputs
    of the whole model are not places, and neither are the outputs of a layer with several outputs.

    Args:
        model: A Functional or Sequential model.
        final: Bool. Whether to return the outputs of the model that other calls read, for dropout on their edges.
    """
    check_graph(model)
    return [place for place in _Search(model).run() if final or not place.is_final]


class _Search:
    """One search for the places of a model."""

    def __init__(self, model: keras.Model) -> None:
        self._calls = list(walk(model))
        self._around = {call.path + call.layer.name for call in self._calls}
        self._same: dict[int, keras.KerasTensor] = {}  # from the id of a tensor to its other name
        self._passing: set[int] = set()  # ids of calls of models whose inputs are tensors outside
        self._dropped: dict[int, keras.KerasTensor] = {}  # from the id of a standing dropout's output to its input
        self._found: dict[int, Place] = {}
        self._local: dict[tuple[tuple[str, int], int], keras.KerasTensor] = {}  # by reader and id of the root
        self._join_models()
        self._readers: dict[int, list[Call]] = collections.defaultdict(list)
        self._entered: dict[int, list[Call]] = collections.defaultdict(list)  # those that pass it into a model
        self._find_readers()
        self._final = {id(self._root(tensor, self._same)) for tensor in graph_of(model).outputs}

    def run(self) -> list[Place]:
        for call in self._calls:
            if graph_of(call.layer) is not None:
                self._note_alias(call)
            elif len(call.outputs) == 1 and id(call.outputs[0]) not in self._same and not self._stands(call):
                self._open(call)
        for place in self._found.values():
            last = self._root(place.standing[-1].outputs[0] if place.standing else place.tensor, self._same)
            place.entered = self._entered[id(last)]
            place.reads = {reader.key: self._local[reader.key, id(last)] for reader in place.readers}
        return list(self._found.values())

    def _join_models(self) -> None:
        """Notes which tensors inside and outside nested models are the same.

        The outputs always are the same. The inputs are the same if the model is called once, as it was built.
        """
        times = collections.Counter(id(call.layer) for call in self._calls)
        for call in self._calls:
            inner = graph_of(call.layer)
            if inner is None:
                continue
            self._same |= {
                id(outside): inside for outside, inside in zip(call.outputs, inner.outputs, strict=True)
            }
            if times[id(call.layer)] == 1 and _is_called_as_built(call, inner):
                both = zip(inner.inputs, call.inputs, strict=True)
                self._same |= {id(inside): outside for inside, outside in both if inside is not outside}
                self._passing.add(id(call))

    def _find_readers(self) -> None:
        for call in self._calls:
            into = self._entered if id(call) in self._passing else self._readers
            local = {id(self._root(x, self._same)): x for x in call.inputs}
            for root, tensor in local.items():
                into[root].append(call)
                self._local[call.key, root] = tensor

    def _root(self, tensor: keras.KerasTensor, *maps: dict[int, keras.KerasTensor]) -> keras.KerasTensor:
        """Follows the maps from a tensor to one that is in none of them."""
        while (known := next((m for m in maps if id(tensor) in m), None)) is not None:
            tensor = known[id(tensor)]
        return tensor

    def _readers_of(self, tensor: keras.KerasTensor) -> list[Call]:
        return self._readers[id(tensor)] + self._entered[id(tensor)]

    def _note_alias(self, call: Call) -> None:
        for tensor in call.outputs:
            place = self._found.get(id(self._root(tensor, self._same, self._dropped)))
            if place is not None:
                place.aliases.append(call)

    def _stands(self, call: Call) -> bool:
        """Returns whether a call is dropout and the only reader of a place; if it is, notes it at that place."""
        if not layers.is_dropout(call.layer):
            return False
        source, (tensor,) = self._root(call.inputs[0], self._same), call.outputs
        place = self._found.get(id(self._root(source, self._dropped, self._same)))
        if place is None or place.is_final or len(self._readers[id(source)]) > 1:
            return False
        place.standing.append(call)
        place.readers = self._readers_of(tensor)
        self._dropped[id(tensor)] = source
        return True

    def _open(self, call: Call) -> None:
        """Adds the place of a call's output, if that is a float tensor."""
        (tensor,) = call.outputs
        known = id(tensor) in self._found  # seen already, in a model that shares tensors with this one
        is_final, readers = id(tensor) in self._final, self._readers_of(tensor)
        if known or (is_final and not readers) or not keras.backend.is_float_dtype(tensor.dtype):
            return
        # Dropout that is one of several readers of a tensor makes a place of its own.
        standing = [call] if layers.is_dropout(call.layer) else []
        on_edge = bool(standing) and self._is_on_edge(call)
        self._found[id(tensor)] = Place(
            call, tensor, readers, self._around, standing, is_on_edge=on_edge, is_final=is_final
        )

    def _is_on_edge(self, call: Call) -> bool:
        """Returns whether dropout is one of several readers of a place."""
        return id(self._root(call.inputs[0], self._dropped, self._same)) in self._found


def _is_called_as_built(call: Call, inner: keras.Model) -> bool:
    """Returns whether a model is called with a tensor for each input, in order; Keras also matches names."""
    if len(call.inputs) != len(inner.inputs):
        return False
    try:
        keras.tree.assert_same_structure(call.arguments.args[0], inner.input)
    except (ValueError, TypeError, IndexError):
        return len(call.inputs) == 1
    return True
