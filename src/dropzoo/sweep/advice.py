"""Recommends a plan from a sweep's records: the simplest that is about as good as the best, with its evidence."""

import dataclasses
from collections.abc import Iterable

from dropzoo import layers
from dropzoo.common.checks import unknown
from dropzoo.common.shell import join
from dropzoo.common.words import count_of
from dropzoo.runs.config import RunConfig
from dropzoo.runs.settings import Settings
from dropzoo.sweep.stats import (
    HIGHER_IS_BETTER,
    Candidate,
    Interval,
    baseline_of,
    candidates,
    difference,
    interval_text,
    ranking_metric,
    title,
)
from dropzoo.sweep.trials import Record

METRICS = ("calibrated_nll", "nll", "accuracy", "mean_iou", "brier", "ece")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A recommended plan, and the evidence for it.

    Args:
        metric: Str, the figure on the validation images that plans were compared by.
        chosen: The simplest candidate within one standard error of the best.
        best: The candidate with the best mean on the validation images.
        baseline: The chosen candidate without dropout; None if it was not run.
        effect: The metric of `chosen` minus that of `baseline` on validation images; None if `chosen` has no
            dropout or `baseline` was not run.
        test_effect: The same on test images, which play no part in the choice.
        runner_up: The best candidate with dropout; None if there is none.
        compared: Int, the number of candidates.
        partly_failed: Int, the number of candidates that were left out because some of their trials failed.
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
        """Whether the effect may be 0."""
        return self.effect is None or self.effect.low <= 0 <= self.effect.high


def recommend(records: Iterable[Record], metric: str | None = None) -> Recommendation:
    """Returns the simplest candidate whose mean is within one standard error of the best one's.

    The standard error is that of the paired difference to the best, over seeds and folds.

    Args:
        records: Records of one sweep.
        metric: Str, one of `METRICS`, a figure on the validation images. None means the calibrated NLL, in which a
            network does not win only because it is less overconfident; or the NLL if a record lacks it.

    Returns:
        The candidate and its evidence.

    Raises:
        ValueError: If no trial has succeeded, or the metric is unknown.

    Reference:
        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3, for the rule.
    """
    records = list(records)
    metric = ranking_metric(records) if metric is None else metric
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    found = [c for c in candidates(records, metric) if c.scored]
    # If a sweep by halving is not done, its last round may hold only baselines.
    epochs = max((c.epochs for c in found if not c.is_baseline), default=found[0].epochs if found else 0)
    found = [c for c in found if c.epochs == epochs]
    # A candidate with failed trials takes part only if all have some: its mean is that of the lucky trials.
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
        effect=None if against is None else difference(chosen, against, metric),
        test_effect=None if against is None else difference(chosen, against, metric, "test"),
        runner_up=next((c for c in ranked if not c.is_baseline), None),
        compared=len(ranked),
        partly_failed=len(found) - len(ranked),
    )


def _why_not(records: list[Record], metric: str) -> str:
    if not records:
        return "no trial of this sweep has ended yet"
    if all(record.error for record in records):
        which = (
            f"all {len(records)} trials have failed, the first"
            if len(records) > 1
            else "the only trial has failed,"
        )
        return f"{which} with {records[0].first_line}"
    have = (m for m in METRICS if any(m in record.outcome.validation for record in records))
    return f"its trials have no {metric!r}; they have {', '.join(have)}"


