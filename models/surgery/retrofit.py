"""Dropout on any Keras model: `retrofit` puts it in, changes or removes it; `strip_dropout` removes all."""

import contextlib
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.common.seeds import random_untouched
from dropzoo.models.graph.edges import Edge
from dropzoo.models.graph.random import describe_random, random_layers
from dropzoo.models.graph.record import recorded, remember
from dropzoo.models.graph.walk import Call, check_graph, walk
from dropzoo.models.names import named_layers
from dropzoo.models.sites import site_layer
from dropzoo.models.surgery.check import (
    OtherOutputs,
    acting_in_inference,
    check_copy,
    draws_in_inference,
    gives_its_input,
    is_custom,
)
from dropzoo.models.surgery.keys import Key, resolve
from dropzoo.models.surgery.rebuild import Changes, Detour, Put, Rebuild
from dropzoo.models.surgery.state import compile_like, copy_state


def retrofit(model: keras.Model, plan: dict[Key, Any] | str, share_weights: bool = False) -> keras.Model:
    """Returns a copy of a Keras model, with dropout at the sites of a plan.

    A site is a tensor; every layer that reads it gets the dropped version. The copy has the weights, the compile
    settings and the optimizer state of the original, and gives exactly the same outputs in inference. (A layer
    that changes its inputs in inference, such as `ShakeDrop`, needs `share_weights=True`; the outputs then
    differ.) The original is not changed. Dropout that the model already has stays, unless the plan has a key for
    its site: then the plan replaces it, or removes it if the spec is None.

    Args:
        model: A Functional or Sequential model, built. It may have models inside it to any depth, shared layers,
            and several inputs and outputs. If a layer is called several times, each call is a separate site. A
            nested model that is called several times has the same dropout in all calls.
        plan: The name of a plan of `list_plans()` except `"paper"`, or a dict that maps keys to specs. A spec is
            anything that `layers.get` takes, None, or `ramp(...)`. If several keys match a site, the last one
            wins. A key is one of these:

            - `"name"` or `"pattern*"`: sites by their name, see `list_sites`. The name of the dropout layer at a
              site also works, and so does the name of a nested model whose output is the site. A name is matched
              literally first, and only then as a pattern. A name that is in several models needs its path,
              `"encoder/conv1"`.
            - `"after:Conv2D"` or `"before:Flatten"`: the outputs or inputs of all layers of exactly this class. A
              name or pattern may replace the class, as in `"after:conv4_*"`.
            - `"before_activation:conv4_*"`: between a layer (by name, pattern or class) and its activation, which
              may be fused or a layer of its own. A layer with a fused activation is split: it becomes
              `<name>_conv` or `<name>_dense`, and its activation gets the name `<name>`.
            - `"enc->join"`: the output of `enc`, but only as an input of `join`, such as a skip connection. Other
              layers that read `enc` are not affected. Both names may be patterns, as in `"enc*->join*"`.
            - `"inside:encoder"`: all sites in a nested model; `"inside:encoder after:Conv2D"`: only those that the
              second key matches.
            - A function that takes a `Site` and returns a bool: the sites for which it returns True.
        share_weights: Bool. If True, the copy uses the layers of the original, so that training one model trains
            both.

    Returns:
        A model of the same kind. The dropout at a site is called `<site>_dropout`. Weights files of the original
        load into the copy and vice versa; if they cannot, a warning says why.

    Raises:
        ValueError: For a model without a graph; for a key that matches nothing, or a name that occurs in several
            models; for a layer that cannot be used at a site, or that changes its inputs in inference; for a plan
            whose sites the model does not have; and for a layer that cannot be copied.

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
    changed: list[tuple[str, keras.Layer]] = []
    for place, spec in resolve(model, plan).items():
        layer = None if spec is None else site_layer(spec)
        if layer is not None:
            changed.append((place.name, layer))
        if isinstance(place, Call):
            if layer is not None:
                changes.split.add(id(place.layer))
                changes.between[place.key] = layer
            continue
        if isinstance(place, Edge):
            changes.detours.setdefault(place.reader.key, {})[id(place.read)] = _detour(place, layer)
            continue
        changes.removed |= {call.key for call in place.standing}
        changed += [(call.name, call.layer) for call in place.standing]
        if layer is not None:  # where dropout stood already, it goes there, even into another model
            stood = place.standing[-1] if place.standing else place.call
            changes.after[stood.key] = Put(layer, place.name, place.dropout_name)
    if changes.split and share_weights:
        raise ValueError(
            "`before_activation` splits a layer with a fused activation into two new ones, which cannot share the "
            "weights of the original. Pass share_weights=False, or use `after:`."
        )
    with _told_of(changed):
        return _rebuilt(model, changes, share_weights)[0]


def strip_dropout(model: keras.Model, share_weights: bool = False) -> keras.Model:
    """Returns a copy of a Keras model without its dropout layers.

    The copy has the weights, the outputs in inference, the compile settings and the optimizer state of the
    original, which is not changed. (If a dropout layer changes its inputs in inference, as `ShakeDrop` does, pass
    `share_weights=True`; the outputs then differ.) If the output of a dropout layer is an output of the model, the
    layer becomes an `Identity` of the same name, so that losses that refer to it by name still work. A custom
    layer is removed too if its class name contains "drop" or "StochasticDepth", it has no weights, and it returns
    its input in inference. The dropout of Keras' recurrent and attention layers is set to 0, unless
    `share_weights=True`. A warning names the layers that still draw random numbers in the copy.

    Args:
        model: A Functional or Sequential model, built, as for `retrofit`.
        share_weights: Bool. If True, the copy uses the layers of the original, so that training one model trains
            both. Must be True if the model has a layer whose config is not complete.

    Returns:
        A model of the same kind.

    Raises:
        ValueError: For a model without a graph, for a dropout layer that changes its inputs in inference, and for
            a layer that cannot be copied.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=1, filters=4, dropout={"*": 0.1})
    >>> [site.spec for site in models.list_sites(models.strip_dropout(model)) if site.spec]
    []
    """
    check_graph(model)
    own = {id(each.layer) for each in random_layers(model) if each.kind == "suspected"}
    calls = [
        call
        for call in walk(model)
        if layers.is_dropout(call.layer) or (id(call.layer) in own and gives_its_input(call))
    ]
    changes = Changes(removed={call.key for call in calls}, quiet=not share_weights)
    with _told_of([(call.name, call.layer) for call in calls]):
        new, is_equal = _rebuilt(model, changes, share_weights)
    _tell_what_stays(model, new, certain=is_equal)
    return new


@contextlib.contextmanager
def _told_of(changed: Sequence[tuple[str, keras.Layer]]) -> Iterator[None]:
    """Names the dropout in the error if adding or removing it makes the outputs of the copy differ."""
    try:
        yield
    except OtherOutputs:
        if (found := acting_in_inference(changed)) is None:
            raise
        raise ValueError(
            f"The dropout at {found[0]!r}, {found[1]}, changes its inputs in inference too, so the copy does not "
            "give the same outputs as the original. Use a layer that only acts in training. If other outputs are "
            "what you want, pass share_weights=True"
        ) from None


def _tell_what_stays(model: keras.Model, new: keras.Model, certain: bool) -> None:
    """Warns if a model without dropout layers still draws random numbers, or has layers whose rate was set to 0.

    The layers are run twice if they hold code that may draw in inference, or the copy could not be compared.
    """
    named = [each for each in named_layers(new) if each.random.rate != 0]
    left = [f"{each.site!r} ({describe_random(each.random)})" for each in named]
    every = flatten_layers(new, include_self=False)
    hides = any(isinstance(layer, keras.layers.Lambda) or is_custom(layer) for layer in every)
    if not named and (hides or not certain):
        left = [f"{layer.name!r} (draws in inference too)" for layer in draws_in_inference(new, every)]
    if left:
        warnings.warn(
            "These layers of the copy still draw random numbers in their own code: "
            f"{', '.join(left)}. If such a layer has a `rate`, set it to 0 (see models.match_sites); "
            "otherwise build the model without this dropout.",
            stacklevel=3,
        )
    stays = {each.site for each in named}
    inside = [each.site for each in named_layers(model) if each.random.holder is not None]
    if quiet := [site for site in inside if site not in stays]:
        warnings.warn(
            f"These layers stay in the copy, with a dropout rate of 0: {', '.join(quiet)}. On a GPU, their "
            f"outputs may differ from those of the original by rounding.",
            stacklevel=3,
        )


def _detour(edge: Edge, layer: keras.Layer | None) -> Detour:
    """Returns the detour for the reader of an edge: around the dropout there, and through the new layer."""
    if edge.via is not None and edge.via.call.path != edge.reader.path:
        raise ValueError(
            f"The edge {edge.name!r} goes through the dropout {edge.via.name!r} of another nested model. "
            "Other layers read this dropout too, so it cannot be changed for the edge alone. To change it for all "
            f"of them, use the key {edge.via.name!r}."
        )
    put = None if layer is None else Put(layer, edge.name, edge.dropout_name)
    return Detour(edge.tensor, edge.place.call, put)


def _rebuilt(model: keras.Model, changes: Changes, share_weights: bool) -> tuple[keras.Model, bool]:
    """Returns the changed copy of a model with its state, and whether both are known to give the same outputs."""
    rebuild = Rebuild(changes, random.randint(1, 2**31 - 1), share_weights)
    with random_untouched(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")  # it is about files
        new = rebuild.model(model)
        compile_like(model, new, copy_state(rebuild.pairs))
        if (pixels := recorded(model)) is not None:
            remember(new, pixels)
        if share_weights:
            return new, False
        # On a GPU, a recurrent layer without dropout runs in cuDNN, which rounds differently.
        return new, check_copy(model, new, rebuild.pairs, rounding=1e-3 if changes.quiet else 0.0)
