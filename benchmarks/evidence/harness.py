"""The parts that all experiments share: jobs that are run once and recorded, and effects with their intervals."""

import csv
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.figures import score_name
from dropzoo.sweep.stats import Interval, figure, interval
from dropzoo.sweep.trials import Outcome
from dropzoo.sweep.workbench import Workbench

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Folder of data sets that are not part of the project. Experiments on a set that is missing are skipped.
SHARED = HERE.parents[2] / "shared" / "data"
LABELS = ("setting", "condition", "seed")
Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One training, or several that belong together, with one seed.

    Attributes:
        setting: Str, the data and the network.
        condition: Str, one of the things that are compared within a setting.
        seed: Int, the seed.
        run: Function that does the job in a `Lab`. It returns the figures, or a dict of figures by condition if
            one training serves several conditions.
    """

    setting: str
    condition: str
    seed: int
    run: Callable[["Lab"], Figures | dict[str, Figures]]


@dataclass(frozen=True)
class Statement:
    """A statement that may hold: the figure of one condition is larger, or smaller, than that of another.

    Attributes:
        text: Str, the statement in words.
        figure: Str, the column of the figure.
        condition: Str, the condition that the statement is about.
        against: Str, the condition that it is compared with, seed by seed; "" to compare with zero.
        sign: 1 if the figure should be larger, -1 if it should be smaller.
        settings: Tuple of the settings to look at; () for all that have both conditions.
    """

    text: str
    figure: str
    condition: str
    against: str
    sign: int
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A claim that articles make, how it is tried, and the statements that it consists of.

    Attributes:
        number: Int from 1 up.
        name: Str, a word for the name of its file.
        text: Str, the claim.
        method: Str, how it is tried, in a sentence or two.
        jobs: Function from the seeds, and whether to be quick, to a list of jobs.
        statements: The statements that make up the claim.
        shown: Tuple of the figures that the table of means shows.
    """

    number: int
    name: str
    text: str
    method: str
    jobs: Callable[[Iterable[int], bool], list[Job]]
    statements: list[Statement]
    shown: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.number:02d}_{self.name}.csv"


class Lab:
    """Trains runs in one process; networks that differ in rates and seeds share their traces."""

    def __init__(self) -> None:
        self.bench = Workbench()

    def train(self, config: RunConfig) -> Outcome:
        """Trains a run and returns its figures; the trained model is `model`."""
        return self.bench.train(config)

    @property
    def model(self) -> keras.Model:
        return self.bench.model

    def info(self, config: RunConfig) -> training.DataInfo:
        return self.bench.load(config).info

    def test(self, config: RunConfig) -> tf.data.Dataset:
        return self.bench.load(config).test

    def train_set(self, config: RunConfig) -> tf.data.Dataset:
        return self.bench.load(config).at_epoch(0)


def usual(outcome: Outcome) -> Figures:
    """Returns the figures of a run that most experiments look at."""
    test, train = outcome.test, outcome.train
    name = score_name(test)
    score, train_score = figure(test, name), figure(train, name)
    return {
        "score": score,
        "nll": test["nll"],
        "ece": test["ece"],
        "train_score": train_score,
        "gap": train_score - score,
        "nll_gap": test["nll"] - train["nll"],
        "seconds": outcome.seconds,
    }


def plain(setting: str, condition: str, config: RunConfig, seed: int) -> Job:
    """Returns a job that trains once and gives the usual figures."""
    config = replace(config, seed=seed)
    return Job(setting, condition, seed, lambda lab: usual(lab.train(config)))


# The network of most experiments: small, and without batch normalisation unless that is the question.
CNN = {"filters": (16, 32), "dense": 64, "normalization": None}


def fashion(limit: int, epochs: int, **changes: Any) -> RunConfig:
    """Returns the config of a small CNN on `limit` images of Fashion-MNIST; 1,800 are kept for validation."""
    options = {**CNN, **changes.pop("options", {})}
    places = {"manual_dir": str(SHARED / "fashion_mnist"), "data_dir": os.environ.get("TFDS_DATA_DIR")}
    return RunConfig(
        model="simple_cnn",
        data="fashion_mnist",
        validation_split=0.03,
        limit=limit,
        epochs=epochs,
        options=options,
        **places,
        **changes,
    )


def digits(epochs: int, **changes: Any) -> RunConfig:
    """Returns the config of the same CNN on the 8x8 digits of scikit-learn."""
    options = {**CNN, **changes.pop("options", {})}
    return RunConfig(model="simple_cnn", data="digits", epochs=epochs, options=options, **changes)


