"""Configs that take away the dropout inside Keras' own layers, such as `LSTM`."""

from typing import Any

import keras

from dropzoo import layers
from dropzoo.models.graph.random import INSIDE_RATES, random_layers

_DROPOUTS = {name for name in dir(keras.layers) if name.endswith("Dropout")}


def is_quietable(layer: keras.Layer) -> bool:
    """Returns whether a layer is Keras' own and has dropout inside.

    The result is False for dropout layers and for models.
    """
    own = type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model)
    return own and not layers.is_stochastic(layer) and bool(random_layers(layer))


def quiet_config(config: dict[str, Any], is_dropout: bool = False) -> dict[str, Any]:
    """Returns the config of a layer of Keras with all rates 0, also those of its cells and of the layers in it.

    Args:
        config: The dict that `get_config` returns.
        is_dropout: Bool, whether it is the config of a dropout layer.
    """
    names = (*INSIDE_RATES, "rate") if is_dropout else INSIDE_RATES
    return {key: 0.0 if key in names and value else _quiet(value) for key, value in config.items()}


def _quiet(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_quiet, value))
    if not isinstance(value, dict) or "class_name" not in value or not isinstance(value.get("config"), dict):
        return value
    ours = str(value.get("registered_name")).startswith("dropzoo>")
    if not ours and not str(value.get("module")).startswith("keras."):
        return value  # the arguments of a class of another package may mean anything
    return value | {"config": quiet_config(value["config"], ours or value["class_name"] in _DROPOUTS)}
