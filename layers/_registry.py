"""Layers by name: `register_layer`, `list_layers`, `get`."""

import fnmatch
import inspect
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import keras

from dropzoo.common.checks import is_same_definition, parse_spec, snake_case, unknown
from dropzoo.common.keras_internals import sublayers_of
from dropzoo.common.seeds import random_untouched
from dropzoo.layers._base import BaseDropout, Stochastic

_LAYERS: dict[str, type[keras.Layer]] = {}
_KERAS = (  # subclasses first: a spatial dropout of Keras is a Dropout of Keras
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
)


def register_layer(cls: type[keras.Layer]) -> type[keras.Layer]:
    """Class decorator that registers a layer with Keras, and here under its class name in snake case.

    Args:
        cls: Subclass of `keras.Layer`. `DropBlock2D` is registered as `"drop_block2d"`.

    Returns:
        The class itself.

    Raises:
        ValueError: If another layer of that name is registered already. A class that is defined again, as when a
            notebook's cell runs again, replaces its former definition.

    Example:
    >>> import keras
    >>> from dropzoo import layers, models
    >>> @layers.register_layer
    ... class UnitDropout(layers.BaseDropout):
    ...     def drop(self, inputs, rate, draw):
    ...         return draw.drop_units(inputs, keras.ops.shape(inputs), rate)
    >>> model = models.build_model("lenet5", dropout={"dense1": "unit_dropout:0.3"})
    >>> model.get_layer("dense1_dropout").rate
    0.3
    """
    name = snake_case(cls.__name__)
    if name in _LAYERS and not is_same_definition(_LAYERS[name], cls):
        raise ValueError(f"A layer named {name!r} is registered already: {_LAYERS[name]}. Choose another name")
    _LAYERS[name] = keras.saving.register_keras_serializable(package="dropzoo")(cls)
    return cls


def list_layers(pattern: str = "*", sites_only: bool = False) -> list[str]:
    """Returns the names of the registered layers.

    Args:
        pattern: Str. An fnmatch pattern for the names.
        sites_only: Bool. Whether to list only site layers: layers without weights that keep the shape of their
            inputs.

    Returns:
        A sorted list of str; it is empty if no name matches.

    Example:
    >>> from dropzoo import layers
    >>> layers.list_layers("spatial*")
    ['spatial_dropout1d', 'spatial_dropout2d', 'spatial_dropout3d']
    """
    names = fnmatch.filter(_LAYERS, pattern)
    return sorted(n for n in names if not sites_only or issubclass(_LAYERS[n], BaseDropout))


def get_class(name: str) -> type[keras.Layer]:
    """Returns the class of a registered layer, with its docstring and signature.

    Args:
        name: Str, one of `list_layers()`.

    Returns:
        A subclass of `keras.Layer`.

    Raises:
        ValueError: If no layer has that name; the message suggests the closest names.

    Example:
    >>> from dropzoo import layers
    >>> layers.get_class("max_dropout").__name__
    'MaxDropout'
    """
    if name not in _LAYERS:
        raise unknown("layer", name, _LAYERS)
    return _LAYERS[name]


def get(spec: Any) -> keras.Layer:
    """Returns a new dropout layer made from a spec.

    Args:
        spec: A float in [0, 1), which means `Dropout`; or text, `"name:rate"` or `"name:rate,option=value"`; or a
            dict with `"name"` and the arguments of the layer; or a layer, which is copied.

    Returns:
        A new `keras.Layer`, not built.

    Raises:
        ValueError: If the spec has none of these forms, the name is unknown, the rate is not in [0, 1), or the
            layer has no argument of a given name.

    Example:
    >>> from dropzoo import layers
    >>> layers.get("drop_block2d:0.1,block_size=5").block_size
    5
    """
    if isinstance(spec, keras.Layer):
        return type(spec).from_config(spec.get_config())
    if isinstance(spec, numbers.Real):
        return _make(spec, "dropout", (spec,), {})
    if isinstance(spec, str):
        return _make(spec, *parse_spec(spec, "name:rate,option=value"))
    if isinstance(spec, dict) and isinstance(spec.get("name"), str):
        return _make(spec, spec["name"], (), {key: value for key, value in spec.items() if key != "name"})
    raise ValueError(
        'A dropout spec must be a float, "name:rate,option=value", a dict with "name" (a str), or a layer. '
        f"Received: {spec!r}"
    )


