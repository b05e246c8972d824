"""Reads and writes the files of a run's folder."""

import csv
import json
import os
from pathlib import Path
from typing import Any


def read_history(out: Path) -> dict[str, list[float]]:
    """The curves of a finished run."""
    with open(out / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Writes under a temporary name first, so that the file is either whole or not there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def write_history(path: Path, history: dict[str, list[float]]) -> None:
    """Writes one row an epoch, under a temporary name first."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))
    os.replace(temporary, path)
