"""The results of a sweep: candidates with their intervals, effects against no dropout, and what mattered."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from scipy import stats

from dropzoo.runs.config import RunConfig
from dropzoo.runs.figures import Figures, label, score_name
from dropzoo.sweep.trials import Axes, Outcome, Record

#: The axes of a space, in the order in which they are shown.
AXES = tuple(field.name for field in dataclasses.fields(Axes))
# Below this score on the training images, a network is far from having fitted them.
_FITTED = 0.95
HIGHER_IS_BETTER = ("accuracy", "mean_iou")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean of `count` runs, half the width of its 95 % interval, and its standard error.

    A single run has neither: `half` and `error` are None.
    """

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


def figure(figures: Figures, name: str) -> float:
    """Returns a figure by its name; NaN if it is missing or was not finite."""
    value = cast(float | None, figures.get(name))
    return math.nan if value is None else value


def interval(values: Iterable[float], folds: int = 0) -> Interval:
    """Returns Student's t interval of a mean over seeds.

    The training sets of a cross-validation overlap, so its runs are not independent. The variance of their
    mean is `1 / n + 1 / (folds - 1)` times that of a run, instead of `1 / n`.

    Args:
        values: Floats, one for each run.
        folds: Int, the number of parts of the cross-validation; 0 for none.

    Returns:
        The mean with its 95 % interval.

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
    """Returns text such as `0.912 ± 0.004`, or the mean alone."""
    if math.isnan(found.mean):
        return "-"
    spread = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{found.mean:.{digits}f}{spread}"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The records of all seeds and folds of one config."""

    records: list[Record]

    @property
    def axes(self) -> Axes:
        """The place of the config in the space."""
        return self.records[0].trial.axes

    @property
    def config(self) -> RunConfig:
        """The config, with the first seed and fold."""
        return self.records[0].trial.config

    @property
    def epochs(self) -> int:
        """The epochs of each training run."""
        return self.config.epochs

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is dropped."""
        return self.axes.is_baseline

    @property
    def scored(self) -> list[Record]:
        """The records of the trials that succeeded."""
        return [record for record in self.records if not record.error]

    @property
    def outcomes(self) -> list[Outcome]:
        """The figures of the trials that succeeded."""
        return [record.outcome for record in self.scored]

    @property
    def score(self) -> str:
        """Name of the score: `"mean_iou"` or `"accuracy"`."""
        return next((score_name(outcome.validation) for outcome in self.outcomes), "accuracy")

    @property
    def label(self) -> str:
        """The dropout in words, then the other regularisers that are not at their defaults."""
        axes = self.axes
        if self.is_baseline:
            parts = ["no dropout"]
        elif axes.spec == "plan":
            parts = [f"plan {axes.sites}"]
        else:
            parts = [f"{axes.sites} {axes.spec} {axes.rate:g}"]
            parts += [axes.rate_schedule] * (axes.rate_schedule != "constant")
        usual = {"normalization": "own", "augment": "none", "weight_decay": "own", "label_smoothing": 0.0}
        usual |= {"recipe": "own"}
        values = {name: getattr(axes, name) for name in usual}
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in values.items() if value != usual[name]]
        return ", ".join(parts)

    @property
    def full_label(self) -> str:
        """The label with the model."""
        return f"{self.axes.model}: {self.label}"

    def values(self, metric: str, images: str = "validation") -> dict[tuple[Any, ...], float]:
        """Returns a metric by seed and fold.

        Args:
            metric: Str, the name of a figure; `"gap"` is the score on the training images minus that on validation
                images.
            images: `"validation"`, `"train"` or `"test"`.
        """
        found = {}
        for record in self.scored:
            outcome, config = record.outcome, record.trial.config
            if metric == "gap":
                value = figure(outcome.train, self.score) - figure(outcome.validation, self.score)
            else:
                value = figure(getattr(outcome, images), metric)
            if not math.isnan(value):
                found[config.seed, config.fold or ()] = value
        return found

    def interval(self, metric: str, images: str = "validation") -> Interval:
        """Returns the mean of a metric over seeds and folds, with its interval."""
        return interval(self.values(metric, images).values(), self.folds)

    @property
    def underfits(self) -> bool:
        """Whether the training images are far from fitted, while the gap to the validation images is small."""
        train, gap = self.interval(self.score, "train").mean, self.interval("gap").mean
        return bool(train < _FITTED and gap < (1 - train) / 2)  # no comparison with NaN is true

    @property
    def ends_at_its_best(self) -> bool:
        """Whether the validation NLL was lowest at the last of several epochs, in most of the training runs."""
        curves = [outcome.curves.get("val_nll", []) for outcome in self.outcomes]
        last = [len(curve) > 1 and curve[-1] < min(curve[:-1]) for curve in curves]
        return 2 * sum(last) > len(last)

    @property
    def folds(self) -> int:
        """Number of parts of the cross-validation; 0 for none."""
        return (self.config.fold or (0, 0))[1]

    @property
    def simplicity(self) -> tuple[Any, ...]:
        """A key that sorts simpler plans first: fewer patterns, a fixed rate, fewer regularisers, a lower rate."""
        axes, dropout = self.axes, self.config.dropout
        sites = 0 if self.is_baseline else len(dropout) if isinstance(dropout, dict) else 1
        regularisers = (axes.normalization, axes.augment, axes.weight_decay, axes.label_smoothing, axes.recipe)
        others = sum(value not in ("own", "none", 0.0) for value in regularisers)
        return sites, axes.rate_schedule != "constant", others, axes.spec != "dropout", axes.rate or 0.0


def names(found: list[Candidate]) -> list[str]:
    """Returns the labels of candidates, with the models if there are several."""
    several = len({candidate.axes.model for candidate in found}) > 1
    return [candidate.full_label if several else candidate.label for candidate in found]


def ranking_metric(records: Iterable[Record]) -> str:
    """Returns the figure that plans are compared by: the calibrated NLL, or the NLL if a trial lacks it."""
    scored = [record for record in records if not record.error]
    have = all("calibrated_nll" in record.outcome.validation for record in scored)
    return "calibrated_nll" if scored and have else "nll"


def candidates(records: Sequence[Record], metric: str | None = None) -> list[Candidate]:
    """Groups records by config.

    Args:
        records: Records of one sweep.
        metric: Str, the figure on the validation images to sort by; None for `ranking_metric`.

    Returns:
        The candidates. Those trained longest are first; among these, those with failed trials are last, and the
        others go from the best to the worst.
    """
    metric = metric or ranking_metric(records)
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.trial.candidate, []).append(record)
    found = [Candidate(group) for group in groups.values()]

    def order(candidate: Candidate) -> tuple[Any, ...]:
        mean = candidate.interval(metric).mean
        signed = -mean if metric in HIGHER_IS_BETTER else mean
        # If trials of a candidate failed, its mean is that of the lucky ones.
        failed = len(candidate.scored) < len(candidate.records)
        return -candidate.epochs, failed, math.isnan(mean), 0.0 if math.isnan(mean) else signed

    return sorted(found, key=order)


def difference(one: Candidate, other: Candidate, metric: str, images: str = "validation") -> Interval:
    """Returns the mean of `one` minus `other`, over the seeds and folds that both have.

    With the same seed and fold, both start alike.
    """
    mine, theirs = one.values(metric, images), other.values(metric, images)
    return interval([mine[key] - theirs[key] for key in mine if key in theirs], one.folds)


def baseline_of(candidate: Candidate, found: list[Candidate]) -> Candidate | None:
    """Returns the candidate that is the same without dropout; None if it was not run."""
    wanted = candidate.axes.baseline
    return next((c for c in found if c.axes == wanted and c.epochs == candidate.epochs), None)


def title(metric: str) -> str:
    """Returns a metric's name for a column or an axis."""
    return "train-validation gap" if metric == "gap" else label(metric)


def what_mattered(found: list[Candidate], metric: str) -> dict[str, float]:
    """Returns the share of a metric's variance over all runs that each axis explains alone.

    These are the main effects of a functional ANOVA: an additive model of the axes, the seeds and the folds,
    fitted by least squares. The rest, `"interactions and noise"`, is not a sum of single axes.

    Args:
        found: The candidates.
        metric: Str, a figure on the validation images.

    Returns:
        Dict of shares by axis, the largest first, with `"interactions and noise"` last; empty if nothing varies.

    Reference:
        Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import OneHotEncoder

    rows, target = [], []
    for candidate in found:
        for (seed, fold), value in candidate.values(metric).items():
            rows.append([*(str(getattr(candidate.axes, name)) for name in AXES), str(seed), str(fold)])
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
