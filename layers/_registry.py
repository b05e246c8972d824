"""Layers by name: `register_layer`, `list_layers`, `get`."""

import fnmatch
import inspect
import numbers
from collections.abc import Callable
from typing import Any

import keras

from dropzoo.common.checks import parse_spec, snake_case, unknown
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.common.seeds import random_untouched
from dropzoo.layers._base import BaseDropout, Stochastic

_LAYERS: dict[str, type[keras.Layer]] = {}
_KERAS = (  # the most special first: a spatial dropout of Keras is a Dropout of Keras
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
)


def register_layer(cls: type[keras.Layer]) -> type[keras.Layer]:
    """Makes a layer known by its snake-cased class name, and to Keras for loading."""
    name = snake_case(cls.__name__)
    if name in _LAYERS:
        raise ValueError(f"A layer named {name!r} is registered already: {_LAYERS[name]}")
    _LAYERS[name] = keras.saving.register_keras_serializable(package="dropzoo")(cls)
    return cls


def list_layers(pattern: str = "*", sites_only: bool = False) -> list[str]:
    """The names of the registered layers that match an fnmatch pattern, sorted.

    Args:
        pattern: For the names, fnmatch.
        sites_only: Only the layers that may stand at any site: without weights, and with the shape unchanged.

    Example:
    >>> from dropzoo import layers
    >>> layers.list_layers("spatial*")
    ['spatial_dropout1d', 'spatial_dropout2d', 'spatial_dropout3d']
    """
    names = fnmatch.filter(_LAYERS, pattern)
    return sorted(n for n in names if not sites_only or issubclass(_LAYERS[n], BaseDropout))


def get_class(name: str) -> type[keras.Layer]:
    """The class behind a layer's name; its docstring and signature are the layer's."""
    if name not in _LAYERS:
        raise unknown("layer", name, _LAYERS)
    return _LAYERS[name]


def get(spec: Any) -> keras.Layer:
    """A new dropout layer from a short description of it.

    Args:
        spec: One of: a float in [0, 1), which means `Dropout`; `"name:rate"` or `"name:rate,option=value"`;
            a dict with `"name"` and the layer's arguments; a layer, which is copied.

    Raises:
        ValueError: for an unknown name, a rate outside [0, 1) or arguments that the layer does not have.

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
    if isinstance(spec, dict) and "name" in spec:
        return _make(spec, spec["name"], (), {key: value for key, value in spec.items() if key != "name"})
    raise ValueError(
        'A dropout is described by a float, "name:rate,option=value", a dict with "name", or a layer. '
        f"Received: {spec!r}"
    )


def describe(layer: keras.Layer) -> str:
    """The spec of a layer: `"dropout:0.3"`, for site layers the inverse of `get`.

    Example:
    >>> from dropzoo import layers
    >>> layers.describe(layers.DropBlock2D(0.1, block_size=5))
    'drop_block2d:0.1,block_size=5'
    """
    config = layer.get_config()
    if isinstance(layer, Stochastic) and not isinstance(layer, BaseDropout):
        return f"{snake_case(type(layer).__name__)}:rate={config['rate']}"
    first = [str(config["rate"])] if "rate" in config else []
    try:
        default = type(layer)(config["rate"]).get_config() if first else {}
    except TypeError:  # a layer of somebody else's with another signature
        default = config
    general = {*keras.Layer().get_config(), "rate", "seed"}
    options = [f"{k}={v}" for k, v in config.items() if k not in general and v != default.get(k, v)]
    return f"{snake_case(type(layer).__name__)}:{','.join(first + options)}".rstrip(":")


def is_dropout(layer: keras.Layer) -> bool:
    """Whether a layer is one that may stand at a site: one of ours, or one of Keras' own dropout layers."""
    return isinstance(layer, (BaseDropout, *_KERAS))


def is_stochastic(layer: keras.Layer) -> bool:
    """Whether a layer draws at a rate: dropout, on weights, in pooling or in branches."""
    return isinstance(layer, (Stochastic, *_KERAS))


def dropouts(model: keras.Layer) -> list[keras.Layer]:
    """Returns the layers of a model that draw at a rate, in the model's order, each once.

    Layers inside other layers and inside nested models are among them.

    Args:
        model: Any Keras model or layer; it is not among the result itself.

    Example:
    >>> from dropzoo import layers, models
    >>> [layer.name for layer in layers.dropouts(models.build_model("lenet5", dropout={"head": 0.5}))]
    ['head_dropout']
    """
    return [layer for layer in flatten_layers(model, include_self=False) if is_stochastic(layer)]


def has_live_rate(layer: keras.Layer) -> bool:
    """Returns whether a layer's rate can be set so that traced functions see it; Keras' own layers cannot."""
    rate = getattr(type(layer), "rate", None)
    return isinstance(rate, property) and rate.fset is not None


def counterpart(layer: keras.Layer) -> Any:
    """Our layer that does what a dropout layer of Keras does; ours are their own."""
    if isinstance(layer, Stochastic):
        return layer
    kind = next(cls for cls in _KERAS if isinstance(layer, cls))
    options = {name: getattr(layer, name) for name in ("noise_shape", "data_format") if hasattr(layer, name)}
    ours = _LAYERS[snake_case(kind.__name__)]
    accepted = inspect.signature(ours).parameters
    kept = {name: value for name, value in options.items() if name in accepted}
    with random_untouched():
        return ours(layer.rate, seed=layer.seed, name=layer.name, **kept)


def _make(spec: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> keras.Layer:
    make: Callable[..., keras.Layer] = get_class(name)
    try:
        return make(*args, **kwargs)
    except TypeError as error:  # a missing rate, or one argument too many
        raise ValueError(f"Cannot make a layer from {spec!r}: {error}") from None
