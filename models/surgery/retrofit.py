"""Dropout on any Keras model: `retrofit` puts it in, changes and removes it; `strip_dropout` removes all."""

import fnmatch
import random
import re
import warnings
from collections.abc import Callable, Collection
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import unknown
from dropzoo.common.seeds import random_untouched
from dropzoo.models.graph.walk import Call, Place, check_graph, graph_of, places, walk
from dropzoo.models.plans import get_plan
from dropzoo.models.ramps import Ramp
from dropzoo.models.sites import as_site, check_site_layer, is_listed
from dropzoo.models.surgery.rebuild import Changes, Put, Rebuild, call_key
from dropzoo.models.surgery.state import compile_like, copy_state

Key = str | Callable[..., bool]
_ACTIVATIONS = tuple(getattr(keras.layers, n) for n in "Activation ReLU LeakyReLU PReLU ELU Softmax".split())
_FUSED = tuple(
    getattr(keras.layers, name)
    for name in "Dense EinsumDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D".split()
)


def retrofit(model: keras.Model, plan: dict[Key, Any] | str, share_weights: bool = False) -> keras.Model:
    """A copy of any Keras model with dropout where a plan says.

    A site is a tensor: all that read it get it dropped. The copy has the weights of the original, the same output
    at inference to the bit, and the compile settings and optimizer state; the original is untouched. Dropout that
    the model has already stays, unless the plan speaks of its site: then it is replaced, or removed by `None`.

    Args:
        model: A Functional or Sequential model, built; with models inside it to any depth, shared layers, several
            inputs and outputs. Of a layer that is called several times each call is a site of its own; the inside
            of a model that is called several times is the same in all calls.
        plan: The name of a plan of `list_plans()`, or a dict to specs for `layers.get`, None, or `ramp(...)`,
            where later entries win. Its keys:
            `"name"`, `"pattern*"`: sites by name, see `list_sites`; or by the name of the dropout layer there, or
            of a model whose output it is. A name that stands in several models needs its path, `"encoder/conv1"`.
            `"after:Conv2D"`, `"before:Flatten"`: what layers of exactly this class give out or read; or, with a
            name or pattern, `"after:conv4_*"`.
            `"before_activation:conv4_*"`: between a layer (name, pattern or class) and its activation, be that
            fused or a layer of its own. A fused one is split: the layer becomes `<name>_conv` or `<name>_dense`,
            and its activation bears the name.
            `"inside:encoder"`: all sites in a model that is inside; `"inside:encoder after:Conv2D"`: some of them.
            A callable: from a `Site` to whether it is one.
        share_weights: Whether the copy uses the layers of the original itself, so that training one trains both.

    Returns:
        A model of the same kind. What is put at a site is called `<site>_dropout`, so files load both ways.

    Raises:
        ValueError: for a model without a graph; a key that matches nothing, or several models by one name; a layer
            that cannot stand there; a plan that finds none of its sites.

    Example:
    >>> import keras
    >>> from dropzoo import models
    >>> conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")
    >>> end = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(2, name="logits")]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), conv, *end])
    >>> new = models.retrofit(model, {"before_activation:conv": "spatial_dropout2d:0.1", "before:Dense": 0.5})
    >>> [layer.name for layer in new.layers]
    ['conv_conv', 'conv_conv_dropout', 'conv', 'flatten', 'flatten_dropout', 'logits']
    """
    check_graph(model)
    changes = Changes()
    for place, spec in _resolve(model, plan).items():
        layer = None if spec is None else check_site_layer(layers.get(spec))
        if isinstance(place, Call):
            if layer is not None:
                changes.split.add(id(place.layer))
                changes.between[call_key(place)] = layer
            continue
        changes.removed |= {call_key(call) for call in place.standing}
        if layer is not None:  # where dropout stood already, in whichever model that is
            stood = place.standing[-1] if place.standing else place.call
            changes.after[call_key(stood)] = Put(layer, place.name, place.dropout_name)
    if changes.split and share_weights:
        raise ValueError(
            "`before_activation` splits a layer with a fused activation into two new ones, which cannot share the "
            "weights of the original. Pass share_weights=False, or use `after:`."
        )
    return _rebuilt(model, changes, share_weights)


