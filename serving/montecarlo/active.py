"""Chooses the dropout layers that drop while sampling, and redirects their calls while a function is traced."""

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

# Held while a function is traced with redirected layers, because two threads must not do this at the same time.
TRACING = threading.RLock()


@dataclass(frozen=True)
class Active:
    """A layer that drops while sampling.

    Attributes:
        layer: The model's layer.
        stream: Name of the layer's random stream, which makes its masks differ from those of other layers.
        sample: Function from the layer's inputs and a source of random draws to its output in one sample.
    """

    layer: keras.Layer
    stream: str
    sample: Callable[[tf.Tensor, Draw], tf.Tensor]


def choose(model: keras.Model, sites: Mapping[str, float | bool] | None) -> list[Active]:
    """Returns the dropout layers that drop while sampling.

    It warns if the model has dropout that sampling cannot turn on.

    Args:
        model: A built Functional or Sequential model.
        sites: Dict from names or patterns of sites to True, for the layer's own rate, or to another rate in
            [0, 1). None for all dropout layers at their own rates.

    Raises:
        ValueError: If the model has no dropout layer, `sites` is empty, a pattern matches no layer, or a rate is
            bad or cannot be set.
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
        rate = sites[pattern]
        if rate is not True and not isinstance(rate, tf.Variable):  # a search sets the rate of a variable itself
            rate = check_rate(rate, f"sites[{pattern!r}]")
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
    """The stream of each layer. Layers with the same name, in two nested models, get different streams."""
    streams: dict[keras.Layer, str] = {}
    seen: Counter[str] = Counter()
    for layer in found:
        name = _site(layer)
        streams[layer] = f"{name}#{seen[name]}" if seen[name] else name
        seen[name] += 1
    return streams


def _left_out(model: keras.Model, found: list[keras.Layer]) -> list[str]:
    """The parts of the model that sampling cannot turn on: dropout, and other effects of dropout layers."""
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
    """A layer that drops at its live rate if `rate` is True and the layer is ours, or else at a fixed rate."""
    ours = layers.counterpart(layer)
    if rate is True and ours is layer:
        return Active(layer, stream, ours.sample)
    fixed = layer.rate if rate is True else rate
    return Active(
        layer, stream, lambda inputs, draw: ours.drop(inputs, tf.convert_to_tensor(fixed, tf.float32), draw)
    )


@contextlib.contextmanager
def redirected(active: list[Active], source: Callable[[str], Draw]) -> Iterator[None]:
    """Makes calls of the active layers drop while the block runs, whatever the value of `training`.

    The model is neither cloned nor called again, so its graph and the inbound nodes of its layers do not change.

    Args:
        active: The layers that drop.
        source: Function from the name of a stream to its random draws.
    """
    with TRACING, shadowed_calls([(each.layer, _stand_in(each, source(each.stream))) for each in active]):
        yield


def _stand_in(active: Active, draw: Draw) -> Callable[..., tf.Tensor]:
    """The function that replaces `call` of a layer while this thread traces."""
    original, tracer = active.layer.call, threading.get_ident()

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if threading.get_ident() != tracer:  # another thread uses the model while this one traces
            return original(inputs, training=training)
        return active.sample(inputs, draw)

    return call
