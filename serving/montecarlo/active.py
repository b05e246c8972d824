"""Chooses the layers that drop while sampling, and redirects their calls while a function is traced."""

import contextlib
import fnmatch
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo import layers, models
from dropzoo.common.checks import check_rate
from dropzoo.common.keras_internals import shadowed_calls
from dropzoo.layers.draws import Draw
from dropzoo.models.graph.random import has_known_call, random_layers
from dropzoo.serving.montecarlo.probe import Code, held_back

# Held while a function is traced with redirected layers, because two threads must not do this at the same time.
TRACING = threading.RLock()

Sites = Mapping[str, float | bool] | None
"""The argument `sites`: which sites drop, and at which rates."""


class NothingDraws(ValueError):
    """Raised if a model draws no random numbers, so that there is nothing to sample."""


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


def redirectable(model: keras.Model) -> list[keras.Layer]:
    """Returns the dropout layers whose masks a sampler can draw, in the order of the model.

    A user's own subclass that overrides `call` is left out: only its code knows what it does. So is the dropout of
    rate 0 that Keras puts into each of its attention layers.
    """
    known = {id(each.layer) for each in random_layers(model)}
    found = [layer for layer in layers.dropouts(model) if id(layer) in known]
    return [layer for layer in found if has_known_call(layer)]


def choose(
    model: keras.Model, found: Sequence[keras.Layer], codes: Sequence[Code], sites: Sites
) -> tuple[list[Active], list[Code], set[int]]:
    """Returns the dropout layers that drop while sampling, and the steps of the model that draw by themselves.

    The third value has the ids of the layers in such steps that `sites` does not name, and that stay off.

    Args:
        model: A built model.
        found: The dropout layers that can be redirected.
        codes: The steps of the model whose code is not known, and what they draw.
        sites: Dict from names or patterns of sites to True, for the layer's own rate, or to another rate in
            [0, 1). None for all dropout at its own rates, empty for none.

    Raises:
        ValueError: If nothing in the model drops, a pattern matches nothing, or a rate is bad or
            cannot be set.
    """
    if sites is not None and not sites:
        return [], [], set()
    drawing = [code for code in codes if code.draws]
    if not found and not drawing:
        raise NothingDraws(
            "The model has no dropout layer to sample. Build it with dropout: models.build_model(..., "
            "dropout={'head': 0.5}); or add dropout: models.retrofit(model, {'name': 0.5})"
        )
    streams = _streams(found)
    if sites is None:
        return [_activate(streams[layer], layer, True) for layer in found], drawing, set()
    chosen, codes_on, off = _rates(model, set(found), drawing, sites)
    return [_activate(streams[layer], layer, rate) for layer, rate in chosen.items()], codes_on, off


def _rates(
    model: keras.Model, found: Collection[keras.Layer], drawing: Sequence[Code], sites: Mapping[str, float | bool]
) -> tuple[dict[keras.Layer, float | bool], list[Code], set[int]]:
    """The layers and steps that `sites` names, with rates, and the ids of the layers in steps that stay off.

    If several patterns match, the last one counts.
    """
    rates: dict[keras.Layer, float | bool] = {}
    on: dict[Code, bool] = {}
    held: dict[int, bool] = {key: False for code in drawing for key in code.held}
    for pattern, value in sites.items():
        own = value is True or isinstance(value, tf.Variable)  # a search sets variables itself
        rate = value if own else check_rate(value, f"sites[{pattern!r}]")
        matched, codes = _matched(model, drawing, pattern)
        known = [layer for layer in matched if layer in found]
        if not known and not codes:
            raise ValueError(
                f"{pattern!r} does not draw random numbers, so it cannot be in `sites`. Received: "
                f"sites={dict(sites)!r}"
            )
        for code in codes:
            if rate is not True and rate != 0:
                raise ValueError(
                    f"{code.names[0]!r} is sampled by plain passes in training mode ({code.why}), so its rate "
                    f"cannot be set: pass True, or 0.0 to turn it off. Received: sites={dict(sites)!r}"
                )
            on[code] = rate is True
        held |= {id(layer): rate is True for layer in matched if id(layer) in held}
        rates |= dict.fromkeys(known, rate)
    for layer, rate in rates.items():
        if rate is not True and isinstance(layer, layers.Stochastic) and not layers.has_live_rate(layer):
            raise ValueError(
                f"{_site(layer)!r} is a {type(layer).__name__}, whose rate cannot be set: pass True instead of "
                f"a rate. "
                f"Received: sites={sites!r}"
            )
    codes_on = [code for code, is_on in on.items() if is_on or any(held[key] for key in code.held)]
    return rates, codes_on, {key for key, is_on in held.items() if not is_on}


