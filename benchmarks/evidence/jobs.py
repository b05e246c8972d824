"""Jobs: one training each, described by values alone, and the file with one row for each of them.

A row is written as its job ends, and the file is always whole. So work that was stopped anywhere goes on where it
was, claims share the trainings that they have in common, and rows from several machines can be put together.
"""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

#: Seeds from here on are for choices. Their rows have figures on validation images only.
TUNING = 100
BASE = "columns"
Figures: TypeAlias = dict[str, float]
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training, or that of the members of an ensemble.

    Attributes:
        data: Str, a data set in `images.py`.
        images: Int, the number of training images.
        network: Str, a network in `networks.py`.
        plan: Str, the dropout: `"none"`, or pairs of a pattern and a spec, such as `"module? 0.2 + dense* 0.5"`.
        epochs: Int, over which the learning rate falls to 0 along a cosine.
        learning_rate: Float, the first learning rate of AdamW.
        seed: Int. It fixes the training images, their order, the initial weights and the masks.
        augment: Str, as for `load_data`; empty for none.
        decay: Float, the weight decay of AdamW.
        schedule: Str, a pattern and a rate schedule, such as `"dense* late:0.3"`; empty for fixed rates.
        members: Int, the number of networks of an ensemble.
    """

    data: str
    images: int
    network: str
    plan: str
    epochs: int
    learning_rate: float
    seed: int
    augment: str = ""
    decay: float = 1e-4
    schedule: str = ""
    members: int = 1

    @property
    def drops(self) -> bool:
        """Whether anything is dropped."""
        return self.plan != "none"

    @property
    def is_tuning(self) -> bool:
        """Whether the job serves a choice, so that it may not see the test images."""
        return self.seed >= TUNING

    @property
    def dropout(self) -> dict[str, Any] | None:
        """The plan as `build_model` takes it."""
        return pairs(self.plan) if self.drops else None

    def with_seed(self, seed: int) -> "Job":
        return replace(self, seed=seed)

    def __str__(self) -> str:
        extras = [self.augment, self.schedule, f"{self.members} members" if self.members > 1 else ""]
        extras += [f"decay {self.decay:g}"] if self.decay != 1e-4 else []
        words = [f"{self.data} {self.images}", self.network, self.plan, *filter(None, extras)]
        return ", ".join([*words, f"{self.epochs} epochs at {self.learning_rate:g}, seed {self.seed}"])


FIELDS = tuple(field.name for field in fields(Job))
_TYPES = {field.name: field.type for field in fields(Job)}


def pairs(text: str) -> dict[str, Any]:
    """Returns the dict from patterns to specs of a text such as `"module? 0.2 + dense* 0.5"`."""
    found = {}
    for part in text.split(" + "):
        pattern, _, spec = part.partition(" ")
        found[pattern] = float(spec) if spec.replace(".", "").isdigit() else spec
    return found


def job_of(row: Row) -> Job:
    """Returns the job of a row."""
    return Job(**{name: row[name] for name in FIELDS})


def measures_of(row: Row) -> set[str]:
    """Returns what was measured after the training of a row."""
    return set(row["measures"].split("+"))


def read(path: Path) -> dict[Job, Row]:
    """Returns the rows of a file by their jobs; none if there is no such file."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = [{name: _value(name, text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    rows = [{"augment": "", "schedule": "", **row} for row in rows]
    return {job_of(row): row for row in rows}


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows to a file, whole or not at all, in an order that does not depend on when they were made."""
    rows = sorted(rows, key=lambda row: [row[name] for name in FIELDS])
    measured = sorted({name for row in rows for name in row} - {*FIELDS, "measures", "seconds"})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [*FIELDS, "measures", "seconds", *measured])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def row_of(job: Job, measures: Iterable[str], seconds: float, figures: Figures) -> Row:
    """Returns the row of a job that has ended."""
    head = {name: getattr(job, name) for name in FIELDS}
    rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
    return {**head, "measures": "+".join(sorted(measures)), "seconds": round(seconds, 1), **rounded}


def _value(name: str, text: str) -> Any:
    if name == "measures":
        return text
    kind = _TYPES.get(name, float)
    return kind(text)
