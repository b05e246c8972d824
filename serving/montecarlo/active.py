"""Which dropout layers drop while sampling, and how their calls are redirected while a function is traced."""

import contextlib
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from dropzoo import layers, models
from dropzoo.common.checks import check_rate
from dropzoo.common.keras_internals import flatten_layers, shadowed_calls
from dropzoo.layers.draws import Draw

# Layers are redirected while a function is traced, which two threads must not do at once.
TRACING = threading.RLock()


@dataclass(frozen=True)
class Active:
    """A layer that drops while sampling.

    Attributes:
        layer: The model's layer.
        stream: Name of the layer's random stream; with the seed and the sample it fixes the mask.
        sample: The layer's output in one sample, from its inputs and a source of random draws.
    """

    layer: keras.Layer
    stream: str
    sample: Callable[[tf.Tensor, Draw], tf.Tensor]


def choose(model: keras.Model, sites: Mapping[str, float | bool] | None) -> list[Active]:
    """Returns the dropout layers that drop while sampling.

    Args:
        model: The model.
        sites: From names or patterns of sites to True, for the layer's own rate, or to another rate; None for all
            dropout layers at their own rates.

    Raises:
        ValueError: If the model has no dropout layer, a pattern matches none, or a rate cannot be set.
    """
    found = layers.dropouts(model)
    if not found:
        raise ValueError(
            "The model has no dropout layer to sample. Build it with one: "
            "models.build_model(..., dropout={'head': 0.5})"
        )
    if left := _left_out(model, found):
        warnings.warn(f"Not sampled: {'; '.join(left)}", stacklevel=3)
    if sites is not None and not sites:
        raise ValueError("`sites` must name at least one site, or be None for all of them. Received: sites={}")
    chosen = dict.fromkeys(found, True) if sites is None else _rates(model, sites)
    streams = _streams(found)
    return [_activate(streams[layer], layer, rate) for layer, rate in chosen.items()]


def _rates(model: keras.Model, sites: Mapping[str, float | bool]) -> dict[keras.Layer, float | bool]:
    """The layers that `sites` names, with their rates. If several patterns match a layer, the last one counts."""
    rates: dict[keras.Layer, float | bool] = {}
    for pattern, found in models.match_sites(model, sites).items():
        rate = sites[pattern] if sites[pattern] is True else check_rate(sites[pattern], f"sites[{pattern!r}]")
        rates |= dict.fromkeys(found, rate)
    for layer, rate in rates.items():
        if rate is not True and isinstance(layer, layers.Stochastic) and not layers.has_live_rate(layer):
            raise ValueError(
                f"{_site(layer)!r} is a {type(layer).__name__}, which has no rate to set: give it True. "
                f"Received: sites={sites!r}"
            )
    return rates


def _site(layer: keras.Layer) -> str:
    return layer.name.removesuffix("_dropout")


def _streams(found: list[keras.Layer]) -> dict[keras.Layer, str]:
    """A stream for each layer; layers of one name, in two nested models, get two, so that their masks differ."""
    streams: dict[keras.Layer, str] = {}
    seen: Counter[str] = Counter()
    for layer in found:
        name = _site(layer)
        streams[layer] = f"{name}#{seen[name]}" if seen[name] else name
        seen[name] += 1
    return streams


def _left_out(model: keras.Model, found: list[keras.Layer]) -> list[str]:
    """Dropout, and other effects of dropout layers, that sampling cannot turn on."""
    cells = [
        layer.name
        for layer in flatten_layers(model)
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
def redirected(active: list[Active], source: Callable[[str], Draw]) -> Iterator[None]:
    """Makes calls of the active layers drop while the block runs, whatever `training` says.

    Nothing of the model is cloned or called anew, so its graph, and the layers' inbound nodes, stay as they are.
    """
    with TRACING, shadowed_calls([(each.layer, _stand_in(each, source(each.stream))) for each in active]):
        yield


def _stand_in(active: Active, draw: Draw) -> Callable[..., tf.Tensor]:
    original, tracer = active.layer.call, threading.get_ident()

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if threading.get_ident() != tracer:  # another thread uses the model while this one traces
            return original(inputs, training=training)
        return active.sample(inputs, draw)

    return call