def strip_dropout(model: keras.Model) -> keras.Model:
    """A copy of any Keras model without its dropout layers, and with nothing in their place.

    But where a dropout gave an output of the model an `Identity` of its name stays, since losses may go by it.
    Weights, inference, compile settings and optimizer state are those of the original, which is untouched.

    Args:
        model: A Functional or Sequential model, built, as for `retrofit`.

    Raises:
        ValueError: for a model without a graph.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=1, filters=4, dropout={"*": 0.1})
    >>> [site.spec for site in models.list_sites(models.strip_dropout(model)) if site.spec]
    []
    """
    check_graph(model)
    dropped = [call for call in walk(model) if layers.is_dropout(call.layer)]
    new = _rebuilt(model, Changes(removed={call_key(call) for call in dropped}))
    left = [layer.name for layer in new._flatten_layers() if layers.is_stochastic(layer)]
    if left:
        warnings.warn(
            "Layers that draw are left, since they compute something too, or are inside the code of a layer; set "
            f"`rate` to 0 where they have one: {left}",
            stacklevel=2,
        )
    return new


def _rebuilt(model: keras.Model, changes: Changes, share_weights: bool = False) -> keras.Model:
    rebuild = Rebuild(changes, random.randint(1, 2**31 - 1), share_weights)
    with random_untouched(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")  # it goes to no file
        new = rebuild.model(model)
        compile_like(model, new, copy_state(rebuild.pairs))
    return new


def _resolve(model: keras.Model, plan: Any) -> dict[Place | Call, Any]:
    """From places, or calls whose fused activation is meant, to specs."""
    every = places(model)
    if isinstance(plan, str):
        plan = get_plan(plan).patterns([as_site(place) for place in every if is_listed(place)])
    if not isinstance(plan, dict):
        raise ValueError(
            "`plan` must be a dict from sites to specs, or the name of a plan; to take dropout out, see "
            f"strip_dropout. Received: plan={plan!r}"
        )
    calls = list(walk(model))
    chosen: dict[Place | Call, Any] = {}
    for key, value in plan.items():
        matching = _select(key, every, calls)
        places_in_order = [str(i) for i in range(len(matching))]
        ramp = isinstance(value, Ramp)
        specs = list(value.expand(places_in_order).values()) if ramp else [value] * len(matching)
        for target, spec in zip(matching, specs, strict=True):
            chosen.pop(target, None)
            chosen[target] = spec
    return chosen


def _select(key: Any, every: list[Place], calls: list[Call]) -> list[Place] | list[Call] | list[Place | Call]:
    """What a key of a plan means, or an error."""
    listed = [place for place in every if is_listed(place)]
    if callable(key):
        found = [place for place in listed if key(as_site(place))]
        if not found:
            raise ValueError(f"{key!r} is true of no site. Sites: {', '.join(place.name for place in listed)}")
        return found
    if not isinstance(key, str):
        raise ValueError(f"A key of a plan is a string or a callable. Received: {key!r}")
    for call in calls:  # the second call of a model, or a site in it
        named = (call.name, *(path + call.name for path in call.paths))
        if graph_of(call.layer) is not None and call.name != call.layer.name:
            if any(part.partition("/")[0] == call.name or part in named for part in re.split("[: ]", key)):
                raise ValueError(
                    f"{key!r} means one call of {call.layer.name!r}, a model that is called several times: its "
                    f"inside is the same in all calls. Write {key.replace(call.name, call.layer.name)!r} for all."
                )
    known = {name for call in calls for name in _names(call)}
    kind, colon, wanted = key.partition(":")
    if not colon or key in known:
        return _by_name(key, every, listed, known)
    if kind == "inside":
        models = [call for call in calls if graph_of(call.layer) is not None]
        paths = {path + call.layer.name: call.layer.name for call in models for path in call.paths}
        begins = [name for name in (*paths, *paths.values()) if f"{wanted} ".startswith(f"{name} ")]
        model = max(begins, key=len, default=wanted.partition(" ")[0])  # a name may have spaces in it
        chosen = tuple(f"{path}/" for path, name in paths.items() if _is_called(model, begins, path, name))
        if not chosen:
            raise unknown("model inside", model, paths)
        every = [place for place in every if any(path.startswith(chosen) for path in place.call.paths)]
        calls = [call for call in calls if any(path.startswith(chosen) for path in call.paths)]
        return _select(wanted.removeprefix(model).strip() or "*", every, calls)
    if kind not in ("after", "before", "before_activation"):
        raise unknown("kind of key", kind, ["after", "before", "before_activation", "inside"])

    classes = {type(call.layer).__name__ for call in calls}
    if wanted in classes and any(call.layer.name == wanted for call in calls):
        raise ValueError(f"{key!r} is ambiguous: {wanted!r} is a class and the name of a layer. Rename the layer.")

    def meant(call: Call) -> bool:
        if wanted in classes:
            return type(call.layer).__name__ == wanted
        return _is_called(wanted, known, *_names(call))

    if not any(meant(call) for call in calls):
        raise unknown("layer or class", wanted, {call.layer.name for call in calls} | classes)
    if kind == "after":
        result: list[Any] = [p for p in every if any(map(meant, [p.call, *p.standing, *p.aliases]))]
    elif kind == "before":
        result = [p for p in every if any(map(meant, p.readers))]
    else:
        result = [call for call in calls if meant(call) and _has_activation(call.layer)]
        for p in every:  # an activation that is a layer of its own: it is meant, or what it reads
            behind = [reader for reader in p.readers if isinstance(reader.layer, _ACTIVATIONS)]
            if any(map(meant, behind)) or (behind and meant(p.call) and not _has_activation(p.call.layer)):
                result.append(p)
    if not result:
        why = "have no activation" if kind == "before_activation" else "give out what the model does, or no floats"
        matched = ", ".join(call.path + call.name for call in calls if meant(call))
        raise ValueError(f"{key!r} is no place for dropout: the layers that it matches {why}: {matched}")
    return result


def _by_name(wanted: str, every: list[Place], listed: list[Place], known: set[str]) -> list[Place]:
    def names(place: Place) -> list[str]:
        return [name for call in (place.call, *place.standing, *place.aliases) for name in _names(call)]

    found = [place for place in listed if _is_called(wanted, known, *names(place))]
    found = found or [place for place in every if wanted in names(place)]  # an input, a part of a unit
    if not found:
        raise unknown("site", wanted, [place.name for place in listed])
    paths = sorted({place.call.path for place in found if wanted in names(place)})
    if len(paths) > 1 and not any(wanted == place.name for place in found):
        raise ValueError(
            f"{wanted!r} is ambiguous: it is in several models. Say which: "
            f"{', '.join(repr(path + wanted) for path in paths)}, or '*{wanted}' for all"
        )
    return found


def _names(call: Call) -> list[str]:
    """Those by which a call is known, with and without a path."""
    return [prefix + name for prefix in ("", *call.paths) for name in (call.name, call.layer.name)]


def _is_called(wanted: str, known: Collection[str], *names: str) -> bool:
    """Whether one of the names is `wanted`: as a pattern only where it is no name that is known itself."""
    return wanted in names or (wanted not in known and any(fnmatch.fnmatchcase(name, wanted) for name in names))


def _has_activation(layer: Any) -> bool:
    return isinstance(layer, _FUSED) and layer.activation not in (None, keras.activations.linear)
