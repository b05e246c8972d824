"""What a sweep found: candidates with their intervals, effects against no dropout, and what mattered."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import stats

from dropzoo.runs.figures import LABELS
from dropzoo.runs.run import RunConfig
from dropzoo.sweep.space import Trial

#: The axes of a space, in the order they are shown.
AXES = (
    *("model", "sites", "variant", "rate", "schedule"),
    *("normalization", "augment", "weight_decay", "label_smoothing"),
)
_OTHERS = ("model", "normalization", "augment", "weight_decay", "label_smoothing")
HIGHER_IS_BETTER = ("accuracy", "mean_iou")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean of `count` runs, with its 95 % interval and standard error: None for a single run."""

    mean: float
    count: int
    half: float | None
    error: float | None

    @property
    def low(self) -> float:
        return -math.inf if self.half is None else self.mean - self.half

    @property
    def high(self) -> float:
        return math.inf if self.half is None else self.mean + self.half


def interval(values: Iterable[float], folds: int = 0) -> Interval:
    """Student's t interval of a mean over seeds.

    The training sets of a cross-validation overlap, so its runs are not independent: there the variance of the
    mean is `(1 / n + 1 / (folds - 1))` times that of a run and not `1 / n`.

    Reference:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    data = np.array(list(values), float)
    if len(data) < 2:
        return Interval(float(data.mean()) if len(data) else math.nan, len(data), None, None)
    error = data.std(ddof=1) * math.sqrt(1 / len(data) + (1 / (folds - 1) if folds else 0))
    half = float(stats.t.ppf(0.975, len(data) - 1) * error)
    return Interval(float(data.mean()), len(data), half, float(error))


def interval_text(found: Interval, digits: int = 3) -> str:
    """`0.912 ± 0.004`, or the mean alone."""
    if math.isnan(found.mean):
        return "-"
    spread = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{found.mean:.{digits}f}{spread}"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The records of all seeds and folds of one config."""

    records: list[dict[str, Any]]

    @property
    def axes(self) -> dict[str, Any]:
        return self.records[0]["axes"]

    @property
    def config(self) -> RunConfig:
        return run_config(self.records[0])

    @property
    def epochs(self) -> int:
        return self.records[0]["config"]["epochs"]

    @property
    def is_baseline(self) -> bool:
        return self.axes["sites"] == "none"

    @property
    def others(self) -> tuple[Any, ...]:
        """All but the dropout: what its baseline has too."""
        return tuple(self.axes[name] for name in _OTHERS)

    @property
    def scored(self) -> list[dict[str, Any]]:
        return [record for record in self.records if "error" not in record]

    @property
    def label(self) -> str:
        """In words: the dropout, then the other regularisers that are not at their defaults."""
        axes = self.axes
        if self.is_baseline:
            parts = ["no dropout"]
        elif axes["variant"] == "plan":
            parts = [f"plan {axes['sites']}"]
        else:
            parts = [f"{axes['sites']} {axes['variant']} {axes['rate']:g}"]
            parts += [axes["schedule"]] * (axes["schedule"] != "constant")
        plain = {"normalization": "own", "augment": "none", "weight_decay": "own", "label_smoothing": 0.0}
        parts += [f"{n.replace('_', ' ')} {axes[n]}" for n, usual in plain.items() if axes[n] != usual]
        return ", ".join(parts)

    @property
    def full_label(self) -> str:
        """With the model."""
        return f"{self.axes['model']}: {self.label}"

    def values(self, metric: str, images: str = "validation") -> dict[tuple[Any, ...], float]:
        """By seed and fold; the `gap` is the training images' score less the validation images'."""
        found = {}
        for record in self.scored:
            if metric == "gap":
                name = score_name([record])
                value = record["train"][name] - record["validation"][name]
            else:
                value = record.get(images, {}).get(metric)
            if value is not None:
                found[record["config"]["seed"], tuple(record["config"]["fold"] or ())] = value
        return found

    def interval(self, metric: str, images: str = "validation") -> Interval:
        return interval(self.values(metric, images).values(), self.folds)

    @property
    def folds(self) -> int:
        return (self.records[0]["config"]["fold"] or (0, 0))[1]

    @property
    def simplicity(self) -> tuple[Any, ...]:
        """Less is simpler: no dropout, few patterns, a fixed rate, fewer other regularisers, plain, a low rate."""
        axes = self.axes
        if self.is_baseline:
            sites = 0
        else:
            sites = 1 if isinstance(self.config.dropout, (str, float, int)) else len(self.config.dropout)
        others = sum(axes[name] not in ("own", "none", 0.0) for name in _OTHERS[1:])
        return sites, axes["schedule"] != "constant", others, axes["variant"] != "dropout", axes["rate"] or 0.0


