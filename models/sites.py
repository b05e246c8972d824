"""Dropout sites: their names, what stands at them, and how a plan puts layers there.

A site is the output of the layer that bears its name, and the dropout layer put there is called
`<site>_dropout`. So the sites of a model are read off the model itself, also one loaded from disk.
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
from dropzoo.models.graph.walk import Place, graph_of, places, walk

# Layers called <site>_<suffix> are parts of the unit that ends in the layer called <site>, and no sites.
_PARTS = tuple(
    "act add concat conv dense flatten join norm pad phi pool psi resize scale shortcut sigmoid theta".split()
)
_KINDS = ("block", "branch", "conv", "dense", "down", "features", "head", "input", "module", "pool", "skip", "up")


class CannotPlace(ValueError):
    """A layer cannot work on the tensor of a site, such as a 2-D layer on the output of a dense layer."""


@dataclass(frozen=True)
class Site:
    """A place in a model where dropout can stand.

    Attributes:
        name: Of the layer whose output it is: `"encoder1_conv2"`.
        kind: `"conv"`, `"branch"` (the end of a residual branch), `"block"`, `"module"`, `"pool"`, `"skip"`,
            `"down"`, `"up"`, `"features"`, `"dense"`, `"head"` or `"input"`; in models that are not ours the
            layer's class, snake-cased.
        shape: `(batch, height, width, channels)` or `(batch, units)`, None where unknown.
        spec: What stands there, as a spec for `layers.get`, or None.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    spec: str | None = None


def list_sites(model: str | keras.Model, **options: Any) -> list[Site]:
    """The dropout sites of a model, in the order of its forward pass.

    Args:
        model: A name, to be built with `options`, or a Functional or Sequential model, of ours or not. A site in
            a model that is inside another is `<inner model>/<site>`; a layer that is called several times has the
            sites `<layer>_call1`, `<layer>_call2`, ...
        options: For a name: the options of `build_model`; all have defaults.

    Example:
    >>> from dropzoo import models
    >>> [site.name for site in models.list_sites("unet", depth=1)]  # doctest: +NORMALIZE_WHITESPACE
    ['encoder1_conv1', 'encoder1_conv2', 'encoder1_pool', 'skip1', 'bottleneck_conv1', 'bottleneck_conv2',
     'decoder1_up', 'decoder1_conv1', 'decoder1_conv2', 'head']
    """
    if isinstance(model, str):
        from dropzoo.models.registry import build_model

        with random_untouched():
            return list_sites(build_model(model, **options))
    if options:
        raise ValueError(f"Options are for a model given by name. Received: a model and {sorted(options)}")
    return [as_site(place) for place in places(model) if is_listed(place)]


def as_site(place: Place) -> Site:
    """What users see of a place."""
    spec = " + ".join(layers.describe(call.layer) for call in place.standing) or None
    return Site(place.name, _kind(place.call.layer), tuple(place.tensor.shape), spec)


def is_listed(place: Place) -> bool:
    """Whether a place bears a name of its own: not an input, an operation as `x + 1`, or a part of a unit."""
    layer = place.call.layer
    if place.standing:
        return True
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.InputLayer):
        return False
    unit, _, part = place.name.rpartition("_")
    return part not in _PARTS or unit not in place.around


