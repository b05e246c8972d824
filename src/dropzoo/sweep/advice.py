"""A plan read off a sweep's file: the simplest that is about as good as the best, with its evidence."""

import dataclasses
import shlex
from collections.abc import Iterable
from typing import Any

from dropzoo import layers
from dropzoo.common.checks import unknown
from dropzoo.runs.run import RunConfig
from dropzoo.sweep.stats import (
    HIGHER_IS_BETTER,
    Candidate,
    Interval,
    baseline_of,
    candidates,
    difference,
    interval_text,
    score_name,
    title,
)

METRICS = ("nll", "accuracy", "mean_iou", "brier", "ece")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A plan, and why.

    Attributes:
        chosen: the simplest candidate within one standard error of the best.
        best: on the validation images.
        baseline: the chosen one without dropout; None where it was not run.
        effect: chosen less baseline, of the metric on validation images; None without another baseline.
        test_effect: the same on test images, which no choice has seen.
        runner_up: the best candidate with dropout, where the best has none.
        compared: how many candidates.
        partly_failed: how many more were left out, since some of their trials failed.
    """

    metric: str
    chosen: Candidate
    best: Candidate
    baseline: Candidate | None
    effect: Interval | None
    test_effect: Interval | None
    runner_up: Candidate | None
    compared: int
    partly_failed: int

    @property
    def within_noise(self) -> bool:
        """Whether no difference from no dropout is shown."""
        return self.effect is None or self.effect.low <= 0 <= self.effect.high


def recommend(records: Iterable[dict[str, Any]], metric: str = "nll") -> Recommendation:
    """The simplest candidate whose mean is within one standard error of the best one's.

    The standard error is that of the paired difference to the best, over seeds and folds.

    Raises:
        ValueError: without a trial that succeeded.

    Reference:
        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3, for the rule.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    records = list(records)
    found = [c for c in candidates(records, metric) if c.scored]
    # Of a sweep by halving that is not done, the last round may hold no more than baselines.
    epochs = max((c.epochs for c in found if not c.is_baseline), default=found[0].epochs if found else 0)
    found = [c for c in found if c.epochs == epochs]
    whole = [c for c in found if len(c.scored) == len(c.records)]
    ranked = whole or found
    if not ranked or not ranked[0].values(metric):
        raise ValueError(f"There is nothing to recommend: {_why_not(records, metric)}")
    best = ranked[0]
    sign = -1 if metric in HIGHER_IS_BETTER else 1

    def is_near(candidate: Candidate) -> bool:
        worse = difference(candidate, best, metric)
        return candidate is best or (worse.error is not None and sign * worse.mean <= worse.error)

    chosen = min((c for c in ranked if is_near(c)), key=lambda c: c.simplicity)
    baseline = baseline_of(chosen, ranked)
    against = None if baseline is None or chosen.is_baseline else baseline
    return Recommendation(
        metric=metric,
        chosen=chosen,
        best=best,
        baseline=baseline,
        effect=against and difference(chosen, against, metric),
        test_effect=against and difference(chosen, against, metric, "test"),
        runner_up=next((c for c in ranked if not c.is_baseline), None),
        compared=len(ranked),
        partly_failed=len(found) - len(ranked),
    )


def _why_not(records: list[dict[str, Any]], metric: str) -> str:
    if not records:
        return "no trial of this sweep has ended yet"
    if all("error" in record for record in records):
        return f"all {len(records)} trials have failed, the first with {records[0]['error'].splitlines()[0][:200]}"
    have = (m for m in METRICS if any(m in record.get("validation", {}) for record in records))
    return f"its trials have no {metric!r}; they have {', '.join(have)}"


def in_words(found: Recommendation) -> list[str]:
    """The evidence, a sentence a line."""
    chosen, metric = found.chosen, found.metric
    name, score = title(metric), score_name(chosen.records)
    figures = [metric, *(m for m in (score, "ece") if m != metric)]
    values = ", ".join(f"{title(m)} {interval_text(chosen.interval(m))}" for m in figures)
    runs = len(chosen.scored)
    lines = [
        f"Recommended: {chosen.full_label}.",
        f"Validation images, {_runs(runs)} of {chosen.epochs} epochs: {values}.",
    ]
    if found.partly_failed:
        lines.append(f"Left out, since some of their trials failed: {found.partly_failed} others.")
    if found.effect is None and chosen.is_baseline:
        lines.append(_why_nothing(found))
    elif found.effect is None:
        lines.append("It was not run without dropout, so no effect of the dropout can be told.")
    else:
        lines.append(f"Against the same without dropout: {name} {_effect(found.effect)}.")
        if found.effect.half is None:
            lines.append(
                "One run of each tells nothing of the spread: sweep with --seeds 5 before you rely on it."
            )
        elif found.within_noise:
            lines.append("The interval includes 0: a difference from no dropout is not shown.")
        if found.test_effect and found.test_effect.count:
            lines.append(f"On the test images, which no choice has seen: {name} {_effect(found.test_effect)}.")
    if found.best is not chosen:
        best = f"{found.best.full_label}, {name} {interval_text(found.best.interval(metric))}"
        lines.append(
            f"The best mean is that of {best}; the recommended is simpler, and within one standard error."
        )
    if found.compared > 2:
        lines.append(
            f"Chosen among {found.compared} plans on the same validation images, which flatters the choice: the "
            "intervals do not allow for that."
        )
    return lines


def _why_nothing(found: Recommendation) -> str:
    rivals = found.best if found.best is not found.chosen else found.runner_up
    if rivals is None:
        return "No plan with dropout has succeeded."
    effect = _effect(difference(rivals, found.chosen, found.metric))
    rest = f"{rivals.full_label}: {title(found.metric)} {effect}"
    return f"No plan with dropout is better by more than one standard error; {rest}."


def _effect(found: Interval) -> str:
    if found.half is None:
        return f"{found.mean:+.4f}, of {_runs(found.count)}"
    return f"{found.mean:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, of {found.count} pairs"


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def train_command(config: RunConfig) -> str:
    """The line that trains this plan, with the seed that `dropzoo train` has by itself."""
    parts = ["dropzoo", "train", config.model, "--data", config.data]
    dropout = config.dropout
    if isinstance(dropout, dict):
        for pattern, spec in dropout.items():
            text = layers.describe(layers.get(spec)) if isinstance(spec, dict) else spec
            parts += ["--dropout", f"{pattern}={'none' if text is None else text}"]
    elif dropout is not None:
        parts += ["--dropout", str(dropout)]
    for pattern, schedule in (config.rate_schedule or {}).items():
        parts += ["--rate-schedule", f"{pattern}={schedule}"]
    for name, value in config.options.items():
        parts += ["--option", f"{name}={value}"]
    flags = {"channels": config.num_channels, "augment": "yes" if config.augment is True else config.augment}
    names = ("epochs", "batch_size", "learning_rate", "schedule", "image_size", "validation_split", "limit")
    flags |= {name: getattr(config, name) for name in (*names, "label_smoothing", "manual_dir", "data_dir")}
    usual = vars(RunConfig(model="", data="")) | {"channels": None}
    for name, value in flags.items():
        if value != usual[name]:
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)
