"""Reads and writes the files of a run's folder."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropzoo.common.files import whole_file


def read_history(out: Path) -> dict[str, list[float]]:
    """Returns the curves of a finished run: for each column of `history.csv` one number per epoch."""
    with open(out / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def write_history(path: Path, history: dict[str, list[float]]) -> None:
    """Writes curves as CSV, one row per epoch."""
    with whole_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes rows as CSV, with the columns of the first, and returns the path."""
    with whole_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON, which people can read."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
