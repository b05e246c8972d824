"""The output kind that the loss of a compiled model shows, for outputs whose kind the user does not say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from dropzoo.common.archives import read_member
from dropzoo.common.keras_internals import compile_arguments

_REGRESSION = frozenset(
    "meansquarederror mse meanabsoluteerror mae huber huberloss logcosh meanabsolutepercentageerror mape "
    "meansquaredlogarithmicerror msle poisson".split()
)
_COINS = frozenset("binarycrossentropy binaryfocalcrossentropy".split())
# Parts of the names of losses for classes: those of Keras and of this package, and most of users' own.
_OF_CLASSES = ("crossentropy", "dice", "tversky")


def compiled_losses(model: keras.Model, names: Sequence[str]) -> list[Any]:
    """Returns the loss that the model was compiled with, for each output; None for an output without one.

    Args:
        model: Any Keras model.
        names: The names of its outputs, in order.
    """
    loss = compile_arguments(model).get("loss") if getattr(model, "compiled", False) else None
    if isinstance(loss, dict):
        return [loss.get(name) for name in names]
    if isinstance(loss, (list, tuple)):
        return list(loss) if len(loss) == len(names) else [None] * len(names)
    return [loss] * len(names)


def saved_loss(path: Path) -> Any:
    """Returns the loss in a `.keras` file as `compile` takes it, or None if the model was not compiled.

    A user's own loss whose code is not loaded is returned as its name, which may still show the kind.

    Args:
        path: Path of the file.
    """
    compiled = json.loads(read_member(path, "config.json") or "{}").get("compile_config")
    return _revived((compiled or {}).get("loss"))


def _revived(saved: Any) -> Any:
    if isinstance(saved, list):
        return [_revived(each) for each in saved]
    if isinstance(saved, dict) and "class_name" not in saved:  # a loss for each output
        return {name: _revived(each) for name, each in saved.items()}
    try:
        return keras.saving.deserialize_keras_object(saved)
    except (TypeError, ValueError):
        config = saved["config"]  # the name of a function, or the arguments of a class
        return config if isinstance(config, str) else saved["class_name"]


def kind_by_loss(loss: Any, classes: int | None) -> str | None:
    """Returns the output kind that a loss is for, or None if several are possible.

    Args:
        loss: A loss, the name of a loss, or a function.
        classes: The size of the output's last axis.
    """
    name = name_of_loss(loss).lower().replace("_", "")
    if name in _REGRESSION:
        return "regression"
    return "multi_label" if name in _COINS and classes != 1 else None


def says_nothing(loss: Any) -> bool:
    """Returns whether a loss may be for classes or for values, such as a hinge or a user's own loss.

    Args:
        loss: A loss, the name of a loss, or a function; None if there is no loss.
    """
    name = name_of_loss(loss).lower().replace("_", "")
    return loss is not None and name not in _REGRESSION and not any(part in name for part in _OF_CLASSES)


def name_of_loss(loss: Any) -> str:
    """Returns the name of a loss, which is a loss object, a name already, or a function."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