def in_words(found: Recommendation) -> list[str]:
    """Returns the evidence as lines of one or two sentences."""
    chosen, metric = found.chosen, found.metric
    name = title(metric)
    figures = [metric, *(m for m in (chosen.score, "ece") if m != metric)]
    values = ", ".join(f"{title(m)} {interval_text(chosen.interval(m))}" for m in figures)
    runs = len(chosen.scored)
    lines = [
        f"Recommended: {chosen.full_label}.",
        f"Validation images, {_runs(runs)} of {count_of(chosen.epochs, 'epoch')}: {values}.",
    ]
    if found.partly_failed:
        lines.append(f"Configurations left out because some of their trials failed: {found.partly_failed}.")
    if found.effect is None and chosen.is_baseline:
        lines.append(_why_nothing(found))
    elif found.effect is None:
        lines.append(
            "The same configuration was not run without dropout, so the effect of the dropout is unknown."
        )
    else:
        lines.append(f"Compared with the same configuration without dropout: {name} {_effect(found.effect)}.")
        if found.effect.half is None:
            lines.append(
                "One run of each says nothing about the spread: pass --seeds 5 to the sweep before you rely on "
                "this result."
            )
        elif found.within_noise:
            lines.append("The interval includes 0, so this does not show that the plan differs from no dropout.")
        if found.test_effect and found.test_effect.count:
            lines.append(
                f"On the test images, which played no part in the choice: {name} {_effect(found.test_effect)}."
            )
    if found.best is not chosen:
        best = f"{found.best.full_label}, {name} {interval_text(found.best.interval(metric))}"
        lines.append(
            f"The best mean is that of {best}; the recommended plan is simpler, and within one standard error."
        )
    lines += _was_it_long_enough(found)
    if found.compared > 2:
        lines.append(
            f"The plan was chosen among {found.compared} configurations on the same validation images, so its "
            "figures look better than they are. The intervals do not take this into account."
        )
    return lines


def _was_it_long_enough(found: Recommendation) -> list[str]:
    """Returns warnings of training runs that were too short to judge dropout by."""
    compared = [c for c in (found.baseline or found.chosen, found.runner_up) if c is not None]
    if (short := next((each for each in compared if each.underfits), None)) is not None:
        return [
            f'Warning: "{short.full_label}" underfits: after {count_of(short.epochs, "epoch")}, its training '
            f"{title(short.score)} is closer to the validation {title(short.score)} than to 1. Try more epochs "
            "before more dropout."
        ]
    if (short := next((each for each in compared if each.ends_at_its_best), None)) is not None:
        return [
            f"Warning: the validation NLL was lowest in the last of {short.epochs} epochs. Longer training may "
            "change which plan is best, since dropout needs more epochs: try twice as many."
        ]
    return []


def _why_nothing(found: Recommendation) -> str:
    rivals = found.best if found.best is not found.chosen else found.runner_up
    if rivals is None:
        return "No plan with dropout has succeeded."
    effect = _effect(difference(rivals, found.chosen, found.metric))
    rest = f"{rivals.full_label}: {title(found.metric)} {effect}"
    return f"No plan with dropout is better by more than one standard error; {rest}."


def _effect(found: Interval) -> str:
    if found.half is None:
        return f"{found.mean:+.4f}, from {count_of(found.count, 'pair')}"
    return f"{found.mean:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, from {found.count} pairs"


def _runs(count: int) -> str:
    return count_of(count, "run")


def train_command(config: RunConfig) -> str:
    """Returns the command that trains a plan, with the default seed of `dropzoo train`."""
    parts = ["dropzoo", "train", config.model, "--data", config.data]
    if isinstance(config.dropout, dict):
        for pattern, spec in config.dropout.items():
            text = layers.describe(layers.get(spec)) if isinstance(spec, dict) else spec
            parts += ["--dropout", f"{pattern}={'none' if text is None else text}"]
    elif config.dropout is not None:
        parts += ["--dropout", str(config.dropout)]
    for pattern, schedule in (config.rate_schedule or {}).items():
        parts += ["--rate-schedule", f"{pattern}={schedule}"]
    for name, value in config.options.items():
        parts += ["--option", f"{name}={value}"]
    usual = RunConfig(model="", data=config.data)
    flags = {field.name: f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings)}
    flags |= {"num_channels": "--channels", "label_smoothing": "--label-smoothing", "augment": "--augment"}
    for name, flag in flags.items():
        value = getattr(config, name)
        if value != getattr(usual, name):
            text = str(value) if not isinstance(value, bool) else "yes" if value else "none"
            parts += [flag] if name == "deep_supervision" else [flag, text]
    return join(parts)
