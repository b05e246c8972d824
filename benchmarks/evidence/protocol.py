"""The protocol: each condition at its best, chosen on validation images; then seeds, and paired differences.

A condition is tried with the tuning seeds along its grid, one axis after the other: the plans, the learning rates,
the epochs. The setting with the lowest calibrated NLL on the validation images is trained with the seeds of the
setting, and only these trainings see the test images.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jobs import TUNING, Job, Row
from scipy import stats

from dropzoo.sweep.stats import Interval, interval

TUNING_SEEDS = (TUNING, TUNING + 1)
LEVEL = 0.05
#: Differences within these bands are too small to matter, whatever their sign. Others have no band.
BANDS = {"score": 0.005, "nll": 0.01, "ece": 0.005}
VERDICTS = ("holds", "the opposite", "too small to matter", "not shown")
Rows = Mapping[Job, Row]


@dataclass(frozen=True)
class Setting:
    """Data, their number, a network, and the grid that all conditions share.

    Attributes:
        name: Str, for the page.
        data: Str, see `networks.py`.
        images: Int, the number of training images.
        network: Str, see `networks.py`.
        epochs: Int, the longest training of the grid. A quarter of it is the other choice.
        learning_rates: Tuple of floats; the first one is used while plans are chosen.
        seeds: Int, the number of seeds: ten where a training takes under a minute, five elsewhere.
        augment: Str, the augmentation of all conditions, as for `load_data`.
    """

    name: str
    data: str
    images: int
    network: str
    epochs: int
    learning_rates: tuple[float, ...] = (2e-3, 5e-4)
    seeds: int = 10
    augment: str = ""


@dataclass(frozen=True)
class Condition:
    """One of the conditions that a claim compares within a setting.

    Attributes:
        name: Str, for the page.
        plans: Tuple of the plans to choose from, see `Job`.
        changes: Dict of fields of `Job` in which the condition differs from its setting.
        measures: Tuple of further measures, see `measures.py`.
        fixed: Bool. Whether the first plan, learning rate and number of epochs are used without a choice.
        doubles: Bool. Whether the choice is also tried with twice the epochs, to see whether it was long enough.
        like: The condition whose choice is taken over, with `changes`; None for a choice of its own.
        share: Int. The chosen number of epochs is divided by it; so an ensemble costs as much as one network.
    """

    name: str
    plans: tuple[str, ...] = ("none",)
    changes: tuple[tuple[str, Any], ...] = ()
    measures: tuple[str, ...] = ()
    fixed: bool = False
    doubles: bool = False
    like: "Condition | None" = None
    share: int = 1

    def job(self, setting: Setting) -> Job:
        """Returns the job that the choice starts from: the plan in the middle, with the first tuning seed."""
        fields: dict[str, Any] = {name: getattr(setting, name) for name in ("data", "images", "network", "epochs")}
        fields |= {"learning_rate": setting.learning_rates[0], "augment": setting.augment, "seed": TUNING}
        plan = self.plans[0 if self.fixed else len(self.plans) // 2]
        return Job(**{**fields, "plan": plan, **dict(self.changes)})


@dataclass(frozen=True)
class Choice:
    """How far the choice of a condition is.

    Attributes:
        chosen: The best job so far.
        left: Tuple of the trainings that the next step of the choice needs; empty if it is done.
        later: Int, the number of trainings of the steps after that.
        tried: Tuple of `(job, calibrated NLL)` of all that was tried.
        doubled: The change of the NLL by twice the epochs, and the standard error of the NLL; None if not tried.
    """

    chosen: Job
    left: tuple[Job, ...] = ()
    later: int = 0
    tried: tuple[tuple[Job, float], ...] = ()
    doubled: tuple[float, float] | None = None

    @property
    def done(self) -> bool:
        return not self.left


def criterion(job: Job, rows: Rows) -> float:
    """Returns the NLL on validation images, with temperature: of samples if there are any, else of one pass."""
    found = []
    for seed in TUNING_SEEDS:
        row = rows[job.with_seed(seed)]
        found.append(row.get("val_nll_mc_t", row.get("val_nll_one_t", float("nan"))))
    return float(np.mean(found))


def choose(setting: Setting, condition: Condition, rows: Rows) -> Choice:
    """Returns how far the choice of a condition is, from the rows of its tuning seeds."""
    if condition.like is not None:
        choice = choose(setting, condition.like, rows)
        epochs = max(1, choice.chosen.epochs // condition.share)
        return replace(choice, chosen=replace(choice.chosen, **{"epochs": epochs, **dict(condition.changes)}))
    best = condition.job(setting)
    if condition.fixed:
        return Choice(best)
    axes: list[tuple[str, tuple[Any, ...]]] = [("plan", condition.plans)] if len(condition.plans) > 1 else []
    axes += [("learning_rate", setting.learning_rates), ("epochs", (best.epochs, best.epochs // 4))]
    tried: dict[Job, float] = {}
    for place, (name, values) in enumerate(axes):
        jobs = [replace(best, **{name: value}) for value in values]
        left = _left(jobs, rows)
        if left:
            after = sum(len(values) - 1 for _, values in axes[place + 1 :]) + condition.doubles
            return Choice(best, left, after * len(TUNING_SEEDS), tuple(tried.items()))
        tried |= {job: criterion(job, rows) for job in jobs}
        best = min(jobs, key=lambda job: tried[job] if np.isfinite(tried[job]) else np.inf)
    if not condition.doubles:
        return Choice(best, (), 0, tuple(tried.items()))
    longer = replace(best, epochs=2 * best.epochs)
    left = _left([longer], rows)
    if left:
        return Choice(best, left, 0, tuple(tried.items()))
    tried[longer] = criterion(longer, rows)
    errors = [rows[best.with_seed(seed)] for seed in TUNING_SEEDS]
    error = float(np.mean([row.get("val_nll_se_mc_t", row.get("val_nll_se_one_t")) for row in errors]))
    change = tried[longer] - tried[best]
    if change < -error:  # longer is better by more than the standard error, so it is the choice
        return Choice(longer, (), 0, tuple(tried.items()), (change, error))
    return Choice(best, (), 0, tuple(tried.items()), (change, error))


def _left(jobs: Iterable[Job], rows: Rows) -> tuple[Job, ...]:
    both = [job.with_seed(seed) for seed in TUNING_SEEDS for job in jobs]
    return tuple(job for job in dict.fromkeys(both) if job not in rows)


@dataclass(frozen=True)
class Statement:
    """A statement that may hold: the figure of one condition is larger, or smaller, than that of another.

    Attributes:
        text: Str, the statement in words.
        figure: Str, a column of the rows. `"nll"`, `"ece"` and `"score"` alone mean the best way that a condition
            has: samples with temperature with dropout, one pass with temperature without.
        condition: Str, the condition that the statement is about.
        against: Str, the condition that it is compared with, seed by seed; `""` to compare with zero.
        sign: 1 if the figure should be larger, -1 if it should be smaller.
        other_figure: Str, the column of `against`, if it is another one.
        settings: Tuple of names of settings to look at; () for all that have both conditions.
    """

    text: str
    figure: str
    condition: str
    against: str
    sign: int
    other_figure: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A claim, how it is tried, and the statements that it consists of.

    Attributes:
        number: Int from 1 up; 0 for the positive control.
        text: Str, the claim.
        method: Str, how it is tried, in a sentence or two.
        trials: Tuple of pairs of a setting and the conditions that are tried in it.
        statements: Tuple of the statements that make up the claim.
        before: Str, what version 1 of the page did or found, as a predicate: "found the opposite."
        shown: Tuple of the columns that its tables show beside the usual ones.
    """

    number: int
    text: str
    method: str
    trials: tuple[tuple[Setting, tuple[Condition, ...]], ...]
    statements: tuple[Statement, ...]
    before: str = ""
    shown: tuple[str, ...] = field(default=())

    def each(self) -> Iterator[tuple[Setting, Condition]]:
        """Iterates over the conditions of all settings."""
        for setting, conditions in self.trials:
            for condition in conditions:
                yield setting, condition


