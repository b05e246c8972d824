"""The places of a model: each tensor where dropout can stand, what makes it, what reads it, what stands there."""

import collections
from dataclasses import dataclass, field

import keras

from dropzoo import layers
from dropzoo.models.graph.walk import Call, check_graph, graph_of, walk


@dataclass(eq=False)
class Place:
    """A tensor where dropout can stand: the output of a call, wherever it is read.

    Attributes:
        call: The call that makes the tensor.
        tensor: The symbolic tensor.
        readers: The calls that read it, in models inside and outside too.
        standing: The dropout layers that are there, in a row.
        aliases: The calls of models whose output it is.
        around: The full names of the layers of the model.
    """

    call: Call
    tensor: keras.KerasTensor
    readers: list[Call]
    around: set[str]
    standing: list[Call] = field(default_factory=list)
    aliases: list[Call] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the site, with the path of the model that it is in."""
        return self.call.path + self.call.name

    @property
    def dropout_name(self) -> str:
        """Name for the dropout layer to insert here: `<site>_dropout`, or the existing layer's name on an edge."""
        return self.call.name if layers.is_dropout(self.call.layer) else f"{self.call.name}_dropout"


def places(model: keras.Model) -> list[Place]:
    """Returns where dropout can stand in a model: each tensor once, in the order of the forward pass.

    A tensor that goes into a model inside, or comes out of it, is one tensor. The outputs of the whole model are
    no places, nor are the outputs of a layer that has several.
    """
    check_graph(model)
    return _Search(model).run()


class _Search:
    """One search for the places of a model."""

    def __init__(self, model: keras.Model) -> None:
        self._calls = list(walk(model))
        self._around = {call.path + call.layer.name for call in self._calls}
        self._same: dict[int, keras.KerasTensor] = {}  # from a tensor to the one that it is another name of
        self._passing: set[int] = set()  # calls of models whose inputs are the tensors outside
        self._dropped: dict[
            int, keras.KerasTensor
        ] = {}  # from the output of a dropout that stands at a place to its input
        self._found: dict[int, Place] = {}
        self._join_models()
        self._readers: dict[int, list[Call]] = collections.defaultdict(list)
        self._entered: dict[int, list[Call]] = collections.defaultdict(list)  # readers that pass it on to a model
        self._find_readers()
        self._final = {id(self._root(tensor, self._same)) for tensor in graph_of(model).outputs}

    def run(self) -> list[Place]:
        for call in self._calls:
            if graph_of(call.layer) is not None:
                self._note_alias(call)
            elif len(call.outputs) == 1 and id(call.outputs[0]) not in self._same and not self._stands(call):
                self._open(call)
        return list(self._found.values())

    def _join_models(self) -> None:
        """Joins a model's outputs to the tensors outside, and its inputs too if it is called once and as built."""
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
            for tensor in {id(t): t for t in (self._root(x, self._same) for x in call.inputs)}.values():
                into[id(tensor)].append(call)

    def _root(self, tensor: keras.KerasTensor, *maps: dict[int, keras.KerasTensor]) -> keras.KerasTensor:
        """Returns the tensor at the end of the maps, which itself is in none of them."""
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
        """Notes a call that is dropout at a place, the only reader there, and returns whether it is one."""
        if not layers.is_dropout(call.layer):
            return False
        source, (tensor,) = self._root(call.inputs[0], self._same), call.outputs
        place = self._found.get(id(self._root(source, self._dropped, self._same)))
        if place is None or len(self._readers[id(source)]) > 1:
            return False
        place.standing.append(call)
        place.readers = self._readers_of(tensor)
        self._dropped[id(tensor)] = source
        return True

    def _open(self, call: Call) -> None:
        """Makes a place of a call's output, if that is a float tensor and no output of the model."""
        (tensor,) = call.outputs
        known = id(tensor) in self._found  # in a model that is made of tensors of another
        if known or id(tensor) in self._final or not keras.backend.is_float_dtype(tensor.dtype):
            return
        # Dropout that is one of several readers, on an edge, makes a place of its own.
        standing = [call] if layers.is_dropout(call.layer) else []
        self._found[id(tensor)] = Place(call, tensor, self._readers_of(tensor), self._around, standing)


def _is_called_as_built(call: Call, inner: keras.Model) -> bool:
    """Returns whether a model is called with a tensor for each input, in order; Keras also goes by names."""
    if len(call.inputs) != len(inner.inputs):
        return False
    try:
        keras.tree.assert_same_structure(call.arguments.args[0], inner.input)
    except (ValueError, TypeError, IndexError):
        return len(call.inputs) == 1
    return True
