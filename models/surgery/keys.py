"""The keys of plans for existing models: the meaning of `"after:Conv2D"`, `"inside:encoder"` or a callable."""

import fnmatch
import re
from collections.abc import Callable, Collection
from typing import Any

import keras

from dropzoo.common.checks import unknown
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.graph.edges import Edge, edges_of
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.walk import Call, graph_of, model_in, walk
from dropzoo.models.names import names_of_call, names_of_place
from dropzoo.models.plans import get_plan
from dropzoo.models.ramps import Ramp
from dropzoo.models.sites import Site, as_site, dropout_inside, is_listed

Key = str | Callable[[Site], bool]
Target = Place | Call | Edge
"""The target of a key: a place, an edge, or a call, which stands for the fused activation of its layer."""

_ACTIVATIONS = tuple(getattr(keras.layers, n) for n in "Activation ReLU LeakyReLU PReLU ELU Softmax".split())
_FUSED = tuple(
    getattr(keras.layers, name)
    for name in "Dense EinsumDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D".split()
)


def resolve(model: keras.Model, plan: dict[Key, Any] | str) -> dict[Target, Any]:
    """Returns the spec for each target of a plan; later entries win.

    Args:
        model: A model with a graph.
        plan: As for `retrofit`.

    Raises:
        ValueError: If `plan` is not a plan, or if a key matches nothing, or layers of several models by one name.
    """
    scope = Scope(model, places(model, final=True), list(walk(model)))
    entries: Any = plan
    if isinstance(plan, str):
        entries = get_plan(plan).patterns(scope.sites())
    if not isinstance(entries, dict):
        raise ValueError(
            "`plan` must be a dict from sites to specs, or the name of a plan; to remove dropout, call "
            f"strip_dropout. Received: plan={plan!r}"
        )
    chosen: dict[Target, Any] = {}
    for key, value in entries.items():
        targets = scope.select(key)
        in_order = [str(i) for i in range(len(targets))]
        specs = list(value.expand(in_order).values()) if isinstance(value, Ramp) else [value] * len(targets)
        for target, spec in zip(targets, specs, strict=True):
            chosen.pop(target, None)  # a later entry wins, and a dict keeps a key's first place
            chosen[target] = spec
    return chosen