def _matched(model: keras.Model, drawing: Sequence[Code], pattern: str) -> tuple[list[keras.Layer], list[Code]]:
    """The layers and steps that a pattern names. A step whose layers are not known has only a name of its own."""
    nameless = [code for code in drawing if not code.held and fnmatch.fnmatchcase(code.names[0], pattern)]
    try:
        layers_found = models.match_sites(model, [pattern])[pattern]
    except ValueError:
        if not nameless:
            raise
        layers_found = []
    ids = {id(layer) for layer in layers_found}
    return layers_found, [code for code in drawing if code in nameless or not ids.isdisjoint(code.held)]


def _site(layer: keras.Layer) -> str:
    return layer.name.removesuffix("_dropout")


def _streams(found: Sequence[keras.Layer]) -> dict[keras.Layer, str]:
    """The stream of each layer. Layers with the same name, in two nested models, get different streams."""
    streams: dict[keras.Layer, str] = {}
    seen: Counter[str] = Counter()
    for layer in found:
        name = _site(layer)
        streams[layer] = f"{name}#{seen[name]}" if seen[name] else name
        seen[name] += 1
    return streams


def warn_of(codes: Sequence[Code], on: Sequence[Code], not_fixed: Sequence[str]) -> None:
    """Warns of draws that are lost, that no seed repeats, that nothing turns off, or that are not fixed."""
    if gone := [code.step.operation.name for code in codes if code.lost]:
        warnings.warn(
            f"The dropout in {', '.join(gone)} is not sampled, because the number or the shapes of its outputs "
            "differ between training and inference mode. Return outputs of the same shapes in both modes",
            stacklevel=5,
        )
    drawing = [code for code in codes if code.draws]
    if loose := [name for code in drawing if code in on and not code.repeatable for name in code.names]:
        warnings.warn(
            f"The random numbers of {', '.join(loose)} cannot be seeded, so two identical calls give different "
            "answers. Draw outside of loops, with keras.random and a keras.random.SeedGenerator; or use a dropout "
            "layer",
            stacklevel=5,
        )
    if stuck := [name for code in drawing if code not in on and code.always for name in code.names]:
        warnings.warn(
            "These layers are not in `sites`, but they also draw random numbers in inference, which cannot be "
            f"turned off: {', '.join(stuck)}",
            stacklevel=5,
        )
    if not_fixed:
        warnings.warn(
            f"sampling='fixed' cannot fix the dropout masks of {', '.join(not_fixed)}, because they are drawn in "
            "plain passes in training mode: the masks differ from image to image",
            stacklevel=5,
        )


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
def redirected(
    active: Sequence[Active], source: Callable[[str], Draw], frozen: Sequence[keras.Layer] = ()
) -> Iterator[None]:
    """Makes calls of the active layers drop while the block runs, whatever the value of `training`.

    The model is neither cloned nor called again, so its graph and the inbound nodes of its layers do not change.

    Args:
        active: The layers that drop.
        source: Function from the name of a stream to its random draws.
        frozen: Layers that run in inference mode for any value of `training`.
    """
    pairs = [(each.layer, _stand_in(each.layer, _drop(each, source(each.stream)))) for each in active]
    pairs += [(layer, _stand_in(layer, held_back(layer))) for layer in frozen]
    with TRACING, shadowed_calls(pairs):
        yield


def _drop(active: Active, draw: Draw) -> Callable[..., tf.Tensor]:
    return lambda inputs, *args, **kwargs: active.sample(inputs, draw)


def _stand_in(layer: keras.Layer, instead: Callable[..., Any]) -> Callable[..., Any]:
    """The function that replaces `call` of a layer while this thread traces."""
    original, tracer = layer.call, threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != tracer:  # another thread uses the model while this one traces
            return original(*args, **kwargs)
        return instead(*args, **kwargs)

    return call
