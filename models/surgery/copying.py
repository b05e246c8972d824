"""Copies of layers by their configs, and the classes of copies of models."""

import inspect
from typing import Any

import keras

from dropzoo.common.keras_internals import (
    KerasFunctional,
    flatten_layers,
    output_shape_of_lambda,
    own_code_is_safe,
    set_trainable_alone,
)
from dropzoo.models.surgery.check import is_custom
from dropzoo.models.surgery.ordered import Functional
from dropzoo.models.surgery.quiet import quiet_config

REMEDY = "Define a `get_config` that returns all arguments of the layer, or pass share_weights=True."
"""The end of the error for a layer that its config does not make again."""
_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compile")


def copied(old: keras.Layer, quiet: bool = False, **changes: Any) -> keras.Layer:
    """Returns a copy of a layer, with changes to its config, and without the dropout inside it if `quiet`."""
    try:
        config = _config(old) | changes
        config = quiet_config(config) if quiet else config
        with own_code_is_safe(), keras.saving.custom_object_scope(_classes_in(old)):
            new = type(old)(**config) if type(old) is keras.layers.Lambda else type(old).from_config(config)
    except Exception as error:  # the code of a custom layer may raise anything
        raise ValueError(
            f"Cannot copy layer {old.name!r}: {type(old).__name__}.from_config(layer.get_config()) fails with "
            f"{error!r}. {REMEDY}"
        ) from None
    new.name = changes.get("name", old.name)
    if new.dtype_policy != old.dtype_policy:  # some configs lack it, such as that of Keras' SpatialDropout2D
        new.dtype_policy = old.dtype_policy
    return new


def _classes_in(old: keras.Layer) -> dict[str, type]:
    """Returns the custom classes inside a layer, such as cells, by name: they need not be registered."""
    inside = flatten_layers(old, include_self=False)
    return {type(layer).__name__: type(layer) for layer in inside if is_custom(layer)}


def copied_around(old: keras.layers.TimeDistributed, model: keras.Model) -> keras.layers.TimeDistributed:
    """Returns a copy of a wrapper around another model."""
    config = keras.layers.Layer.get_config(old)
    try:
        new = type(old)(model, **config)
    except Exception as error:  # the code of a custom layer may raise anything
        raise ValueError(
            f"Cannot put another model into layer {old.name!r}: {type(old).__name__}(model, **config) fails with "
            f"{error!r}. Use keras.layers.TimeDistributed instead of {type(old).__name__}."
        ) from None
    set_trainable_alone(new, old.trainable)
    return new


def _config(old: keras.Layer) -> dict[str, Any]:
    """Returns the config of a layer, in which its functions are not serialized.

    From a serialized config, Keras would not find a function that is not registered, and a lambda would lose the
    globals of its module.
    """
    if type(old) is keras.layers.Lambda:
        own = {"function": old.function, "output_shape": output_shape_of_lambda(old), "mask": old.mask}
        return keras.layers.Layer.get_config(old) | own | {"arguments": old.arguments}
    config = old.get_config()
    activations = {key: getattr(old, key, None) for key in config if key.endswith("activation")}
    return config | {key: value for key, value in activations.items() if inspect.isfunction(value)}


def class_for(old: keras.Model, parameter: str, plain: type) -> type:
    """Returns the class for a model like `old`: its own if the constructor takes a graph, else the plain one."""
    cls = type(old)
    if cls in (KerasFunctional, Functional):
        return plain
    if cls is plain or parameter in inspect.signature(cls.__init__).parameters:
        return cls
    changed = [step for step in _STEPS if getattr(cls, step) is not getattr(plain, step)]
    if changed:
        raise ValueError(
            f"{cls.__name__} overrides {', '.join(changed)} and its constructor does not take `{parameter}`, so "
            "it cannot be built around another graph. Pass keras.Model(model.inputs, model.outputs), and wrap "
            "the result in that class again."
        )
    return plain
