"""Dropout sites: their names, the dropout that stands there, and how a plan puts layers there.

A site is the output of the layer that has its name, and the dropout layer there is called `<site>_dropout`. So the
sites are read off the model itself, even if it was loaded from disk.
"""

import fnmatch
import numbers
import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import snake_case, unknown
from dropzoo.common.seeds import random_untouched
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.walk import graph_of, walk

# Layers called <site>_<part> belong to the unit that ends in the layer called <site>, and are not sites.
_PARTS = set("act add concat conv dense flatten join norm pad pool resize scale shortcut".split())
_KINDS = ("block", "branch", "conv", "dense", "down", "features", "head", "input", "module", "pool", "skip", "up")


#: A plan for a builder: None, a rate, `"paper"` or a dict from patterns to specs. `build_model` takes all names.
DropoutPlan = float | str | dict[str, Any] | None


class CannotPlace(ValueError):
    """A layer cannot work on the tensor of a site, such as a 2-D layer on the output of a dense layer."""


@dataclass(frozen=True)
class Site:
    """A place in a model where dropout can stand.

    Attributes:
        name: The name of the layer whose output it is, such as `"encoder1_conv2"`.
        kind: `"conv"`, `"branch"` (the end of a residual branch), `"block"`, `"module"`, `"pool"`, `"skip"`,
            `"down"`, `"up"`, `"features"`, `"dense"`, `"head"` or `"input"`. If the layer's name ends in none of
            these, as in most other models, its class in snake case.
        shape: `(batch, height, width, channels)` or `(batch, units)`, with None where a size is unknown.
        spec: The dropout that stands there, as a spec for `layers.get`; None if there is none. Several specs are
            joined by `" + "`.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    spec: str | None = None


def sites_of(model: keras.Model) -> list[Site]:
    """Returns the dropout sites of a model, in the order of its forward pass; see `list_sites`."""
    return [as_site(place) for place in places(model) if is_listed(place)]


def as_site(place: Place) -> Site:
    """Returns a place as users see it."""
    spec = " + ".join(layers.describe(call.layer) for call in place.standing) or None
    return Site(place.name, _kind(place.call.layer), tuple(place.tensor.shape), spec)


def is_listed(place: Place) -> bool:
    """Returns whether a place has a name of its own.

    Inputs, operations such as `x + 1` and the parts of a unit have none, unless dropout stands there already.
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


def match_sites(model: keras.Model, patterns: Iterable[str]) -> dict[str, list[keras.Layer]]:
    """Returns the dropout layers that each pattern names.

    A dropout layer is known by its own name and by the name of its site, `"head_dropout"` and `"head"`. In a
    nested model both are also known with a path, `"inner/head"`, which is how `list_sites` names sites. If a layer
    is called several times, the dropout after one of its calls is known by the name of the call, `"dense_call2"`.
    A pattern that is one of these names is taken literally; otherwise it is an fnmatch pattern.

    Args:
        model: Any Keras model. Paths are known if it is Functional or Sequential.
        patterns: Names or fnmatch patterns.

    Returns:
        A dict from each pattern to its layers, in the order of the model.

    Raises:
        ValueError: If a pattern matches no dropout layer; the error suggests the closest names.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=1, filters=2, dropout={"decoder*": 0.1})
    >>> {pattern: len(found) for pattern, found in models.match_sites(model, ["decoder*", "decoder1_up"]).items()}
    {'decoder*': 3, 'decoder1_up': 1}
    """
    names = {layer: {layer.name, layer.name.removesuffix("_dropout")} for layer in layers.dropouts(model)}
    listed = {layer: {layer.name.removesuffix("_dropout")} for layer in names}
    if graph_of(model) is not None:
        _add_names_in_graph(model, names, listed)
    known = {name for those in names.values() for name in those}
    matched = {}
    for pattern in patterns:
        literal = pattern in known
        matched[pattern] = [
            layer
            for layer, those in names.items()
            if (pattern in those if literal else any(fnmatch.fnmatchcase(name, pattern) for name in those))
        ]
        if not matched[pattern]:
            sites = {site for those in listed.values() for site in those}
            raise unknown("dropout site", pattern, sites, aliases=known)
    return matched


def _add_names_in_graph(
    model: keras.Model, names: dict[keras.Layer, set[str]], listed: dict[keras.Layer, set[str]]
) -> None:
    """Adds the names with paths to `names`, and sets `listed` to the names that `list_sites` gives, by layer."""
    for call in walk(model):
        if call.layer in names:
            own = (call.name, call.layer.name, call.layer.name.removesuffix("_dropout"))
            names[call.layer] |= {prefix + name for prefix in ("", *call.paths) for name in own}
    printed: dict[keras.Layer, set[str]] = {}
    for place in places(model):
        for call in place.standing:
            names[call.layer] |= {prefix + place.call.name for prefix in ("", *place.call.paths)}
            printed.setdefault(call.layer, set()).add(place.name)
    listed |= printed


class Sites:
    """Puts the layers of a plan at the sites of a model while it is built.

    A builder makes one at its top, calls it wherever dropout can stand, `x = drop(x, "encoder1_conv1")`, and calls
    `drop.done()` at its end.

    Args:
        dropout: The plan: None, `"paper"`, a rate, or a dict from fnmatch patterns of site names to specs.
        paper: Dict from sites to specs, the plan of the model's own paper.

    Call arguments:
        x: Tensor, the output of the layer called `site`.
        site: Name of the site.

    Returns:
        The output of the dropout layer, or `x` itself if the plan has no entry for the site.

    Raises:
        ValueError: For a plan that cannot be read, and a layer that cannot stand at a site.
        CannotPlace: For a layer that cannot work on the tensor of a site.

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
            self._layers = {pattern: spec if spec is None else layers.get(spec) for pattern, spec in plan.items()}
        for layer in filter(None, self._layers.values()):
            check_site_layer(layer)
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


def check_site_layer(layer: keras.Layer) -> keras.Layer:
    """Returns a layer that can stand at a site; raises a ValueError for one that takes the place of a layer."""
    if layers.is_stochastic(layer) and not layers.is_dropout(layer):
        raise ValueError(
            f"{type(layer).__name__} replaces a layer of a model, so it cannot stand at a site. Layers "
            f"that can: {', '.join(layers.list_layers(sites_only=True))}"
        )
    return layer


def check_pattern(key: Any) -> str:
    """Returns a key of a plan for a builder; raises a ValueError if it is not a string."""
    if not isinstance(key, str):
        raise ValueError(
            "A key of a plan is a string, the name of a site or an fnmatch pattern; `retrofit` takes callables "
            f"too. Received: {key!r}"
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
            f"A layer at a site keeps the shape and has no weights. Received: {placed!r} at site {site!r}"
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
            f"The paper's dropout has no site in this model: pass a dict. Received: dropout={dropout!r}"
        )
    if isinstance(dropout, str) and dropout == "paper":
        return paper
    if isinstance(dropout, numbers.Real):
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