def names(found: list[Candidate]) -> list[str]:
    """Their labels, with the models where there are several."""
    several = len({candidate.axes["model"] for candidate in found}) > 1
    return [candidate.full_label if several else candidate.label for candidate in found]


def candidates(records: Iterable[dict[str, Any]], metric: str = "nll") -> list[Candidate]:
    """The candidates that were trained longest, the best on the validation images first; failed ones last."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(Trial(axes=record["axes"], config=run_config(record)).candidate, []).append(record)
    found = [Candidate(group) for group in groups.values()]

    def order(candidate: Candidate) -> tuple[Any, ...]:
        mean = candidate.interval(metric).mean
        signed = -mean if metric in HIGHER_IS_BETTER else mean
        # The mean of a candidate of which trials failed is that of the lucky ones.
        failed = len(candidate.scored) < len(candidate.records)
        return -candidate.epochs, failed, math.isnan(mean), 0.0 if math.isnan(mean) else signed

    return sorted(found, key=order)


def difference(one: Candidate, other: Candidate, metric: str, images: str = "validation") -> Interval:
    """`one` less `other` over the seeds and folds that both have: pairs that start and split alike."""
    mine, theirs = one.values(metric, images), other.values(metric, images)
    return interval([mine[key] - theirs[key] for key in mine if key in theirs], one.folds)


def baseline_of(candidate: Candidate, found: list[Candidate]) -> Candidate | None:
    """The candidate that differs in having no dropout."""
    same = (c for c in found if c.is_baseline and c.others == candidate.others and c.epochs == candidate.epochs)
    return next(same, None)


def run_config(record: dict[str, Any]) -> RunConfig:
    config = dict(record["config"])
    return RunConfig(**{**config, "fold": config["fold"] and tuple(config["fold"])})


def score_name(records: list[dict[str, Any]]) -> str:
    """Mean IoU where there are masks, or else accuracy."""
    dense = any("mean_iou" in record.get("validation", {}) for record in records)
    return "mean_iou" if dense else "accuracy"


def title(metric: str) -> str:
    """Of a column or an axis."""
    return {**LABELS, "gap": "train-validation gap"}.get(metric, metric)


def what_mattered(found: list[Candidate], metric: str = "nll") -> dict[str, float]:
    """Of each axis the share of the variance of a metric over all runs that it explains by itself.

    The main effects of a functional ANOVA: an additive model of the axes, the seeds and the folds, fitted by least
    squares. What is left over, `"interactions and noise"`, is not the sum of single axes.

    Reference:
        Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import OneHotEncoder

    rows, target = [], []
    for candidate in found:
        for (seed, fold), value in candidate.values(metric).items():
            rows.append([*(str(candidate.axes[name]) for name in AXES), str(seed), str(fold)])
            target.append(value)
    names = [*AXES, "seed", "fold"]
    table, y = np.array(rows, dtype=object), np.array(target)
    varied = [i for i in range(len(names)) if len(rows) and len(set(table[:, i])) > 1]
    if not varied or len(y) < 3 or y.var() == 0:
        return {}
    encoder = OneHotEncoder(sparse_output=False)
    coded = encoder.fit_transform(table[:, varied])
    fitted = LinearRegression().fit(coded - coded.mean(0), y)
    shares, column = {}, 0
    for i, values in zip(varied, encoder.categories_, strict=True):
        columns = slice(column, column + len(values))
        column += len(values)
        shares[names[i].replace("_", " ")] = float((coded[:, columns] @ fitted.coef_[columns]).var() / y.var())
    rest = 1 - float(fitted.score(coded - coded.mean(0), y))
    shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return {**shares, "interactions and noise": rest}
