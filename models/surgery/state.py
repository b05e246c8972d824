"""Copies the state of a model that is not in its graph: variables, vocabularies, compile settings."""

import tempfile
import warnings
from typing import Any

import keras

from dropzoo.common.keras_internals import (
    compile_arguments,
    copy_weight_decay,
    flatten_layers,
    learning_rate_of,
    variables_trained_by,
)


def copy_state(pairs: list[tuple[keras.Layer, keras.Layer]]) -> dict[int, keras.Variable]:
    """Copies variables, vocabularies and `trainable` from layers to their copies.

    Args:
        pairs: Pairs of a layer and its copy.

    Returns:
        A dict from the id of each old variable to the new one.

    Raises:
        ValueError: If several layers share a weight, because their copies cannot share it, or if the weights of a
            copy have other shapes.
    """
    variables: dict[int, keras.Variable] = {}
    for old, new in pairs:
        parts = list(zip(flatten_layers(old), flatten_layers(new), strict=True))
        for part, copied in parts:
            if copied.trainable != part.trainable:
                copied.trainable = part.trainable
        for variable, copied in _both(old, new):
            if variables.get(id(variable), copied) is not copied:
                raise ValueError(
                    f"{variable.path!r} is a weight of several layers, such as {old.name!r}, and their copies "
                    "cannot share it. Pass share_weights=True."
                )
            if copied.shape != variable.shape:
                raise ValueError(
                    f"Cannot copy layer {old.name!r}: {variable.path!r} has the shape {copied.shape} in a layer "
                    f"made from its config, and {variable.shape} in the original. Define a `get_config` that "
                    "returns all arguments of the layer, or pass share_weights=True."
                )
            copied.assign(variable.value)
            if copied.trainable != variable.trainable:
                copied.trainable = variable.trainable
            variables[id(variable)] = copied
        for part, copied in parts:
            for state, kept in zip(_states(part), _states(copied), strict=False):
                kept.assign(state.value)
            if isinstance(copied, keras.layers.Normalization):  # it computes with a copy of its variables
                copied.finalize_state()
            if hasattr(part, "save_assets"):  # vocabularies
                own: dict[str, Any] = {}  # the weights of tf_idf, which Keras does not list as variables
                part.save_own_variables(own)
                copied.load_own_variables(own)
                with tempfile.TemporaryDirectory() as folder:
                    part.save_assets(folder)
                    copied.load_assets(folder)
    return variables


def _states(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the states of a stateful recurrent layer, which Keras does not list as variables."""
    held = keras.tree.flatten(getattr(layer, "states", None)) if getattr(layer, "stateful", False) else []
    return [state for state in held if isinstance(state, keras.Variable)]


def _both(old: keras.Layer, new: keras.Layer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns the variables of a layer with those of its copy, which has no seed variable if its rate is 0."""
    variables = old.variables, new.variables
    if len(variables[0]) != len(variables[1]):
        variables = old.weights, new.weights
    return list(zip(*variables, strict=True))


def compile_like(old: keras.Model, new: keras.Model, variables: dict[int, keras.Variable]) -> None:
    """Compiles a copy of a model like the original, and copies the optimizer's state.

    The copy gets an optimizer and metrics of its own. If one of them cannot be rebuilt from its config, the copy
    is left uncompiled, with a warning.

    Args:
        old: The original.
        new: The copy.
        variables: The dict that `copy_state` returns.
    """
    if not old.compiled:
        return
    settings, optimizer = compile_arguments(old), old.optimizer
    kinds = ("metrics", "weighted_metrics")
    parts = [optimizer, *keras.tree.flatten([settings[kind] for kind in kinds])]
    copies: dict[int, Any] = {}
    for part in parts:
        if not isinstance(part, (keras.optimizers.Optimizer, keras.metrics.Metric)):
            continue
        try:
            copies[id(part)] = _like(part)
        except Exception as error:  # the code of a custom class may raise anything
            warnings.warn(
                f"The copy is not compiled, because the {type(part).__name__} {part.name!r} of the original "
                f"cannot be rebuilt from its config ({error!r}). To train, compile the copy yourself.",
                stacklevel=4,
            )
            return
    if optimizer is not None:
        settings["optimizer"] = copies[id(optimizer)]
    for kind in kinds:
        settings[kind] = keras.tree.map_structure(lambda part: copies.get(id(part), part), settings[kind])
    new.compile(**settings)
    if optimizer is not None:
        _copy_optimizer(old, new, variables)


def _like(old: Any) -> Any:
    """Returns a new optimizer or metric of the same config; its learning-rate schedule need not be registered."""
    config = old.get_config()
    if isinstance(old, keras.optimizers.Optimizer) and callable(rate := learning_rate_of(old)):
        config["learning_rate"] = rate
    if isinstance(old, keras.optimizers.LossScaleOptimizer):
        return type(old)(**config | {"inner_optimizer": _like(old.inner_optimizer)})
    return type(old).from_config(config)


def _copy_optimizer(old: keras.Model, new: keras.Model, variables: dict[int, keras.Variable]) -> None:
    """Copies the state of the optimizer, and which variables have no weight decay."""
    inner, copied_inner = (getattr(m.optimizer, "inner_optimizer", m.optimizer) for m in (old, new))
    copy_weight_decay(inner, copied_inner, old.variables, variables)
    if old.optimizer.built:
        new.optimizer.build([variables.get(id(v), v) for v in variables_trained_by(inner)])
        for variable, copied in zip(old.optimizer.variables, new.optimizer.variables, strict=True):
            copied.assign(variable.value)