class Scope:
    """The places and calls that keys choose from: those of a model, or of the models that `inside:` names.

    Args:
        model: The whole model.
        every: The places and the outputs, in the order of the forward pass.
        calls: The calls of the same models.
    """

    def __init__(self, model: keras.Model, every: list[Place], calls: list[Call]) -> None:
        self._model = model
        self._every, self._calls = [place for place in every if not place.is_final], calls
        self._edges = edges_of(every)
        self._with_outputs = every
        self.listed = [place for place in self._every if is_listed(place)]
        self._known = {name for call in calls for name in names_of_call(call)}
        self._classes = {type(call.layer).__name__ for call in calls}

    def sites(self) -> list[Site]:
        """Returns the listed places as users see them."""
        inside = dropout_inside(self._model)
        return [as_site(place, inside) for place in self.listed]

    def select(self, key: Key) -> list[Target]:
        """Returns the targets of a key; raises a ValueError if there are none."""
        if callable(key):
            return self._by_condition(key)
        if not isinstance(key, str):
            raise ValueError(f"A key of a plan must be a string or a callable. Received: {key!r}")
        self._refuse_one_call_of_a_model(key)
        kind, colon, wanted = key.partition(":")
        if "->" in key and key not in self._known and kind != "inside":
            return self._by_edge(key)
        if not colon or key in self._known:  # a name may have a colon in it
            return self._by_name(key)
        if kind == "inside":
            return self._inside(wanted)
        sides = {"after": self._after, "before": self._before, "before_activation": self._before_activation}
        if kind not in sides:
            raise unknown("kind of place", kind, [*sides, "inside"])
        meant = self._meaning(key, wanted)
        found = sides[kind](meant)
        if not found:
            why = (
                "has no activation"
                if kind == "before_activation"
                else "is an output of the model or does not return floats"
            )
            matched = ", ".join(call.path + call.name for call in self._calls if meant(call))
            raise ValueError(
                f"No dropout can be put at {key!r}, because each layer that it matches {why}: {matched}"
            )
        return found

    def _by_condition(self, condition: Callable[[Site], bool]) -> list[Target]:
        found: list[Target] = [
            place for place, site in zip(self.listed, self.sites(), strict=True) if condition(site)
        ]
        if not found:
            names = ", ".join(place.name for place in self.listed)
            raise ValueError(f"{condition!r} returns True for none of the sites: {names}")
        return found

    def _refuse_one_call_of_a_model(self, key: str) -> None:
        """Refuses a key such as `tower_call2`: the inside of a model is the same in all its calls."""
        for call in self._calls:
            if graph_of(call.layer) is None or call.name == call.layer.name:
                continue
            named = (call.name, *(path + call.name for path in call.paths))
            if any(part.partition("/")[0] == call.name or part in named for part in re.split("[: ]", key)):
                raise ValueError(
                    f"{key!r} means one call of {call.layer.name!r}, a model that is called several times. It "
                    f"has the same dropout in all calls: use the key {key.replace(call.name, call.layer.name)!r}."
                )

    def _by_name(self, wanted: str) -> list[Target]:
        found = self._called(wanted)
        if not found:
            self._refuse_hidden(wanted, wanted)
            raise unknown("site", wanted, [place.name for place in self.listed])
        self._refuse_several_models(wanted, found)
        return [*found]

    def _refuse_hidden(self, key: str, wanted: str) -> None:
        """Raises a ValueError for the name or class of a layer that the code of another layer calls."""
        for call in self._calls:
            if not isinstance(call.layer, keras.Layer) or model_in(call.layer) is not None:
                continue
            for inner in flatten_layers(call.layer, include_self=False):
                known = (inner.name, f"{call.layer.name}/{inner.name}", type(inner).__name__)
                if _is_called(wanted, self._known, *known):
                    raise ValueError(
                        f"{key!r} means {inner.name!r}, which the code of layer {call.layer.name!r} (a "
                        f"{type(call.layer).__name__}) calls. No dropout can be put inside that code. Put it at "
                        f"{call.layer.name!r}, or change {type(call.layer).__name__}: create a dropout layer in "
                        "`__init__`, with dropzoo.layers.get(...), and call it in `call`."
                    )

    def _refuse_several_models(self, wanted: str, found: list[Place]) -> None:
        """Raises a ValueError for a name without a path that places in several models have."""
        paths = sorted({place.call.path for place in found if wanted in names_of_place(place)})
        if len(paths) > 1 and not any(wanted == place.name for place in found):
            raise ValueError(
                f"{wanted!r} is ambiguous, because several nested models have a layer of this name. Use one of "
                f"these keys: "
                f"{', '.join(repr(path + wanted) for path in paths)}, or '*{wanted}' for all"
            )

    def _called(self, wanted: str) -> list[Place]:
        """Returns the places of a name or pattern. A pattern does not match inputs and the parts of a unit."""
        found = [place for place in self.listed if _is_called(wanted, self._known, *names_of_place(place))]
        return found or [place for place in self._every if wanted in names_of_place(place)]

    def _by_edge(self, key: str) -> list[Target]:
        """Returns the edges of `enc->join`. A tensor with one reader has no edges: the result is then its site."""
        source, _, reader = (part.strip() for part in key.partition("->"))
        placed = [place for place in self._every if place.is_on_edge and key in names_of_place(place)]
        if placed:
            return [*placed]
        found = [
            edge
            for edge in self._edges
            if _is_called(source, self._known, *names_of_place(edge.place))
            and _is_called(reader, self._known, *names_of_call(edge.reader))
        ]
        if not found:
            raise unknown("edge", key, [edge.name for edge in self._edges])
        self._refuse_several_models(source, [edge.place for edge in found])
        return list(dict.fromkeys(edge.site or edge for edge in found))

    def _inside(self, wanted: str) -> list[Target]:
        """Returns all sites for `inside:encoder`, or those of the second key for `inside:encoder after:Conv2D`."""
        inner = [(call, way, name) for call in self._calls for way, name in _models_in(call)]
        paths = {path + way: name for call, way, name in inner for path in call.paths}
        begins = [name for name in (*paths, *paths.values()) if f"{wanted} ".startswith(f"{name} ")]
        model = max(begins, key=len, default=wanted.partition(" ")[0])  # a name may have spaces in it
        chosen = tuple(f"{path}/" for path, name in paths.items() if _is_called(model, begins, path, name))
        if not chosen:
            raise unknown("nested model", model, paths)

        def within(call: Call) -> bool:
            return any(path.startswith(chosen) for path in call.paths)

        inner_places = [place for place in self._with_outputs if within(place.call)]
        scope = Scope(self._model, inner_places, [call for call in self._calls if within(call)])
        return scope.select(wanted.removeprefix(model).strip() or "*")

    def _meaning(self, key: str, wanted: str) -> Callable[[Call], bool]:
        """Returns a test of whether a key like `after:Dense` means a call: by class, else by name or pattern."""
        if wanted not in self._classes:

            def meant(call: Call) -> bool:
                return _is_called(wanted, self._known, *names_of_call(call))

            if not any(map(meant, self._calls)):
                self._refuse_hidden(key, wanted)
                names = {call.layer.name for call in self._calls}
                raise unknown("layer or class", wanted, names | self._classes)
            return meant
        if any(call.layer.name == wanted for call in self._calls):
            raise ValueError(
                f"{key!r} is ambiguous: {wanted!r} is both a class and the name of a layer. Rename the layer."
            )
        return lambda call: type(call.layer).__name__ == wanted

    def _after(self, meant: Callable[[Call], bool]) -> list[Target]:
        return [place for place in self._every if any(map(meant, [place.call, *place.standing, *place.aliases]))]

    def _before(self, meant: Callable[[Call], bool]) -> list[Target]:
        return [place for place in self._every if any(map(meant, place.readers))]

    def _before_activation(self, meant: Callable[[Call], bool]) -> list[Target]:
        found: list[Target] = [call for call in self._calls if meant(call) and _has_activation(call.layer)]
        for place in self._every:  # an activation that is a layer: the key names it, or the layer before it
            behind = [reader for reader in place.readers if isinstance(reader.layer, _ACTIVATIONS)]
            if any(map(meant, behind)) or (behind and meant(place.call) and not _has_activation(place.call.layer)):
                found.append(place)
        return found


def _models_in(call: Call) -> list[tuple[str, str]]:
    """Returns the paths and the names of the model that a call runs: two pairs in a `TimeDistributed`."""
    inner, name = model_in(call.layer), call.layer.name
    if inner is None:
        return []
    return [(name, name)] if inner is call.layer else [(name, name), (f"{name}/{inner.name}", inner.name)]


def _is_called(wanted: str, known: Collection[str], *names: str) -> bool:
    """Returns whether one of the names is `wanted`; it is a pattern only if it is not a known name itself."""
    return wanted in names or (wanted not in known and any(fnmatch.fnmatchcase(name, wanted) for name in names))


def _has_activation(layer: Any) -> bool:
    return isinstance(layer, _FUSED) and layer.activation not in (None, keras.activations.linear)