def match_sites(model: keras.Model, patterns: Iterable[str]) -> dict[str, list[keras.Layer]]:
    """Returns the dropout layers that each pattern names.

    A dropout layer is known by its own name and by that of its site (`"head_dropout"` and `"head"`), in a nested
    model also with the path that `list_sites` prints (`"inner/head"`). A pattern that is such a name is taken
    literally; any other is an fnmatch pattern.

    Args:
        model: Any Keras model. Paths are known where the model has a graph.
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
    own = {layer: (layer.name.removesuffix("_dropout"), layer.name) for layer in layers.dropouts(model)}
    names = {layer: set(both) for layer, both in own.items()}
    listed = {layer: site for layer, (site, _) in own.items()}
    if graph_of(model) is not None:
        for call in walk(model):
            if call.layer in names:
                names[call.layer] |= {path + name for path in call.paths for name in own[call.layer]}
        for place in places(model):
            for call in place.standing:
                names[call.layer].add(place.name)
                listed[call.layer] = place.name
    known = {name for those in names.values() for name in those}
    matched = {}
    for pattern in patterns:
        exact = pattern in known
        matched[pattern] = [
            layer
            for layer, those in names.items()
            if (pattern in those if exact else any(fnmatch.fnmatchcase(name, pattern) for name in those))
        ]
        if not matched[pattern]:
            raise unknown("dropout site", pattern, listed.values())
    return matched


class Sites:
    """Puts the layers of a plan at the sites of a model while it is built: `x = drop(x, "encoder1_conv1")`.

    Gives `x` back where the plan has nothing. `done()` closes the account: a pattern without a site is an error.
    """

    def __init__(self, dropout: Any, paper: dict[str, Any]) -> None:
        # Drawn for every model, so that the seeds of its weights do not depend on the plan.
        self._seed = random.randint(1, 2**31 - 1)
        plan = {check_pattern(key): spec for key, spec in as_patterns(dropout, paper).items()}
        with random_untouched():
            self._layers = {pattern: spec if spec is None else layers.get(spec) for pattern, spec in plan.items()}
        for layer in filter(None, self._layers.values()):
            check_site_layer(layer)
        self._unused = set(plan)
        self._names: list[str] = []

    def __call__(self, x: Any, site: str) -> Any:
        self._names.append(site)
        matching = [pattern for pattern in self._layers if fnmatch.fnmatchcase(site, pattern)]
        self._unused -= set(matching)
        layer = self._layers[matching[-1]] if matching else None
        if layer is None:
            return x
        try:
            placed = layer_at(site, layer, self._seed)
            dropped = placed(x)
        except ValueError as error:
            raise CannotPlace(f"Cannot put {layers.describe(layer)!r} at site {site!r}: {error}") from None
        check_kept(placed, site, x.shape, dropped.shape)
        return dropped

    def done(self) -> None:
        """Raises a ValueError if a pattern of the plan has matched no site."""
        for pattern in self._layers:
            if pattern in self._unused:
                raise unknown("site", pattern, self._names)


def check_site_layer(layer: keras.Layer) -> keras.Layer:
    """The layer, or a ValueError if it draws but takes the place of a layer of a model."""
    if layers.is_stochastic(layer) and not layers.is_dropout(layer):
        raise ValueError(
            f"{type(layer).__name__} replaces a layer of a model, so it cannot stand at a site. Layers "
            f"that can: {', '.join(layers.list_layers(sites_only=True))}"
        )
    return layer


def check_kept(layer: keras.Layer, site: str, before: Any, after: Any) -> None:
    """A ValueError for a layer, called, that has weights or gives out another shape than it takes."""
    if before != after or layer.weights:
        raise ValueError(
            f"What stands at a site keeps the shape and has no weights. Received: {layer!r} at site {site!r}"
        )


def check_pattern(key: Any) -> str:
    """A key of a plan for a builder, or a ValueError if it is no string."""
    if not isinstance(key, str):
        raise ValueError(
            "A key of a plan is a string, the name of a site or an fnmatch pattern; `retrofit` takes callables "
            f"too. Received: {key!r}"
        )
    return key


def layer_at(site: str, layer: keras.Layer, seed: int, **config: Any) -> keras.Layer:
    """A copy of `layer`, called `<site>_dropout`, with the site mixed into its seed, or else into `seed`."""
    config = {**layer.get_config(), "name": f"{site}_dropout", **config}
    if "seed" in config:  # somebody else's layer may have none
        seed = seed if config["seed"] is None else config["seed"]
        config["seed"] = zlib.crc32(f"{seed} {site}".encode()) & 0x7FFFFFFF
    return type(layer).from_config(config)


def as_patterns(dropout: Any, paper: dict[str, Any]) -> dict[str, Any]:
    """A plan as a dict of patterns; that of the paper, or at another rate, is `paper`."""
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
    layer = layers.get(spec)
    layer.rate = rate
    return layer


def _kind(layer: keras.Layer) -> str:
    last = re.sub(r"\d+$", "", layer.name.rpartition("_")[2])
    return last if last in _KINDS else snake_case(type(layer).__name__)
