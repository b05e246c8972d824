"""Training checkpoints: one `.npz` file holds all that a run needs to continue as if it had never stopped."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dropzoo.common.checks import check_count
from dropzoo.common.files import whole_file
from dropzoo.common.words import count_of
from dropzoo.training.loop.identity import check_same, identity_of, live_layers, variables_of

KEEP = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"epoch(\d+)_step(\d+)\.npz")
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The position of a run and everything else that a checkpoint holds besides variables and rates.

    Args:
        epoch: Int from 0. The epoch of the next step.
        step: Int from 0. The next step within that epoch.
        steps: Int or None. The number of steps of the first epoch; None while it is not known.
        history: Dict from the names of logs to one value for each epoch.
        described: List of str. The result of `identity.describe` when the run began; None if a run with other
            settings may continue from it.
        jit_compile: Bool. Whether XLA compiles the steps.
        seed: Int. The seed of the order in which arrays and a `PyDataset` are read.
        input_range: The values of a black and of a white pixel in the training images, or None.
    """

    epoch: int
    step: int
    steps: int | None
    history: dict[str, list[float]]
    described: list[str] | None
    jit_compile: bool
    seed: int = 0
    input_range: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The name of the checkpoint's file."""
        return f"epoch{self.epoch:05}_step{self.step:07}.npz"


def folder(directory: str | Path | None, every: int | None, on_nan: str) -> Path | None:
    """Returns the folder of the checkpoints, or raises a ValueError if an option needs one and there is none."""
    if every is not None:
        check_count(every, "checkpoint_every")
        if directory is None:
            raise ValueError(f"`checkpoint_every` needs a `checkpoint_dir`. Received: checkpoint_every={every}")
    if on_nan == "restore" and directory is None:
        raise ValueError("`on_nan='restore'` needs a `checkpoint_dir` to restore from")
    return None if directory is None else Path(directory)


def save(directory: Path, model: keras.Model, checkpoint: Checkpoint, write: bool = True) -> Path:
    """Writes the whole training state to one file, and deletes older files except the newest and the best.

    The file holds every variable of the model (weights, BatchNorm, seed generators), of its optimizer and of its
    metrics, the live rate of each dropout layer, the position and the history.

    Args:
        directory: Folder of the checkpoints; it is made if it is missing.
        model: A compiled model.
        checkpoint: The position, the history and the settings of the run.
        write: Bool. False for all workers but one. The others only help to read variables that are spread over
            replicas.

    Returns:
        The path of the file.

    Raises:
        FloatingPointError: If a weight is not finite; nothing is written.
        OSError: If the file cannot be written; older files stay intact.
    """
    variables = variables_of(model)
    checkpoint = dataclasses.replace(checkpoint, history=_ended_epochs(checkpoint))
    rates = [layer.rate for layer in live_layers(model)]
    identities = [identity_of(variable) for variable in variables]
    meta = {"variables": identities, "rates": rates, **dataclasses.asdict(checkpoint)}
    arrays = {f"variable{index}": variable.numpy() for index, variable in enumerate(variables)}
    _check_finite(model, checkpoint, directory)
    path = directory / checkpoint.name
    if write:
        _write(path, meta, arrays)
        _delete_old(directory, _best(checkpoint.history))
    return path


def _ended_epochs(checkpoint: Checkpoint) -> dict[str, list[float]]:
    """Returns the history without an unfinished epoch, whose logs may be in it already."""
    seen = max(map(len, checkpoint.history.values()), default=0)
    unfinished = max(seen - checkpoint.epoch, 0)
    return {name: values[: len(values) - unfinished] for name, values in checkpoint.history.items()}


def _check_finite(model: keras.Model, checkpoint: Checkpoint, directory: Path) -> None:
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable.numpy(), "float32")).all():
            raise FloatingPointError(
                f"{variable.path} is not finite before step {checkpoint.step + 1} of epoch "
                f"{checkpoint.epoch + 1}, although the loss is finite. Nothing was saved. Try a smaller "
                f"learning rate, or clip the gradients. Last good checkpoint: {_newest(directory) or 'none'}"
            )


def _write(path: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    text = np.array(json.dumps(meta, default=lambda value: np.asarray(value).tolist()))
    contents: dict[str, Any] = {"meta": text, **arrays}
    try:
        with whole_file(path) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, **contents)
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes do
    except OSError as error:
        last = _newest(path.parent)
        way = "Free some disk space" if error.errno in _FULL else "Solve this problem"
        raise OSError(
            error.errno,
            f"The checkpoint {path} could not be written ({error.strerror or error}). The newest complete "
            f"checkpoint: {last or 'none'}. {way} and start again"
            + (": the run continues from there" if last else ""),
        ) from error


