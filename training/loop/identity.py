"""What makes two runs the same: the settings and the variables that a checkpoint and a resumed run must share."""

import difflib
import json
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras

from dropzoo.common.keras_internals import flatten_layers
from dropzoo.layers import has_live_rate

# Keras numbers names over the life of a process ("dense_1", "adam/dense_1_kernel_momentum"), so a model that is
# built twice gets different names. The numbers are therefore not part of a variable's identity.
_NUMBER = re.compile(r"_\d+(?=[_/]|$)")
_MARKS = ("--", "++", "@@")  # lines of a diff that begin like this are headers


def describe(thing: keras.Model | keras.optimizers.Optimizer) -> list[str]:
    """Returns the settings of a model's layers, or of an optimizer; a resumed run must have the same settings."""
    lines: list[str] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, entry in value.items():
                # The effect of `synchronized` depends on the replicas, which a run may change.
                if key not in ("name", "module", "registered_name", "synchronized"):
                    add(f"{name}.{key}", entry)
        elif value is not None:
            lines.append(f"{name}: {json.dumps(value, default=lambda v: type(v).__name__)}")

    if isinstance(thing, keras.optimizers.Optimizer):
        add("optimizer", keras.saving.serialize_keras_object(thing))
        return lines
    for layer in flatten_layers(thing):
        if not isinstance(layer, keras.Model):
            try:
                config = layer.get_config()
            except NotImplementedError:
                config = {}
            add(identity_of_layer(layer), {"class": type(layer).__name__, **config})
    return lines


def identity_of_layer(layer: keras.Layer) -> str:
    """Returns the name of a layer in what `describe` returns, without the number that Keras gives it."""
    return _NUMBER.sub("", layer.name)


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """Returns all that changes in training: the variables of a model, of its optimizer and of its metrics."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return list({id(variable): variable for variable in variables}.values())


def live_layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers whose rate can be set, including a user's own layers, in the order of the model."""
    return [layer for layer in flatten_layers(model) if has_live_rate(layer)]


def identity_of(variable: keras.Variable) -> str:
    """Returns the name of a variable without the numbers that Keras gives it, its shape and its dtype."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return f"{_NUMBER.sub('', variable.path)} {tuple(variable.shape)} {dtype}"


def check_same(
    model: keras.Model, meta: dict[str, Any], described: list[str] | None, path: Path, moved: Collection[str]
) -> None:
    """Raises a ValueError that shows the differences if the checkpoint is of another model or run."""
    saved, here = meta["variables"], [identity_of(variable) for variable in variables_of(model)]
    if saved == here and described is not None and meta["described"] is not None:
        saved, here = (  # sorted, since the order of a config does not matter
            sorted(line for line in lines if line.partition(": ")[0] not in moved)
            for lines in (meta["described"], described)
        )
    rates = len(live_layers(model))
    if saved != here or len(meta["rates"]) != rates:
        diff = difflib.unified_diff(saved, here, n=0, lineterm="")
        lines = [f"{line[0]} {line[1:]}" for line in diff if line[:2] not in _MARKS]
        lines += [f"  layers whose rate can change: {len(meta['rates'])} saved, {rates} here"] * (not lines)
        shown = [line for sign in "-+ " for line in [line for line in lines if line[0] == sign][:5]]
        more = [f"  and {len(lines) - len(shown)} more"] * (len(lines) > len(shown))
        raise ValueError(
            f"The checkpoint {path} is of another model, or of a run with other settings (- saved, + here):\n"
            + "\n".join([*shown, *more, ""])
            + "Use the settings that were saved, or choose another folder for the checkpoints."
        )


def warn_of_own_optimizers(model: keras.Model) -> None:
    """Warns if a model has optimizers besides that of `compile`, as models whose parts train separately do."""
    own = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer
    ]
    if own:
        warnings.warn(
            f"Checkpoints contain the state of the optimizer of `compile` only, not of {', '.join(own)}, so a "
            "resumed run is not exact. Use only the optimizer of `compile`, or save the variables of the others "
            "yourself",
            stacklevel=4,
        )
