"""Which dropout layers are on while sampling, and how their calls are redirected while a function is traced."""

import contextlib
import fnmatch
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.common.checks import check_rate, unknown
from dropzoo.common.keras_internals import shadowed_calls
from dropzoo.layers.draws import Draw

# Layers are redirected while a function is traced, which two threads must not do at once.
TRACING = threading.RLock()


@dataclass(frozen=True)
class Active:
    """A layer that drops while sampling, and how."""

    layer: keras.Layer
    stream: str
    sample: Callable[[tf.Tensor, Draw], tf.Tensor]


def choose(model: keras.Model, sites: dict[str, float | bool] | None) -> list[Active]:
    """The dropout layers that are on. A site is the name of its layer without `_dropout`."""
    found = [layer for layer in model._flatten_layers(include_self=False) if layers.is_stochastic(layer)]
    if not found:
        raise ValueError(
            "The model has no dropout layer to sample. Build it with one: "
            "models.build_model(..., dropout={'head': 0.5})"
        )
    if left := _left_out(model, found):
        warnings.warn(f"Not sampled: {'; '.join(left)}", stacklevel=3)
    if sites is not None and not sites:
        raise ValueError("`sites` must name at least one site, or be None for all of them. Received: sites={}")
    names = [layer.name.removesuffix("_dropout") for layer in found]
    chosen: dict[int, float | bool] = {}
    for pattern, value in ({"*": True} if sites is None else sites).items():
        rate = value if value is True else check_rate(value, f"sites[{pattern!r}]")
        both = [(name, layer.name) for name, layer in zip(names, found, strict=True)]
        matching = [i for i, pair in enumerate(both) if any(fnmatch.fnmatchcase(n, pattern) for n in pair)]
        if not matching:
            raise unknown("site", pattern, set(names))
        chosen |= dict.fromkeys(matching, rate)
    for i, rate in chosen.items():
        if rate is not True and isinstance(found[i], layers.Stochastic) and not layers.has_live_rate(found[i]):
            raise ValueError(
                f"{names[i]!r} is a {type(found[i]).__name__}, which has no rate to set: give it True. "
                f"Received: sites={sites!r}"
            )
    # Two nested models may each have a layer of one name: a stream for each, or they would draw the same masks.
    streams = [name if (n := names[:i].count(name)) == 0 else f"{name}#{n}" for i, name in enumerate(names)]
    return [_activate(streams[i], found[i], rate) for i, rate in chosen.items()]


def _left_out(model: keras.Model, found: list[keras.Layer]) -> list[str]:
    """What drops, or does more than that, and is not a dropout layer's own formula."""
    cells = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
        and any(getattr(layer, name, 0.0) for name in ("dropout", "recurrent_dropout"))
    ]
    calls = [
        layer.name
        for layer in found
        if "call" in vars(type(layer)) and not type(layer).__module__.startswith(("keras.", "dropzoo."))
    ]
    left = [f"the dropout inside the cells of {name}" for name in cells]
    return left + [f"what the `call` of {name} does beside dropping" for name in calls]


def _activate(stream: str, layer: keras.Layer, rate: float | bool) -> Active:
    ours = layers.counterpart(layer)
    if rate is True and ours is layer:
        return Active(layer, stream, ours.sample)
    fixed = layer.rate if rate is True else rate
    return Active(layer, stream, lambda inputs, draw: ours.drop(inputs, tf.constant(fixed, tf.float32), draw))


@contextlib.contextmanager
def redirected(active: list[Active], source: Callable[[str], Any]) -> Iterator[None]:
    """While the block runs, calls of the active layers drop, whatever `training` says.

    Nothing of the model is cloned or called anew, so its graph, and the layers' inbound nodes, stay as they are.
    """
    with TRACING, shadowed_calls([(each.layer, _stand_in(each, source(each.stream))) for each in active]):
        yield


def _stand_in(active: Active, draw: Draw) -> Callable[..., Any]:
    original, tracer = active.layer.call, threading.get_ident()

    def call(inputs: Any, training: bool = False) -> Any:
        if threading.get_ident() != tracer:  # somebody else's call, while this thread traces
            return original(inputs, training=training)
        return active.sample(inputs, draw)

    return call