def describe(layer: keras.Layer) -> str:
    """Returns the spec of a layer, such as `"dropout:0.3"`.

    For a site layer, `get` makes a layer with the same rate and options from this spec, but not with the same
    seed.

    Args:
        layer: A layer of this package, or a dropout layer of Keras.

    Returns:
        A str with the layer's name, its rate, and the options that differ from their defaults. For a layer that
        replaces another one, such as `DropConnectDense`, it has only the name and the rate.

    Example:
    >>> from dropzoo import layers
    >>> layers.describe(layers.DropBlock2D(0.1, block_size=5))
    'drop_block2d:0.1,block_size=5'
    """
    config = layer.get_config()
    if isinstance(layer, Stochastic) and not isinstance(layer, BaseDropout):
        rate = f":rate={config['rate']}" if "rate" in config else ""
        return f"{snake_case(type(layer).__name__)}{rate}"
    first = [str(config["rate"])] if "rate" in config else []
    try:
        with random_untouched():
            default = type(layer)(config["rate"]).get_config() if first else {}
    except TypeError:  # a user's own layer with another signature
        default = config
    general = {*keras.Layer().get_config(), "rate", "seed"}
    options = [f"{k}={v}" for k, v in config.items() if k not in general and v != default.get(k, v)]
    return f"{snake_case(type(layer).__name__)}:{','.join(first + options)}".rstrip(":")


def is_dropout(layer: keras.Layer) -> bool:
    """Returns whether a layer can be used at a site: a site layer of this package, or a dropout layer of Keras.

    Args:
        layer: Any Keras layer.

    Returns:
        A bool.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layers.is_dropout(keras.layers.Dropout(0.5)), layers.is_dropout(layers.DropConnectDense(2, rate=0.5))
    (True, False)
    """
    return isinstance(layer, (BaseDropout, *_KERAS))


def is_stochastic(layer: keras.Layer) -> bool:
    """Returns whether a layer is a random layer of this package, or a dropout layer of Keras.

    The result is False for all other layers, even for those that have dropout inside, such as `LSTM`.

    Args:
        layer: Any Keras layer.

    Returns:
        A bool.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layers.is_stochastic(layers.DropConnectDense(2, rate=0.5)), layers.is_stochastic(keras.layers.Dense(2))
    (True, False)
    """
    return isinstance(layer, (Stochastic, *_KERAS))


def dropouts(model: keras.Layer) -> list[keras.Layer]:
    """Returns the layers of a model for which `is_stochastic` is True, each once, in the order of the model.

    They include layers inside other layers and inside nested models.

    Args:
        model: Any Keras model or layer. The result does not include it.

    Returns:
        A list of `keras.Layer`.

    Example:
    >>> from dropzoo import layers, models
    >>> [layer.name for layer in layers.dropouts(models.build_model("lenet5", dropout={"head": 0.5}))]
    ['head_dropout']
    """
    return [layer for layer in _inside(model, {id(model)}) if is_stochastic(layer)]


def _inside(layer: keras.Layer, seen: set[int]) -> Iterator[keras.Layer]:
    """Yields the layers inside a layer, each before those inside it; `seen` has the ids of those to leave out."""
    for child in sublayers_of(layer):
        if id(child) not in seen:
            seen.add(id(child))
            yield child
            yield from _inside(child, seen)


def has_live_rate(layer: keras.Layer) -> bool:
    """Returns whether the rate of a layer can be changed after functions have been traced.

    The dropout layers of Keras have no live rate: a traced function keeps the rate that they had.

    Args:
        layer: Any Keras layer.

    Returns:
        A bool.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layers.has_live_rate(layers.Dropout(0.5)), layers.has_live_rate(keras.layers.Dropout(0.5))
    (True, False)
    """
    rate = getattr(type(layer), "rate", None)
    return isinstance(rate, property) and rate.fset is not None


def counterpart(layer: keras.Layer) -> Stochastic:
    """Returns the layer of this package that behaves like a dropout layer of Keras.

    Args:
        layer: A dropout layer of Keras or a layer of this package.

    Returns:
        A new layer with the same name, dtype policy, rate, seed and options. A layer of this package is returned
        unchanged.

    Raises:
        ValueError: If `layer` is not a dropout layer, or if its rate is 1.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layers.describe(layers.counterpart(keras.layers.SpatialDropout2D(0.2)))
    'spatial_dropout2d:0.2'
    """
    if isinstance(layer, Stochastic):
        return layer
    kind = next((cls for cls in _KERAS if isinstance(layer, cls)), None)
    if kind is None:
        raise ValueError(f"`layer` must be a dropout layer, see `is_dropout`. Received: layer={layer!r}")
    options = {name: getattr(layer, name) for name in ("noise_shape", "data_format") if hasattr(layer, name)}
    ours = _LAYERS[snake_case(kind.__name__)]
    accepted = inspect.signature(ours).parameters
    kept = {name: value for name, value in options.items() if name in accepted}
    with random_untouched():
        return ours(layer.rate, seed=layer.seed, name=layer.name, dtype=layer.dtype_policy, **kept)


def _make(spec: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> keras.Layer:
    """Returns the layer `name(*args, **kwargs)`, or raises a ValueError that names the spec."""
    make: Callable[..., keras.Layer] = get_class(name)
    try:
        return make(*args, **kwargs)
    except TypeError as error:  # the rate is missing, or the layer has no such argument
        raise ValueError(f"Cannot make a layer from {spec!r}: {error}") from None
