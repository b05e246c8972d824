"""Dropout sites: their names, the dropout there, and how a plan puts layers there.

A site is the output of the layer that has its name, and the dropout layer there is called `<site>_dropout`. So the
sites are read off the model itself, even if it was loaded from disk.
"""

import collections
import fnmatch
import numbers
import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import snake_case, unknown
from dropzoo.common.seeds import random_untouched
from dropzoo.models.graph.edges import Edge, edges_of
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.random import describe_random, random_layers

# Layers called <site>_<part> belong to the unit that ends in the layer called <site>, and are not sites.
_PARTS = set("act add concat conv dense flatten join norm pad pool resize scale shortcut".split())
_KINDS = ("block", "branch", "conv", "dense", "down", "features", "head", "input", "module", "pool", "skip", "up")


#: A plan for a builder: None, a rate, `"paper"` or a dict from patterns to specs. `build_model` takes all names.
DropoutPlan = float | str | dict[str, Any] | None


class CannotPlace(ValueError):
    """A layer cannot work on the tensor of a site, such as a 2-D layer on the output of a dense layer."""


@dataclass(frozen=True)
class Site:
    """A place in a model where dropout can go: the output of a layer, or an edge between two layers.

    Attributes:
        name: The name of the layer that makes this output, such as `"encoder1_conv2"`. An edge leads from the
            output of a layer to a layer that takes it as input, and has both names, `"encoder1_conv2->skip1"`.
        kind: `"edge"` for an edge. Otherwise the last word of the layer's name without its number (`"conv"` for
            `"encoder1_conv2"`), if it is one of `"conv"`, `"branch"` (the end of a residual branch), `"block"`,
            `"module"`, `"pool"`, `"skip"`, `"down"`, `"up"`, `"features"`, `"dense"`, `"head"` and `"input"`. For
            other names, as in most models that are not from dropzoo, the class of the layer in snake case.
        shape: `(batch, height, width, channels)` or `(batch, units)`, with None where a size is unknown.
        spec: The dropout at this site, as a spec for `layers.get`; None if there is none. Several specs are joined
            by `" + "`.
        inside: Description of the dropout inside the layer itself, which a plan cannot change, such as `"lstm,
            dropout inside: 0.3"`; None if there is none.

    Example:
    >>> from dropzoo import models
    >>> site = models.list_sites("lenet5")[0]
    >>> site.name, site.kind, site.shape
    ('input', 'input', (None, 28, 28, 1))
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    spec: str | None = None
    inside: str | None = None


def sites_of(model: keras.Model, edges: bool = False) -> list[Site]:
    """Returns the dropout sites of a model, in the order of its forward pass; see `list_sites`."""
    every, inside = places(model, final=True), dropout_inside(model)
    found: dict[str, Site] = {}
    of_place = collections.defaultdict(list)
    on_one_edge = set()  # the ids of the places that an edge already stands for
    for edge in edges_of(every) if edges else []:
        if edge.place.branches:
            of_place[id(edge.place)].append(_edge_as_site(edge))
            if edge.via is not None and not edge.via.branches:
                on_one_edge.add(id(edge.via))
    for place in every:
        listed = is_listed(place) and not place.is_final and id(place) not in on_one_edge
        own = [as_site(place, inside)] if listed else []
        for site in [*own, *of_place[id(place)]]:
            found.setdefault(site.name, site)
    return list(found.values())


def dropout_inside(model: keras.Model) -> dict[str, str]:
    """Returns descriptions of the dropout inside the layers of a model, by the path of the layer."""
    inside = collections.defaultdict(list)
    for each in random_layers(model):
        if each.holder is not None or each.kind != "dropout":
            inside[each.holder or each.path].append(describe_random(each))
    return {path: " + ".join(described) for path, described in inside.items()}


def as_site(place: Place, inside: Mapping[str, str] | None = None) -> Site:
    """Returns a place as users see it; `inside` is what `dropout_inside` returns, None to leave it out."""
    spec = " + ".join(layers.describe(call.layer) for call in place.standing) or None
    kind = "edge" if "->" in place.name else _kind(place.call.layer)
    draws = (inside or {}).get(place.call.path + place.call.layer.name)
    return Site(place.name, kind, tuple(place.tensor.shape), spec, draws)


def _edge_as_site(edge: Edge) -> Site:
    spec = " + ".join(layers.describe(call.layer) for call in edge.standing) or None
    return Site(edge.name, "edge", tuple(edge.tensor.shape), spec)


def is_listed(place: Place) -> bool:
    """Returns whether a place has a name of its own.

    Inputs, operations such as `x + 1` and the parts of a unit have none, unless dropout is there already.
    """
    layer = place.call.layer
    if place.standing:
        return True
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.InputLayer):
        return False
    unit, _, part = place.name.rpartition("_")
    return part not in _PARTS or unit not in place.around


def add_parts(*names: str) -> None:
    """Adds endings of layer names that mark the parts of a unit, for a family of models with units of its own.

    Args:
        names: Strs such as `"theta"`; after that, `skip1_theta` belongs to the unit `skip1`.
    """
    _PARTS.update(names)


class Sites:
    """Puts the layers of a plan at the sites of a model that is being built.

    A builder first creates `drop = Sites(dropout, paper={...})`. It calls `x = drop(x, "encoder1_conv1")` wherever
    dropout can go, and `drop.done()` at the end.

    Args:
        dropout: The plan: None, `"paper"`, a rate, or a dict from fnmatch patterns of site names to specs.
        paper: Dict from site names to specs, the plan of the model's own paper.

    Call arguments:
        x: Tensor, the output of the layer called `site`.
        site: Name of the site.

    Returns:
        The output of the dropout layer, or `x` itself if the plan has no entry for the site.

    Raises:
        ValueError: For a plan that cannot be read, for a layer that replaces another layer, and for a layer of the
            plan that cannot work on the tensor of this site.

    Example:
    >>> import keras
    >>> from dropzoo import models
    >>> drop = models.Sites({"hidden*": 0.5}, paper={})
    >>> inputs = keras.Input((8,))
    >>> x = drop(keras.layers.Dense(4, name="hidden1")(inputs), "hidden1")
    >>> drop.done()
    >>> [site.spec for site in models.list_sites(keras.Model(inputs, keras.layers.Dense(2)(x)))]
    ['dropout:0.5']
    """

    def __init__(self, dropout: DropoutPlan, paper: dict[str, Any]) -> None:
        # Drawn even if the plan does not need it, so that the seeds of the weights do not depend on the plan.
        self._seed = random.randint(1, 2**31 - 1)
        plan = {check_pattern(key): spec for key, spec in as_patterns(dropout, paper).items()}
        with random_untouched():
            self._layers = {pattern: spec if spec is None else site_layer(spec) for pattern, spec in plan.items()}
        self._unused = set(plan)
        self._names: list[str] = []

    def __call__(self, x: keras.KerasTensor, site: str) -> keras.KerasTensor:
        self._names.append(site)
        matching = [pattern for pattern in self._layers if fnmatch.fnmatchcase(site, pattern)]
        self._unused -= set(matching)
        layer = self._layers[matching[-1]] if matching else None
        if layer is None:
            return x
        return put_at(site, layer, self._seed, x)

    def done(self) -> None:
        """Raises a ValueError if a pattern of the plan has matched no site; a builder calls it last."""
        for pattern in self._layers:
            if pattern in self._unused:
                raise unknown("site", pattern, self._names)


def site_layer(spec: Any) -> keras.Layer:
    """Returns a new layer for a site from its spec.

    Raises:
        ValueError: If the spec is wrong, or if the layer replaces another layer.
    """
    name = spec.partition(":")[0].strip() if isinstance(spec, str) else None
    name = spec.get("name") if isinstance(spec, dict) else name
    if isinstance(name, str) and name in layers.list_layers():  # before it is made: its arguments are others
        _refuse_replacing(layers.get_class(name))
    layer = layers.get(spec)
    _refuse_replacing(type(layer))
    return layer


def _refuse_replacing(cls: type[keras.Layer]) -> None:
    """Raises a ValueError for the class of a layer that replaces another layer."""
    if issubclass(cls, layers.Stochastic) and not issubclass(cls, layers.BaseDropout):
        raise ValueError(
            f"{cls.__name__} replaces a layer of a model, so it cannot be put at a site. Layers for "
            f"sites: {', '.join(layers.list_layers(sites_only=True))}"
        )


def check_pattern(key: Any) -> str:
    """Returns a key of a plan for a builder; raises a ValueError if it is not a string."""
    if not isinstance(key, str):
        raise ValueError(
            "A key of a plan must be a string: the name of a site, or an fnmatch pattern. `retrofit` takes "
            f"callables too. Received: {key!r}"
        )
    return key


def layer_at(site: str, layer: keras.Layer, seed: int, **config: Any) -> keras.Layer:
    """Returns a copy of `layer`, called `<site>_dropout`.

    Its seed is derived from the site and the layer's seed, or from the site and `seed` if the layer has none, so
    that each site draws its own masks.
    """
    config = {**layer.get_config(), "name": f"{site}_dropout", **config}
    if "seed" in config:  # a custom layer may have none
        seed = seed if config["seed"] is None else config["seed"]
        config["seed"] = zlib.crc32(f"{seed} {site}".encode()) & 0x7FFFFFFF
    return type(layer).from_config(config)


def put_at(
    site: str, layer: keras.Layer, seed: int, tensor: keras.KerasTensor, **config: Any
) -> keras.KerasTensor:
    """Applies a copy of `layer`, made by `layer_at`, to the tensor of a site, and returns the output.

    Raises:
        CannotPlace: If the layer cannot work on the tensor.
        ValueError: If the layer has weights or changes the shape.
    """
    try:
        placed = layer_at(site, layer, seed, **config)
        dropped = placed(tensor)
    except ValueError as error:
        raise CannotPlace(f"Cannot put {layers.describe(layer)!r} at site {site!r}: {error}") from None
    if tensor.shape != dropped.shape or placed.weights:
        raise ValueError(
            f"A layer at a site must keep the shape of its input and have no weights. Received: {placed!r} at "
            f"site {site!r}"
        )
    return dropped


def as_patterns(dropout: DropoutPlan, paper: dict[str, Any]) -> dict[str, Any]:
    """Returns a plan as a dict of patterns.

    Args:
        dropout: None, `"paper"`, a rate for the paper's sites, or a dict of patterns.
        paper: The paper's own plan.

    Raises:
        ValueError: If `dropout` is anything else, or if it needs the paper's sites and the paper has none.
    """
    if dropout is None:
        return {}
    if not paper and (dropout == "paper" or isinstance(dropout, numbers.Real)):
        raise ValueError(
            "This model has none of the sites where its paper puts dropout: pass a dict from patterns of site "
            f"names to specs. Received: dropout={dropout!r}"
        )
    if isinstance(dropout, str) and dropout == "paper":
        return paper
    if isinstance(dropout, numbers.Real):
        with random_untouched():
            return {site: _at_rate(spec, layers.get(dropout).rate) for site, spec in paper.items()}
    if isinstance(dropout, dict):
        return dropout
    raise ValueError(
        "`dropout` must be None, a rate, the name of a plan, or a dict from patterns of site names to specs. "
        f"Received: dropout={dropout!r}"
    )


def _at_rate(spec: Any, rate: float) -> keras.Layer:
    """Returns the layer of a spec, at another rate."""
    layer = layers.get(spec)
    layer.rate = rate
    return layer


def _kind(layer: keras.Layer) -> str:
    """Returns the last word of a layer's name if that is one of `_KINDS`, else its class in snake case."""
    last = re.sub(r"\d+$", "", layer.name.rpartition("_")[2])
    return last if last in _KINDS else snake_case(type(layer).__name__)
