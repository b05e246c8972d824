"""Training checkpoints: one `.npz` file holds everything a run needs to go on as if it had never stopped."""

import contextlib
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
_MARKS = ("--", "++", "@@")  # of a diff, not of its lines


class Position(NamedTuple):
    """Where a checkpoint stands: before step `step` of epoch `epoch`, both counted from 0.

    `steps` is the number of steps of the first epoch, None where it is not known yet.
    """

    epoch: int
    step: int
    steps: int | None
    history: dict[str, list[float]]
    path: Path
    jit_compile: bool


def folder(directory: str | Path | None, every: int | None, on_nan: str) -> Path | None:
    """Where checkpoints go; refuses what is asked of them where there are none."""
    if every is not None and (directory is None or every < 1):
        raise ValueError(
            "`checkpoint_every` must be a positive number of steps, with a `checkpoint_dir`. "
            f"Received: checkpoint_every={every}, checkpoint_dir={directory}"
        )
    if on_nan == "restore" and directory is None:
        raise ValueError("`on_nan='restore'` needs a `checkpoint_dir` to restore from")
    return None if directory is None else Path(directory)


def save(
    directory: Path,
    model: keras.Model,
    epoch: int,
    step: int,
    steps: int | None,
    history: dict[str, list[float]],
    described: list[str] | None = None,
    jit_compile: bool = False,
    write: bool = True,
) -> Path:
    """Writes the whole training state under its final name at once; the newest files stay, and the best.

    The file holds every variable of the model (weights, BatchNorm, seed generators), of its optimizer and
    of its metrics, the live rate of each dropout layer, the position and the history.

    Args:
        described: what `describe` said of the run as it was begun.
        jit_compile: whether the step is compiled.
        write: False for all workers but one: they only take part in reading what is spread over replicas.

    Raises:
        FloatingPointError: if a weight is not finite; nothing is written.
        OSError: if the file cannot be written; those before are whole.
    """
    variables = _variables(model)
    # An epoch that has not ended has no place in the history, even if callbacks have seen it.
    unfinished = max(map(len, history.values()), default=0) - epoch
    history = {name: values[: len(values) - max(unfinished, 0)] for name, values in history.items()}
    meta = {
        "variables": [_identity(variable) for variable in variables],
        "rates": [layer.rate for layer in _live_layers(model)],
        "epoch": epoch,
        "step": step,
        "steps": steps,
        "history": history,
        "described": described,
        "jit_compile": jit_compile,
    }
    arrays = {f"variable{index}": variable.numpy() for index, variable in enumerate(variables)}
    path, temporary = directory / f"epoch{epoch:05}_step{step:07}.npz", directory / "unfinished.tmp"
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable.numpy(), "float32")).all():
            last = next(iter(_newest_first(directory)), None)
            raise FloatingPointError(
                f"{variable.path} is not finite before step {step + 1} of epoch {epoch + 1}, though the "
                f"loss still is: nothing is saved. Last good checkpoint: {last}"
            )
    if not write:
        return path
    directory.mkdir(parents=True, exist_ok=True)
    text = np.array(json.dumps(meta, default=lambda value: np.asarray(value).tolist()))
    try:
        with open(temporary, "wb") as file:
            np.savez(file, meta=text, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        last = next(iter(_newest_first(directory)), None)
        raise OSError(
            error.errno,
            f"The checkpoint {path} could not be written ({error.strerror or error}). The last one that is whole: "
            f"{last}. Make room and start again: the run goes on from there",
        ) from error
    files = _newest_first(directory)
    for old in files[KEEP:]:
        if old.name != _best(history):
            old.unlink()
    return path


def _best(history: dict[str, list[float]]) -> str | None:
    """The file of the end of the epoch with the lowest validation loss, or training loss without validation."""
    losses = history.get("val_loss") or history.get("loss")
    if not losses:
        return None
    before = max(map(len, history.values())) - len(losses)  # epochs, where a resumed run began to validate
    return f"epoch{before + int(np.argmin(np.nan_to_num(losses, nan=np.inf))) + 1:05}_step{0:07}.npz"


def describe(model: keras.Model) -> list[str]:
    """What defines a run besides its variables: each layer and the optimizer with their settings, line by line."""
    lines: list[str] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, entry in value.items():
                # What `synchronized` does depends on the replicas, which a run may change.
                if key not in ("name", "module", "registered_name", "synchronized"):
                    add(f"{name}.{key}", entry)
        elif value is not None:
            lines.append(f"{name}: {json.dumps(value, default=lambda v: type(v).__name__)}")

    for layer in model._flatten_layers():
        if not isinstance(layer, keras.Model):
            try:
                config = layer.get_config()
            except NotImplementedError:
                config = {}
            add(_NUMBER.sub("", layer.name), {"class": type(layer).__name__, **config})
    add("optimizer", keras.saving.serialize_keras_object(model.optimizer))
    return lines


def restore(directory: Path, model: keras.Model, described: list[str] | None = None) -> Position | None:
    """Puts the newest readable checkpoint into a built model; None where there is no checkpoint.

    Raises:
        ValueError: if it is of another model, or of a run that `described` does not describe.
    """
    paths = _newest_first(directory)
    for path in paths:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)  # reads it all: zip checks a sum over each array
            meta = json.loads(str(arrays["meta"]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"The checkpoint {path} cannot be read and is passed over: {error}", stacklevel=3)
            continue
        _check(model, meta, described, path)
        _assign(model, meta, arrays)
        compiled = meta.get("jit_compile", False)
        return Position(meta["epoch"], meta["step"], meta.get("steps"), meta["history"], path, compiled)
    if paths:
        raise ValueError(
            f"None of the {len(paths)} checkpoints in {directory} can be read. Delete them to start anew."
        )
    return None


def _check(model: keras.Model, meta: dict[str, Any], described: list[str] | None, path: Path) -> None:
    saved, here = meta["variables"], [_identity(variable) for variable in _variables(model)]
    if saved == here and described and meta.get("described"):
        saved, here = meta["described"], described
    rates = len(_live_layers(model))
    if saved != here or len(meta["rates"]) != rates:
        diff = difflib.unified_diff(saved, here, n=0, lineterm="")
        lines = [f"{line[0]} {line[1:]}" for line in diff if line[:2] not in _MARKS]
        lines += [f"  live rates: {len(meta['rates'])} saved, {rates} here"] * (not lines)
        shown = [line for sign in "-+ " for line in [line for line in lines if line[0] == sign][:5]]
        more = [f"  and {len(lines) - len(shown)} more"] * (len(lines) > len(shown))
        raise ValueError(
            f"The checkpoint {path} is of another model, optimizer or metrics (- saved, + here):\n"
            + "\n".join([*shown, *more, ""])
            + "Go on with what was saved, or choose another folder for the checkpoints."
        )


def _assign(model: keras.Model, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    variables, layers = _variables(model), _live_layers(model)
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
