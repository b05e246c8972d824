"""The file of a sweep: one line of JSON for the space, and one for each trial as it ends."""

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dropzoo.common.files import lock
from dropzoo.sweep.space import Space
from dropzoo.sweep.trials import Record, Trial

#: Name of the file in a sweep's folder.
NAME = "sweep.jsonl"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The contents of a sweep's file.

    Args:
        space: The newest space, since a sweep that was started again with another space has several; None if the
            file is empty.
        records: Dict of the records of all trials by key, also of trials that are not in the space. If a trial was
            run twice, the last record counts.
        whole: Int, the number of bytes up to the end of the last whole line.
    """

    space: Space | None
    records: dict[str, Record]
    whole: int

    def of_space(self) -> list[Record]:
        """Returns the records of the space's trials, in the space's order."""
        if self.space is None:
            return []
        return placed(self.records, self.space.trials())


def placed(records: Mapping[str, Record], trials: Iterable[Trial]) -> list[Record]:
    """Returns the records of those trials that have one, each at the place that the trial has in its space.

    The record in a file has the place of the space that ran it. Another space may describe the same training run
    differently: as a plan, or with other spellings of its patterns.

    Args:
        records: Records by key.
        trials: The trials of a space.
    """
    return [dataclasses.replace(records[trial.key], trial=trial) for trial in trials if trial.key in records]


def read(path: Path) -> Recorded:
    """Reads a sweep's file, or the file in a sweep's folder.

    If a process was killed while it wrote, the last line is not whole. It is left out, with a warning.

    Args:
        path: Path of the file or the folder.

    Returns:
        The newest space and all records.

    Raises:
        ValueError: If there is no such file, or it is not the file of a sweep.
    """
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"No such sweep: {path}. Make one with: dropzoo sweep MODEL --data DATA ...")
    space: Space | None = None
    records: dict[str, Record] = {}
    whole = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            entry = _entry(line)
            if entry is None and not line.endswith(b"\n"):
                warnings.warn(f"{path}: line {number} is incomplete; its trial is left out", stacklevel=2)
                break
            if entry is None:
                raise ValueError(f"{path} is not the file of a sweep: line {number} cannot be read")
            whole += len(line)
            try:
                if "space" in entry:
                    space = Space(**entry["space"])
                else:
                    records[entry["key"]] = Record.from_json(entry)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} seems to be from another version of dropzoo: line {number}: {error}"
                ) from error
    if space is None and whole:
        raise ValueError(f"{path} is not the file of a sweep: it does not contain a space")
    return Recorded(space, records, whole)


class SweepFile:
    """Appends to a sweep's file; each line is on the disk, whole, when `add` returns.

    A lock keeps a second sweep out. It ends with the process, even if that is killed.

    Args:
        folder: Path of the sweep's folder; it is made if it is missing.
        space: The space that is swept now.

    Raises:
        ValueError: If the folder holds something other than a sweep, or a sweep on other data, or if another sweep
            writes to it.
        OSError: If the file cannot be written.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self.path = folder / NAME
        if folder.exists() and not self.path.exists() and (folder.is_file() or any(folder.iterdir())):
            raise ValueError(f"{folder} holds something that is not a sweep; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)
        try:
            self._begin(space)
        except BaseException:
            self.close()
            raise

    def _begin(self, space: Space) -> None:
        """Locks the file, cuts off a line that is not whole, and adds the space if it is new."""
        try:
            lock(self._file)
        except BlockingIOError:
            raise ValueError(f"Another sweep is writing to {self.path}; wait for it, or stop it") from None
        held = read(self.path)
        if held.space is not None and held.space.data != space.data:
            raise ValueError(
                f"{self.path} holds a sweep on {held.space.data!r}; choose another folder with --out for "
                f"{space.data!r}"
            )
        self.records = held.records
        self._file.truncate(held.whole)
        if held.space != space:
            self._write({"space": space.to_json()})

    def add(self, record: Record) -> None:
        """Appends a record."""
        self._write(record.to_json())
        self.records[record.trial.key] = record

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        while line:
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())


def _entry(line: bytes) -> dict[str, Any] | None:
    """Returns a line as a dict; None if it is not whole, or not a line of a sweep's file."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(entry, dict) and ("space" in entry or {"key", "axes", "config"} <= set(entry))
    return entry if ours and line.endswith(b"\n") else None
