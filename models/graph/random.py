"""The layers of a model that draw random numbers: dropout layers, layers with dropout inside, suspected layers."""

import dis
import itertools
import numbers
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
from keras import ops

from dropzoo import layers
from dropzoo.common.checks import snake_case
from dropzoo.common.keras_internals import flatten_layers, seed_generators_of, sublayers_of, takes_training
from dropzoo.models.graph.walk import graph_of, model_in

Kind = Literal["dropout", "inside", "suspected"]

_INSIDE = tuple(  # the layers of Keras that have dropout of their own, without a layer for it
    getattr(keras.layers, name)
    for name in "LSTM GRU SimpleRNN ConvLSTM1D ConvLSTM2D ConvLSTM3D LSTMCell GRUCell SimpleRNNCell "
    "Attention AdditiveAttention".split()
)
INSIDE_RATES = ("dropout", "recurrent_dropout")
"""The arguments of Keras' recurrent and attention layers that are rates."""

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
# The base of all of Keras' image layers has no public name.
_AUGMENTATION = keras.layers.RandomFlip.__bases__[0]
_DROPS = (
    "rate drop drop_rate dropout dropout_rate drop_prob drop_probability drop_path drop_path_rate drop_path_prob "
    "drop_connect_rate p prob probability stochastic_depth stochastic_depth_rate"
)
_KEEPS = "keep_prob keep_rate keep_probability survival_prob survival_rate survival_probability"
_RATES = {  # attributes that are rates, and whether each is the rate of the kept units
    f"{prefix}{name}": keeps
    for names, keeps in ((_DROPS, False), (_KEEPS, True))
    for name in names.split()
    for prefix in ("", "_")
}
_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_METHOD", "LOAD_DEREF")  # bytecode that reads a name


@dataclass(frozen=True, eq=False)
class RandomLayer:
    """A layer that draws random numbers while a model trains.

    Attributes:
        path: The name that all parts of this package print and take: `"inner/site_dropout"` in a nested model,
            `"block/drop"` for `drop` in the code of `block`. The dropout of a layer of Keras is called
            `"memory/dropout"`, whatever the names of its cells.
        layer: The layer.
        kind: `"dropout"`: a layer of ours or a dropout layer of Keras, which a sampler can redirect. `"inside"`: a
            layer of Keras with dropout of its own, such as `LSTM`. `"suspected"`: another layer that holds a seed
            generator, whose code names a random function, or that has a rate and an argument `training`, such as a
            custom drop path.
        rate: The fraction that the layer drops, the greatest if it has several rates. None if it shows none.
        paths: All paths, `path` first: a layer that is in several models has several.
        holder: The path of the layer whose code calls this one; None if a graph of a model calls it.
    """

    path: str
    layer: keras.Layer
    kind: Kind
    rate: float | None
    paths: tuple[str, ...]
    holder: str | None = None


def random_layers(model: keras.Layer) -> list[RandomLayer]:
    """Returns the layers that draw random numbers while a model trains, each once, in the order of the model.

    The search enters nested models, wrappers, cells and the code of other layers. It leaves out suspected layers
    whose rate is 0, and random augmentation of images, which is not dropout (see `augmentations`). It does not
    find a random function that the code of a layer calls through another function.

    Args:
        model: Any Keras model or layer, built or not.
    """
    found: dict[int, RandomLayer] = {}
    for each in _search(model, "", None, ()):
        first = found.setdefault(id(each.layer), each)
        if each.path not in first.paths:
            found[id(each.layer)] = replace(first, paths=(*first.paths, each.path))
    return list(found.values())


def has_known_call(layer: keras.Layer) -> bool:
    """Returns whether the `call` of a dropout layer is that of Keras or of this package, and not a user's own."""
    owner = next(cls for cls in type(layer).__mro__ if "call" in vars(cls))
    return owner.__module__.startswith(("keras.", "dropzoo."))


def augmentations(model: keras.Layer) -> list[keras.Layer]:
    """Returns the layers of a model that augment images at random in training, such as `RandomFlip`.

    They are not dropout: a sampler must leave them off.

    Args:
        model: Any Keras model or layer.
    """
    return [x for x in flatten_layers(model) if isinstance(x, _AUGMENTATION) and _holds_generator(x)]


def describe_random(each: RandomLayer) -> str:
    """Returns a layer and its rate in words, such as `"dropout:0.3"` or `"lstm, dropout inside: 0.3"`."""
    if each.kind == "dropout":
        return layers.describe(each.layer)
    name = snake_case(type(each.layer).__name__)
    if each.kind == "inside":
        return f"{name}, dropout inside: {each.rate:.4g}"
    return name if each.rate is None else f"{name}:{each.rate:.4g}"


