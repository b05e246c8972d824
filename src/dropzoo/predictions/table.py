"""The table of predictions, and the journal from which a stopped run continues."""

import csv
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from dropzoo.common.claims import claimed_in
from dropzoo.common.files import whole_file
from dropzoo.predictions.summary import Row

_FORMATS = (".csv", ".json")


def check_table(path: Path) -> Path:
    """Returns the path of a table, or raises a ValueError if it ends neither in .csv nor in .json."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"A table must end in .csv or .json. Received: {path}")
    return path


def check_writable(out: Path | None, table: Path | None) -> None:
    """Raises a ValueError if the folder of outputs, or that of the table, cannot be written to.

    Args:
        out: Path of the folder of outputs, which need not exist; None if no files are written there.
        table: Path of the table; None for none.
    """
    for path, option in ((out, "--out"), (table and table.parent, "--table")):
        there = next((each for each in (path, *path.absolute().parents) if each.exists()), None) if path else None
        if there is not None and not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"Cannot write to the folder {there}. Choose another place with {option}")


def write_table(path: Path, rows: Iterable[Row], first: Callable[[Row], tuple[float, ...]] | None = None) -> Path:
    """Writes rows as CSV or JSON, by the suffix of the path; the file is either whole or unchanged.

    Args:
        path: Path that ends in `.csv` or `.json`.
        rows: The rows. Each may have columns of its own.
        first: Key that sorts the rows, the largest first; None for the order in which they come.

    Returns:
        `path`.
    """
    rows = list(rows) if first is None else sorted(rows, key=first, reverse=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: {"image": 0, "page": 1}.get(name, 2))
    with whole_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".json":
            file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
        else:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return path


def _cell(value: str | int | float | bool | None) -> str | int:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else value


class Journal:
    """The rows that are done, one per line, in a file beside the outputs that survives if the process is killed.

    The first line holds the settings. A row is of use only if its settings are those of the run. Before a run
    writes, it claims its table and its files: these may be replaced later, and no others.

    Attributes:
        done: The facts that are known about each image, by its key.
        files: The paths that this run may replace: those that it and earlier runs claimed.
        tables: The keys of the images in each table.

    Args:
        place: Path of a file; the journal lies beside it, and has a name like it.
        settings: A dict, which JSON can express, of everything that the answers depend on.
        overwrite: Bool, whether to start again.

    Raises:
        ValueError: If there is a journal of other settings, and `overwrite` is False.
    """

    def __init__(self, place: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        self.path = place.with_name(f".{place.name}.journal")
        self.done: dict[str, dict[str, Any]] = {}
        self.files: set[str] = set()
        self.tables: dict[str, set[str]] = {}
        self._file: IO[str] | None = None
        self._settings = json.loads(json.dumps(settings))
        if self.path.exists():
            self._read(place, overwrite)

    def _read(self, place: Path, overwrite: bool) -> None:
        self.files = claimed_in(self.path)
        lines = self.path.read_text(encoding="utf-8").splitlines()
        try:
            settings, *entries = [json.loads(line) for line in lines[:-1]] + _last(lines)
        except (ValueError, json.JSONDecodeError):
            if overwrite:
                return
            raise ValueError(f"{self.path} is damaged. To start again, pass --overwrite") from None
        for entry in [] if overwrite else entries:
            if "key" in entry:
                self.done[entry["key"]] = entry
            else:
                self._claim(entry)
        self.done = {key: entry for key, entry in self.done.items() if entry["row"] is not None}
        if settings != self._settings and self.done:
            names = [name for name in self._settings if self._settings[name] != settings.get(name)]
            changed = ", ".join(f"{n}: {settings.get(n)!r} there, {self._settings[n]!r} now" for n in names)
            raise ValueError(
                f"{place.parent} holds predictions with other settings ({changed or 'other options'}). "
                "Pass --overwrite to replace them, or choose another --out (or another --table, if the model "
                "predicts labels)"
            )

    def claim(self, table: Path, files: Iterable[Path], keys: Iterable[str]) -> None:
        """Says what a run is about to write, unless that is known.

        Args:
            table: Path of the table.
            files: Paths of the files.
            keys: The keys of the images that the table is about.
        """
        paths = {os.path.abspath(each) for each in files}
        claim: dict[str, Any] = {
            "table": os.path.abspath(table),
            "files": self._relative(paths),
            "keys": list(keys),
        }
        known = self.tables.get(claim["table"], set())
        if not self.files.issuperset(paths) or not known or not known.issuperset(claim["keys"]):
            self._write(claim)
            self._claim(claim)
            self.files |= paths

    def _claim(self, claim: dict[str, Any]) -> None:
        if "table" in claim:
            self.tables.setdefault(claim["table"], set()).update(claim["keys"])

    def _relative(self, paths: Iterable[str]) -> list[str]:
        """Paths relative to the folder of the journal, so that they stay true when the folder is moved."""
        return sorted(_from(path, self.path.parent) for path in paths)

    def add(self, entry: dict[str, Any]) -> None:
        """Adds what is known of one image, with its `key` and its `row`."""
        self._write(entry)
        self.done[entry["key"]] = entry

    def drop(self, key: str) -> None:
        """Forgets an image whose row is no longer true."""
        if self.done.pop(key, None) is not None:
            self._write({"key": key, "row": None})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Rewritten, so that half a line at the end of a journal does not stay.
            tables = [{"table": table, "files": [], "keys": sorted(keys)} for table, keys in self.tables.items()]
            claims = [{"files": self._relative(self.files)}, *tables]
            with whole_file(self.path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
                for each in (self._settings, *claims, *self.done.values()):
                    file.write(json.dumps(each) + "\n")
            self._file = open(self.path, "a", encoding="utf-8")
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def claim_files(place: Path, files: Iterable[Path]) -> None:
    """Records that files beside a table are outputs and not images, for a command that cannot be continued.

    Args:
        place: Path of the table. The journal lies beside it, and has a name like it.
        files: Paths of the files.
    """
    journal = place.with_name(f".{place.name}.files.journal")
    paths = claimed_in(journal).union(map(os.path.abspath, files))
    claim = {"files": sorted(_from(path, journal.parent) for path in paths)}
    with whole_file(journal) as unfinished:
        unfinished.write_text(f"{{}}\n{json.dumps(claim)}\n", encoding="utf-8")


def _from(path: str, folder: Path) -> str:
    """A path relative to a folder, if it is inside the folder."""
    full = Path(os.path.abspath(folder))
    return Path(path).relative_to(full).as_posix() if Path(path).is_relative_to(full) else path


def _last(lines: list[str]) -> list[Any]:
    """Returns the content of the last line, or nothing if a process was killed while it wrote the line."""
    try:
        return [json.loads(lines[-1])]
    except (ValueError, IndexError):
        return []