def images(quick: bool, limit: int = 2000, epochs: int = 20, **changes: Any) -> tuple[str, RunConfig]:
    """Returns the setting of most experiments: Fashion-MNIST if it is there, or else the digits."""
    if quick or not has("fashion_mnist"):
        return "digits", digits(4 if quick else epochs, **changes)
    return f"fashion_mnist, {limit:,} images", fashion(limit, epochs, **changes)


def microscopy(name: str, epochs: int, **changes: Any) -> tuple[str, RunConfig]:
    """Returns a small U-Net on windows of `dsb2018_nuclei` or `isbi2012_membranes`; the last fifth is for tests.

    The last fifth of the membranes is slices 24 to 29. Neighbouring slices are alike, so a random fifth would be
    too easy.
    """
    config = RunConfig(
        model="unet",
        data=str(SHARED / name),
        options={"depth": 3, "filters": 8},
        augment="flip_horizontal,flip_vertical,crop=96",
        epochs=epochs,
        batch_size=8,
        learning_rate=2e-3,
        **changes,
    )
    return f"{name}, U-Net", config


def has(name: str) -> bool:
    """Returns whether a data set that is not part of the project is there."""
    return (SHARED / name).is_dir()


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of results; none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{k: v if k in LABELS[:2] else _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows to a file, whole or not at all, so that a killed run loses only the job that it was at."""
    columns = list(dict.fromkeys([*LABELS, *(key for row in rows for key in row)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def carry_out(claim: Claim, seeds: Iterable[int], quick: bool, folder: Path) -> list[dict[str, Any]]:
    """Runs the jobs of a claim that have no row yet, and writes the file after each of them."""
    path = folder / claim.file
    rows, lab = read(path), Lab()
    jobs = claim.jobs(seeds, quick)
    order = list(dict.fromkeys(job.setting for job in jobs))
    # The jobs of one condition follow each other, since they share their traces.
    jobs = sorted(jobs, key=lambda job: (order.index(job.setting), job.condition))
    done = {(row["setting"], row["condition"], row["seed"]) for row in rows}
    left = [job for job in jobs if (job.setting, job.condition, job.seed) not in done]
    start = time.perf_counter()
    for number, job in enumerate(left, start=1):
        found = job.run(lab)
        by_condition = found if isinstance(next(iter(found.values())), dict) else {job.condition: found}
        for condition, figures in by_condition.items():
            rounded = {name: round(float(value), 5) for name, value in figures.items()}
            rows.append({"setting": job.setting, "condition": condition, "seed": job.seed, **rounded})
        write(path, rows)
        eta = (time.perf_counter() - start) / number * (len(left) - number) / 60
        state = f"claim {claim.number}: {number}/{len(left)}, {eta:.0f} min left: {job.setting}, {job.condition}"
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{state:<100}", end=end, file=sys.stderr, flush=True)
    return rows


def settings(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the settings of rows, sorted by name; numbers in names are sorted as numbers."""

    def key(setting: str) -> tuple[str, list[int]]:
        numbers = re.findall(r"\d[\d,]*", setting)
        return re.sub(r"\d[\d,]*", "", setting), [int(number.replace(",", "") or 0) for number in numbers]

    return sorted({row["setting"] for row in rows}, key=key)


@dataclass(frozen=True)
class Effect:
    """The effect for one statement in one setting: the mean difference over seeds, and that over its spread."""

    setting: str
    interval: Interval
    cohens_d: float
    verdict: str


def effects(statement: Statement, rows: list[dict[str, Any]]) -> list[Effect]:
    """Returns the effect in each setting, from differences seed by seed.

    The runs of one seed start from the same weights and see the same images, so they are pairs.
    """
    found = []
    for setting in settings(rows):
        if statement.settings and setting not in statement.settings:
            continue
        one, other = (
            {
                row["seed"]: row.get(statement.figure, float("nan"))  # a column may be newer than the file
                for row in rows
                if (row["setting"], row["condition"]) == (setting, c)
            }
            for c in (statement.condition, statement.against)
        )
        other = other if statement.against else dict.fromkeys(one, 0.0)
        pairs = [one[seed] - other[seed] for seed in one if seed in other]
        pairs = [value for value in pairs if np.isfinite(value)]
        if len(pairs) < 2:
            continue
        difference = interval(pairs)
        spread = np.std(pairs, ddof=1)
        d = difference.mean / spread if spread else float("nan")
        low, high = sorted((statement.sign * difference.low, statement.sign * difference.high))
        verdict = "holds" if low > 0 else "the opposite" if high < 0 else "not shown"
        found.append(Effect(setting, difference, d, verdict))
    return found


def _number(text: str) -> float:
    return float("nan") if text in ("", "None") else float(text)