def rate_of(layer: keras.Layer) -> float | None:
    """Returns the fraction that a layer drops, read off its attributes; None if it shows none.

    If a layer has several rates, such as `dropout` and `recurrent_dropout`, the result is the greatest.
    """
    known: dict[str, Any] = {}
    for owner in (*reversed(type(layer).__mro__), layer):  # no getattr, which may run code
        known |= {name: vars(owner)[name] for name in _RATES.keys() & vars(owner).keys()}
    rates = {name: _number(value) for name, value in known.items()}
    drops = [
        1 - rate if _RATES[name] else rate for name, rate in rates.items() if rate is not None and 0 <= rate <= 1
    ]
    return max(drops, default=None)


def _search(layer: keras.Layer, path: str, holder: str | None, owners: tuple[int, ...]) -> Iterator[RandomLayer]:
    """Yields the random layers in a layer, itself included; `owners` has the ids of the layers around it."""
    kind, rate = _judge(layer)
    name = path or layer.name
    if kind == "inside":
        inside = f"{name}/dropout"
        yield RandomLayer(inside, layer, kind, rate, (inside,), holder or name)
    elif kind is not None:
        yield RandomLayer(name, layer, kind, rate, (name,), holder)
    if kind in ("dropout", "inside"):  # the cell of an LSTM is the LSTM's own
        return
    explained = kind is not None
    within = holder or (None if model_in(layer) is not None or not path else path)
    for child in sublayers_of(layer):
        if id(child) in owners or child is layer:
            continue
        below = _path_of(child, layer, path)
        for each in _search(child, below, within, (*owners, id(layer))):
            if isinstance(layer, _ATTENTION) and not each.rate:  # Keras makes the dropout layer in any case
                continue
            explained = True
            yield each
    if not explained and _has_rate_and_asks(layer):
        yield RandomLayer(name, layer, "suspected", rate_of(layer), (name,), holder)


def _judge(layer: keras.Layer) -> tuple[Kind | None, float | None]:
    """Returns the kind of a layer, by its class, its seed generator or its code, and its rate."""
    if layers.is_stochastic(layer):
        return "dropout", getattr(layer, "rate", None)
    if isinstance(layer, _INSIDE):
        rate = max(getattr(layer, name, 0.0) for name in INSIDE_RATES)
        return ("inside" if rate else None), rate
    if isinstance(layer, _AUGMENTATION) or not (_holds_generator(layer) or _calls_random_functions(layer)):
        return None, None
    known = rate_of(layer)
    return (None if known == 0 else "suspected"), known


def _calls_random_functions(layer: keras.Layer) -> bool:
    """Returns whether the code of a `Lambda` or of a custom layer names `nn.dropout` or a module `random`."""
    if isinstance(layer, keras.layers.Lambda):
        function = layer.function
    elif type(layer).__module__.startswith(("keras.", "dropzoo.")) or graph_of(layer) is not None:
        return False
    else:
        function = type(layer).call
    code = getattr(function, "__code__", None)
    read = [step.argval for step in dis.get_instructions(code) if step.opname in _READS] if code else []
    return "random" in read or ("nn", "dropout") in itertools.pairwise(read)  # not nn.softmax(self.dropout(x))


def _has_rate_and_asks(layer: keras.Layer) -> bool:
    """Returns whether a layer has its own code, a rate above 0 and an argument `training`."""
    if graph_of(layer) is not None or isinstance(layer, (keras.Sequential, _AUGMENTATION, *_INSIDE)):
        return False
    return bool(rate_of(layer)) and takes_training(layer)


def _path_of(child: keras.Layer, owner: keras.Layer, path: str) -> str:
    """Returns the path of a layer inside another one, whose path is given.

    The model in a `TimeDistributed` has the path of that layer. The dropout of an attention layer is called
    `dropout`, like its argument.
    """
    if path and model_in(owner) is child:
        return path
    name = "dropout" if isinstance(owner, _ATTENTION) and layers.is_dropout(child) else child.name
    return f"{path}/{name}".removeprefix("/")


def _holds_generator(layer: keras.Layer) -> bool:
    """Returns whether a layer holds a seed generator of Keras or a `Generator` of TensorFlow."""
    return bool(seed_generators_of(layer)) or any(
        type(value).__name__ == "Generator" and type(value).__module__.startswith("tensorflow.")
        for value in vars(layer).values()
    )


def _number(value: Any) -> float | None:
    """Returns a number, or the value of a variable that is a scalar, as a float; None for everything else."""
    if isinstance(value, keras.Variable) and value.shape == ():
        value = ops.convert_to_numpy(value).item()
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return float(value) if is_number else None
