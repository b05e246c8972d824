"""The edges of a model: a tensor on its way to one of the calls that read it, such as only a skip connection."""

from dataclasses import dataclass

import keras

from dropzoo.models.graph.places import Place
from dropzoo.models.graph.walk import Call


@dataclass(eq=False)
class Edge:
    """One reader of a tensor. Dropout on an edge leaves the other readers alone.

    A call that reads a tensor twice has one edge, so that both arguments get the same mask.

    Attributes:
        place: The tensor.
        reader: The call that reads it.
        via: The place after the dropout on this edge, which may have other readers too; None without dropout.
        tensor: The tensor before that dropout, as the model of the reader has it.
        read: The tensor that the reader reads.
    """

    place: Place
    reader: Call
    via: Place | None
    tensor: keras.KerasTensor
    read: keras.KerasTensor

    @property
    def name(self) -> str:
        """`"enc->join"`, with the paths of both."""
        return f"{self.place.name}->{self.reader.path}{self.reader.name}"

    @property
    def dropout_name(self) -> str:
        """The name of the dropout layer on the edge."""
        return f"{self.place.call.name}->{self.reader.name}_dropout"

    @property
    def site(self) -> Place | None:
        """The place where dropout affects this edge alone; None if the tensor there has other readers."""
        holder = self.via or self.place
        return None if holder.branches else holder

    @property
    def standing(self) -> list[Call]:
        """The calls of the dropout layers on this edge, without those at the whole site."""
        return self.via.standing if self.via is not None else []


def edges_of(every: list[Place]) -> list[Edge]:
    """Returns the edges of a model, in the order of the places.

    Args:
        every: The places of the model, see `places`.
    """
    own = {place.call.key: place for place in every if place.is_on_edge}
    found: list[Edge] = []
    for place in every:
        if place.is_on_edge:
            continue
        for reader in place.readers:
            via = own.get(reader.key)
            if via is None:
                tensor = place.reads[reader.key]
                found.append(Edge(place, reader, None, tensor, tensor))
                continue
            start = via.call.inputs[0]
            found += [Edge(place, behind, via, start, via.reads[behind.key]) for behind in via.readers]
    return found
