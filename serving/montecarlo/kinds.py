"""The output kind of an output for which none is said: by the loss that the model was compiled with."""

from collections.abc import Sequence
from typing import Any

import keras

from dropzoo.common.keras_internals import compile_arguments

_REGRESSION = frozenset(
    "meansquarederror mse meanabsoluteerror mae huber huberloss logcosh meanabsolutepercentageerror mape "
    "meansquaredlogarithmicerror msle poisson".split()
)
_COINS = frozenset("binarycrossentropy binaryfocalcrossentropy".split())


def compiled_losses(model: keras.Model, names: Sequence[str]) -> list[Any]:
    """Returns the loss of each output as the model was compiled with it; None for an output without one.

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


def kind_by_loss(loss: Any, classes: int | None) -> str | None:
    """Returns the output kind that a loss is for, or None if several are possible.

    Args:
        loss: A loss, or its name, or a function.
        classes: The size of the output's last axis.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    name = name.lower().replace("_", "")
    if name in _REGRESSION:
        return "regression"
    return "multi_label" if name in _COINS and classes != 1 else None
