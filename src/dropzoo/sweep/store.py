"""The file of a sweep: a line of JSON for the space, and one for each trial as it ends."""

import dataclasses
import fcntl
import json
import os
import warnings
from pathlib import Path
from typing import Any

from dropzoo.sweep.space import Space
from dropzoo.sweep.workbench import as_json

#: Its name in a sweep's folder.
NAME = "sweep.jsonl"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a sweep's file holds.

    Attributes:
        space: the newest; a sweep that was started again with another space has several.
        trials: records of all trials by key, also of those outside of the space; of a trial done twice the last.
        whole: the bytes up to the end of the last whole line.
    """

    space: Space | None
    trials: dict[str, dict[str, Any]]
    whole: int

    def of_space(self) -> list[dict[str, Any]]:
        """The records of the space's trials, in the space's order."""
        if self.space is None:
            return []
        return [self.trials[trial.key] for trial in self.space.trials() if trial.key in self.trials]


def read(path: Path) -> Recorded:
    """Reads a sweep's file, or that of a sweep's folder.

    A last line that is not whole, as a killed process leaves it, is left out with a warning.

    Raises:
        ValueError: if there is no such file, or it is not one of a sweep.
    """
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"No such sweep: {path}. Make one with: dropzoo sweep MODEL --data DATA ...")
    space, trials, whole = None, {}, 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            entry = _entry(line)
            if entry is None and not line.endswith(b"\n"):
                warnings.warn(f"{path}: line {number} is not whole; its trial is left out", stacklevel=2)
                break
            if entry is None:
                raise ValueError(f"{path} is not the file of a sweep: line {number} cannot be read")
            whole += len(line)
            if "space" in entry:
                try:
                    space = Space(**entry["space"])
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path} is of another version: line {number}: {error}") from error
            else:
                trials[entry["key"]] = entry
    if space is None and whole:
        raise ValueError(f"{path} is not the file of a sweep: it names no space")
    return Recorded(space, trials, whole)


class SweepFile:
    """Appends to a sweep's file; each line is written whole and is on the disk when `add` returns.

    Args:
        folder: of the sweep; made where it is missing.
        space: what is swept now.

    Raises:
        ValueError: if the folder holds something else, or a sweep of other data.
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self.path = folder / NAME
        if folder.exists() and not self.path.exists() and (folder.is_file() or any(folder.iterdir())):
            raise ValueError(f"{folder} holds something that is not a sweep; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            held = read(self.path)
            if held.space is not None and held.space.data != space.data:
                raise ValueError(
                    f"{self.path} holds a sweep on {held.space.data!r}; choose another folder with --out for "
                    f"{space.data!r}"
                )
        except BaseException:
            self.close()
            raise
        self.trials = held.trials
        os.ftruncate(self._file, held.whole)
        if held.space != space:
            self._write({"space": dataclasses.asdict(space)})

    def _lock(self) -> None:
        """Against a second sweep in this folder; it ends with the process, however that ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another sweep is writing to {self.path}; wait for it, or stop it") from None

    def add(self, record: dict[str, Any]) -> None:
        self._write(record)
        self.trials[record["key"]] = record

    def close(self) -> None:
        os.close(self._file)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(as_json(entry)).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line as a dict; None where it is not whole, or not one of ours."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(entry, dict) and ("space" in entry or {"key", "axes", "config"} <= set(entry))
    return entry if ours and line.endswith(b"\n") else None