def _delete_old(directory: Path, best: str | None) -> None:
    """Deletes all files except the newest ones and the best, and the half-written files of killed processes."""
    for old in [*_newest_first(directory)[KEEP:], *directory.glob("*.unfinished.npz")]:
        if old.name != best:
            old.unlink()


def _best(history: dict[str, list[float]]) -> str | None:
    """Returns the file of the epoch with the lowest validation loss, or training loss without validation."""
    losses = history.get("val_loss") or history.get("loss")
    if not losses:
        return None
    before = max(map(len, history.values())) - len(losses)  # epochs before a resumed run began to validate
    return f"epoch{before + int(np.argmin(np.nan_to_num(losses, nan=np.inf))) + 1:05}_step{0:07}.npz"


def restore(
    directory: Path, model: keras.Model, described: list[str] | None = None, moved: Collection[str] = ()
) -> tuple[Checkpoint, Path] | None:
    """Puts the newest readable checkpoint into a built model.

    Args:
        directory: Folder of the checkpoints.
        model: A compiled model with all its variables.
        described: The result of `identity.describe` when the run began; None to compare only the variables.
        moved: Names of settings that need not be the same, because callbacks change them.

    Returns:
        The checkpoint and its file, or None if there is no checkpoint.

    Raises:
        ValueError: If the checkpoint is of another model or run, or none of the checkpoints can be read.
    """
    paths = _newest_first(directory)
    for path in paths:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)  # reads the whole file, and so verifies the checksum of each array
            meta = json.loads(str(arrays["meta"]))
        except _UNREADABLE as error:
            warnings.warn(f"The checkpoint {path} cannot be read and is skipped: {error}", stacklevel=3)
            continue
        check_same(model, meta, described, path, moved)
        _assign(model, meta, arrays)
        # A file may lack fields that have been added since.
        fields = [field.name for field in dataclasses.fields(Checkpoint) if field.name in meta]
        return Checkpoint(**{name: meta[name] for name in fields}), path
    if paths:
        raise ValueError(
            f"Cannot read {count_of(len(paths), 'checkpoint')} in {directory}, and there are no others. Delete "
            "every checkpoint to start again."
        )
    return None


def read_history(directory: Path) -> dict[str, list[float]]:
    """Returns the history in the newest checkpoint; it is empty if there is none that can be read."""
    for path in _newest_first(directory):
        with contextlib.suppress(*_UNREADABLE):
            with np.load(path, allow_pickle=False) as file:
                return json.loads(str(file["meta"]))["history"]
    return {}


def restore_best(directory: Path, model: keras.Model) -> int:
    """Puts the checkpoint of the epoch with the lowest validation loss, or training loss, into a model.

    Args:
        directory: Folder of the checkpoints.
        model: The compiled model of the run.

    Returns:
        The number of that epoch, from 1; 0 if there is no such checkpoint.
    """
    name = _best(read_history(directory))
    if name is None or not (directory / name).exists():
        return 0
    with np.load(directory / name, allow_pickle=False) as file:
        arrays = dict(file)
    _assign(model, json.loads(str(arrays["meta"])), arrays)
    model.optimizer.finalize_variable_values(model.trainable_weights)
    return int(name[5:10])


def accept_other_settings(directory: Path) -> None:
    """Removes the settings from the newest readable checkpoint, so that any run with its variables may continue.

    The result differs from a run that had these settings from the start. A run that continues for more epochs, for
    example, has a learning-rate schedule of another length.

    Args:
        directory: Folder of the checkpoints.
    """
    for path in _newest_first(directory):
        with contextlib.suppress(*_UNREADABLE):
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            meta = json.loads(str(arrays.pop("meta"))) | {"described": None}
            break
    else:
        return
    _write(path, meta, arrays)


def _assign(model: keras.Model, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    for index, variable in enumerate(variables_of(model)):
        value = arrays[f"variable{index}"]
        if value.dtype.kind == "V":  # bfloat16 and float8 come back from the file as plain bytes
            value = value.view(variable.numpy().dtype)
        variable.assign(value)
    for layer, rate in zip(live_layers(model), meta["rates"], strict=True):
        layer.rate = rate


def _newest(directory: Path) -> Path | None:
    return next(iter(_newest_first(directory)), None)


def _newest_first(directory: Path) -> list[Path]:
    found = [(match, path) for path in directory.glob("*.npz") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: tuple(map(int, pair[0].groups())), reverse=True)
    return [path for _, path in found]
