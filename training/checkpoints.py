"""Training checkpoints: one `.npz` file holds everything a run needs to go on as if it had never stopped."""

import difflib
import json
import os
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

KEEP = 3
_NAME = re.compile(r"epoch(\d+)_step(\d+)\.npz")
# Keras numbers names over the life of a process ("dense_1", "adam/dense_1_kernel_momentum"), so the same
# model built twice has other names: the numbers are no part of a variable's identity.
_NUMBER = re.compile(r"_\d+(?=[_/]|$)")


class Position(NamedTuple):
    """Where a checkpoint stands: before step `step` of epoch `epoch`, both counted from 0.

    `steps` is the number of steps of the first epoch, None where it is not known yet.
    """

    epoch: int
    step: int
    steps: int | None
    history: dict[str, list[float]]
    path: Path


def save(
    directory: Path,
    model: keras.Model,
    epoch: int,
    step: int,
    steps: int | None,
    history: dict[str, list[float]],
) -> Path:
    """Writes the whole training state under its final name at once, and drops all but the newest files.

    The file holds every variable of the model (weights, BatchNorm, seed generators), of its optimizer and
    of its metrics, the live rate of each dropout layer, the position and the history.
    """
    variables = _variables(model)
    meta = {
        "variables": [_identity(variable) for variable in variables],
        "rates": [layer.rate for layer in _live_layers(model)],
        "epoch": epoch,
        "step": step,
        "steps": steps,
        # An epoch that has not ended has no place in the history, even if callbacks have seen it.
        "history": {name: values[:epoch] for name, values in history.items()},
    }
    arrays = {f"variable{index}": variable.numpy() for index, variable in enumerate(variables)}
    directory.mkdir(parents=True, exist_ok=True)
    path, temporary = directory / f"epoch{epoch:05}_step{step:07}.npz", directory / "unfinished.tmp"
    with open(temporary, "wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta, default=lambda value: np.asarray(value).tolist())), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for old in _newest_first(directory)[KEEP:]:
        old.unlink()
    return path


def restore(directory: Path, model: keras.Model) -> Position | None:
    """Puts the newest readable checkpoint into a built model; None where there is no checkpoint."""
    paths = _newest_first(directory)
    for path in paths:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)  # reads it all: zip checks a sum over each array
            meta = json.loads(str(arrays["meta"]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"The checkpoint {path} cannot be read and is passed over: {error}", stacklevel=3)
            continue
        _assign(model, meta, arrays, path)
        return Position(meta["epoch"], meta["step"], meta.get("steps"), meta["history"], path)
    if paths:
        raise ValueError(
            f"None of the {len(paths)} checkpoints in {directory} can be read. Delete them to start anew."
        )
    return None


def _assign(model: keras.Model, meta: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> None:
    variables, layers = _variables(model), _live_layers(model)
    saved, here = meta["variables"], [_identity(variable) for variable in variables]
    if saved != here or len(meta["rates"]) != len(layers):
        lines = [line for line in difflib.ndiff(saved, here) if line[0] in "-+"]
        lines += [f"  live rates: {len(meta['rates'])} saved, {len(layers)} here"] * (not lines)
        shown = "\n".join([*lines[:10], *[f"  and {len(lines) - 10} more"] * (len(lines) > 10)])
        raise ValueError(
            f"The checkpoint {path} is of another model, optimizer or metrics (- saved, + here):\n{shown}"
        )
    for index, variable in enumerate(variables):
        value = arrays[f"variable{index}"]
        if value.dtype.kind == "V":  # bfloat16 and float8 come back from the file as plain bytes
            value = value.view(variable.numpy().dtype)
        variable.assign(value)
    for layer, rate in zip(layers, meta["rates"], strict=True):
        layer.rate = rate


def _variables(model: keras.Model) -> list[keras.Variable]:
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return list({id(variable): variable for variable in variables}.values())


def _live_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers whose rate is a property that can be set, in the order of the model."""
    rates = [(layer, getattr(type(layer), "rate", None)) for layer in model._flatten_layers()]
    return [layer for layer, rate in rates if isinstance(rate, property) and rate.fset is not None]


def _identity(variable: keras.Variable) -> str:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return f"{_NUMBER.sub('', variable.path)} {tuple(variable.shape)} {dtype}"


def _newest_first(directory: Path) -> list[Path]:
    found = [(match, path) for path in directory.glob("*.npz") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: tuple(map(int, pair[0].groups())), reverse=True)
    return [path for _, path in found]