def value_of(row: Row, figure: str) -> float:
    """Returns a figure of a row; NaN if it has none. `"gap"` is training accuracy minus that of one pass."""
    if figure == "gap":
        return float(row.get("train_score", float("nan")) - row.get("score_one", float("nan")))
    if figure in row:
        return float(row[figure])
    return float(row.get(f"{figure}_mc_t", row.get(f"{figure}_one_t", float("nan"))))


def found_rows(setting: Setting, condition: Condition, rows: Rows) -> dict[int, Row]:
    """Returns the rows of a condition with the test figures, by seed; none before the choice is made."""
    choice = choose(setting, condition, rows)
    jobs = {seed: choice.chosen.with_seed(seed) for seed in range(setting.seeds)} if choice.done else {}
    return {seed: rows[job] for seed, job in jobs.items() if job in rows}


@dataclass(frozen=True)
class Effect:
    """The effect of one statement in one setting.

    Attributes:
        statement: The statement.
        setting: The setting.
        difference: The mean of the paired differences with its 95 % interval.
        p: Float, the p-value of Student's test, adjusted by Holm's method over the claim.
        seeds: Int, the number of pairs.
        verdict: One of `VERDICTS`.
    """

    statement: Statement
    setting: Setting
    difference: Interval
    p: float
    seeds: int
    verdict: str

    @property
    def words(self) -> str:
        """The difference with its interval, such as `+0.0120 ± 0.0040`."""
        return f"{self.difference.mean:+.4f} ± {self.difference.half or 0.0:.4f}"


