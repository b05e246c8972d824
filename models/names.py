"""Names of the layers that draw random numbers: each part of the package takes every name that another prints."""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

import keras

from dropzoo.common.checks import check_keras_model, unknown
from dropzoo.models.graph.edges import edges_of
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.random import RandomLayer, random_layers
from dropzoo.models.graph.walk import Call, graph_of, walk


@dataclass(frozen=True, eq=False)
class Named:
    """A layer that draws random numbers, with its names.

    Attributes:
        random: The layer and the facts about it.
        site: The name that all parts print: that of the place where the layer is, or else its path.
        place: The place where it is, the first one if there are several; None if it is at none.
        names: The names that mean this layer.
        holders: The names of the layer whose code calls it. They mean this layer if no other layer has them.
    """

    random: RandomLayer
    site: str
    place: Place | None
    names: frozenset[str]
    holders: frozenset[str]

    def has(self, name: str, literal: bool) -> bool:
        """Returns whether a name means this layer, or whether a pattern matches one of its names."""
        if literal:
            return name in self.names
        tried = (known for known in self.names | self.holders if ("->" in known) == ("->" in name))
        return any(fnmatch.fnmatchcase(known, name) for known in tried)


def named_layers(model: keras.Model, every: list[Place] | None = None) -> list[Named]:
    """Returns the layers of a model that draw random numbers, with their names, in the order of the forward pass.

    Args:
        model: Any Keras model. Without a graph, its layers have no sites, only paths.
        every: The places of the model, if they are known already.
    """
    check_keras_model(model)
    found = random_layers(model)
    names = {id(each.layer): _own_names(each) for each in found}
    holders = {id(each.layer): _holders(each) for each in found}
    inside = {id(each.layer) for each in found if each.kind == "inside"}  # by its own name only if no other has it
    at: dict[int, Place] = {}
    if graph_of(model) is not None:
        every, calls = places(model, final=True) if every is None else every, list(walk(model))
        for layer, name in _names_in_graph(every, calls):
            if id(layer) in names:
                (holders if id(layer) in inside else names)[id(layer)].add(name)
        at = {id(call.layer): place for place in reversed(every) for call in place.standing}
        order = {path + call.layer.name: i for i, call in enumerate(calls) for path in call.paths}
        found.sort(key=lambda each: order.get(each.holder or each.path, len(order)))
    return [
        Named(each, place.name if place else each.path, place, frozenset(names[key]), frozenset(holders[key]))
        for each, key in ((each, id(each.layer)) for each in found)
        for place in [at.get(key)]
    ]


def match_sites(model: keras.Model, patterns: Iterable[str]) -> dict[str, list[keras.Layer]]:
    """Returns, for each pattern, the matching layers that draw random numbers.

    A dropout layer has two names: its own name and the name of its site, `"head_dropout"` and `"head"`. In a
    nested model, both names can also have a path, `"inner/head"`, as in `list_sites`. If a layer is called several
    times, the dropout after one of the calls has the name of the call, `"dense_call2"`. Dropout on an edge has the
    name of the edge, `"enc->join"`. A dropout layer that is part of another layer has the names `"block/drop"` and
    `"block"`. The result also includes layers for which `layers.is_stochastic` is False: Keras layers with dropout
    inside, such as `LSTM`, and other layers that may draw random numbers.

    A pattern that is one of these names is taken literally; otherwise it is an fnmatch pattern.

    Args:
        model: Any Keras model. If it is Functional or Sequential, patterns can use the paths of its nested models.
        patterns: Iterable of str: names or fnmatch patterns.

    Returns:
        A dict from each pattern to its layers, in the order of the forward pass.

    Raises:
        ValueError: If a pattern matches no layer; the error suggests the closest names.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=1, filters=2, dropout={"decoder*": 0.1})
    >>> {pattern: len(found) for pattern, found in models.match_sites(model, ["decoder*", "decoder1_up"]).items()}
    {'decoder*': 3, 'decoder1_up': 1}
    """
    named = named_layers(model)
    known = {name for each in named for name in each.names}
    matched = {}
    for pattern in patterns:
        wanted = re.sub(r"\s*->\s*", "->", pattern)
        found = [each for each in named if each.has(wanted, literal=wanted in known)]
        if not found:
            raise unknown("dropout site", pattern, {each.site for each in named}, aliases=known)
        matched[pattern] = [each.random.layer for each in found]
    return matched


def names_of_call(call: Call) -> list[str]:
    """Returns the names by which a call is known, with and without a path."""
    return [prefix + name for prefix in ("", *call.paths) for name in (call.name, call.layer.name)]


def names_of_place(place: Place) -> list[str]:
    """Returns the names by which a place is known: those of its call and of the dropout there."""
    return _names_of_site(place) + [name for call in place.standing for name in names_of_call(call)]


def _names_of_site(place: Place) -> list[str]:
    """Returns the names by which a place is known, without those of the dropout there."""
    return [place.name, *(name for call in (place.call, *place.aliases) for name in names_of_call(call))]


def _own_names(each: RandomLayer) -> set[str]:
    """Returns the names of a layer and of its site."""
    names = {*each.paths} if each.kind == "inside" else {each.layer.name, *each.paths}
    return names | {name.removesuffix("_dropout") for name in names}


def _holders(each: RandomLayer) -> set[str]:
    """Returns the names of the layer whose code a layer is in, with and without a path."""
    return set() if each.holder is None else {each.holder, each.holder.rpartition("/")[2]}


def _names_in_graph(every: list[Place], calls: list[Call]) -> Iterable[tuple[keras.Layer, str]]:
    """Yields the layers of the graph, each with a name of its calls, places and edges."""
    for call in calls:
        yield from ((call.layer, n) for name in names_of_call(call) for n in (name, name.removesuffix("_dropout")))
    for place in every:
        for call in place.standing:
            yield from ((call.layer, name) for name in _names_of_site(place))
    for edge in edges_of(every):
        readers = names_of_call(edge.reader)
        names = [f"{source}->{reader}" for source in _names_of_site(edge.place) for reader in readers]
        holder = edge.via or edge.site
        for call in holder.standing if holder else []:
            yield from ((call.layer, name) for name in (edge.name, *names))