def effects(claim: Claim, rows: Rows) -> list[Effect]:
    """Returns the effects of all statements of a claim in all settings that have rows for them."""
    found: list[tuple[Statement, Setting, list[float]]] = []
    for statement in claim.statements:
        for setting, conditions in claim.trials:
            if statement.settings and setting.name not in statement.settings:
                continue
            pairs = _differences(statement, setting, {each.name: each for each in conditions}, rows)
            if len(pairs) > 1:
                found.append((statement, setting, pairs))
    adjusted = holm([_p_value(pairs) for _, _, pairs in found])
    return [
        Effect(statement, setting, interval(pairs), p, len(pairs), verdict(statement, interval(pairs), p))
        for (statement, setting, pairs), p in zip(found, adjusted, strict=True)
    ]


def _differences(
    statement: Statement, setting: Setting, conditions: Mapping[str, Condition], rows: Rows
) -> list[float]:
    """Returns the differences seed by seed: the runs of a seed start alike and see the same images."""
    if not {statement.condition, statement.against} - {""} <= set(conditions):
        return []
    mine = found_rows(setting, conditions[statement.condition], rows)
    values = {seed: value_of(row, statement.figure) for seed, row in mine.items()}
    if statement.against:
        others = found_rows(setting, conditions[statement.against], rows)
        figure = statement.other_figure or statement.figure
        values = {s: value - value_of(others[s], figure) for s, value in values.items() if s in others}
    return [value for value in values.values() if np.isfinite(value)]


def _p_value(pairs: list[float]) -> float:
    if np.std(pairs) < 1e-12:
        return 1.0 if abs(pairs[0]) < 1e-12 else 0.0
    return float(stats.ttest_1samp(pairs, 0.0).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Returns p-values adjusted for their number, in the same order.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = np.ones(len(p_values)), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted.tolist()


def band_of(figure: str) -> float:
    """Returns the band of a figure within which a difference is too small to matter; 0 if it has none."""
    name = figure.removeprefix("worse_")
    if "score" in name.split("_") or name.startswith("without_"):  # also on training or damaged images
        return BANDS["score"]
    return BANDS.get(name.partition("_")[0], 0.0)


def verdict(statement: Statement, difference: Interval, p: float) -> str:
    """Returns the verdict on a statement."""
    half = difference.half or 0.0
    if max(abs(difference.mean - half), abs(difference.mean + half)) <= band_of(statement.figure):
        return "too small to matter"
    if p >= LEVEL:
        return "not shown"
    return "holds" if difference.mean * statement.sign > 0 else "the opposite"
