"""The report of a sweep: one HTML page that needs no network, and the recommendation for a terminal."""

import dataclasses
import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure

from dropzoo.common.words import count_of
from dropzoo.pages import page, pictures
from dropzoo.sweep import pictures as sweep_pictures
from dropzoo.sweep.advice import in_words, recommend, train_command
from dropzoo.sweep.stats import (
    Candidate,
    baseline_of,
    candidates,
    difference,
    interval_text,
    names,
    ranking_metric,
    title,
    what_mattered,
)
from dropzoo.sweep.store import read
from dropzoo.sweep.trials import Record

_LEADERS = 10
_CURVES = 3
# A candidate with its number in the tables.
_Ranked = list[tuple[int, Candidate]]


@dataclasses.dataclass(frozen=True)
class _Picture:
    """A picture at its own size. On a small screen it shrinks, but not so far that its text cannot be read."""

    uri: str
    style: str


@dataclasses.dataclass(frozen=True)
class _Results:
    """The values of those sections of `sweep.html` that need at least one trial that succeeded."""

    evidence: list[str]
    command: str
    count: int
    metric: str
    score: str
    leaders: list[list[str]]
    intervals: _Picture
    effects: _Picture | None
    curves: _Picture
    calibration: list[list[str]]
    reliability: _Picture | None
    cost: list[list[str]]
    samples: str
    shares: _Picture | None


def write_report(path: Path, file: Path) -> Path:
    """Writes the page of the newest space in a sweep's file.

    Args:
        path: Path of the page to write.
        file: Path of the sweep's file.

    Returns:
        `path`.
    """
    recorded = read(file)
    records, space = recorded.of_space(), recorded.space
    found = candidates(records)
    head = "dropzoo sweep" if space is None else f"{', '.join(space.models)} on {Path(space.data).name}"
    longest = [c for c in found if c.scored and c.epochs == found[0].epochs]
    return page.write(
        path,
        "sweep.html",
        title=f"Sweep: {head}",
        summary=_summary(records, found),
        results=_results(records, longest) if longest else None,
        trials=len(records),
        plans=[
            (f"{each.full_label}, {count_of(each.epochs, 'epoch')}", list(map(_trial, each.records)))
            for each in found
        ],
    )


def recommendation_text(file: Path, metric: str | None) -> tuple[list[Candidate], list[str], str]:
    """Returns the recommendation for a terminal.

    Args:
        file: Path of the sweep's file or folder.
        metric: Str, the figure on the validation images to compare plans by; None for the default of `recommend`.

    Returns:
        The candidates to show in a table, the lines of evidence, and the command that trains the plan.

    Raises:
        ValueError: If there is no such sweep, or no trial has succeeded.
    """
    recorded = read(file)
    records = recorded.of_space()
    found = recommend(records, metric)
    rows = [found.chosen]
    rows += [c for c in (found.baseline, found.best) if c is not None and not any(c is row for row in rows)]
    lines, space = in_words(found), recorded.space
    # How many trials a sweep by halving will have is known only at its end.
    if space is not None and space.strategy != "halving" and len(records) < (most := len(space.trials())):
        lines.append(f"The sweep is not done: {len(records)} of {most} trials.")
    return rows, lines, train_command(found.chosen.config)


def _summary(records: list[Record], found: list[Candidate]) -> str:
    failed = sum(bool(record.error) for record in records)
    hours = sum(record.outcome.seconds for record in records) / 3600
    used = {f"{name} {version}" for record in records for name, version in record.versions.items()}
    time = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    counts = f"{count_of(len(records), 'trial')} of {count_of(len(found), 'configuration')}, {failed} failed"
    return f"{counts}; {time} of computing. {', '.join(sorted(used))}."


def _results(records: list[Record], found: list[Candidate]) -> _Results:
    recommended = recommend(records)
    metric = ranking_metric(records)
    shown, first = _with_baselines(found, _LEADERS), _first(found)
    effects, shares = sweep_pictures.effects(found, metric), what_mattered(found, metric)
    reliability = sweep_pictures.reliability(first)
    return _Results(
        evidence=in_words(recommended),
        command=train_command(recommended.chosen.config),
        count=len(found),
        metric=title(metric),
        score=title(found[0].score),
        leaders=_numbered(shown, [_leader(each, found, metric) for _, each in shown]),
        intervals=_picture(sweep_pictures.intervals([each for _, each in shown], metric)),
        effects=_picture(effects) if effects else None,
        curves=_picture(sweep_pictures.convergence(first)),
        calibration=_numbered(shown, [_calibration(each) for _, each in shown]),
        reliability=_picture(reliability) if reliability else None,
        cost=_numbered(shown, [_cost(each) for _, each in shown]),
        samples=_samples([each for _, each in shown]),
        shares=_picture(sweep_pictures.shares(shares)) if shares else None,
    )


def _numbered(shown: _Ranked, rows: list[list[str]]) -> list[list[str]]:
    """Returns rows that begin with the numbers and labels of their candidates."""
    labels = names([each for _, each in shown])
    return [[str(n), label, *row] for (n, _), label, row in zip(shown, labels, rows, strict=True)]


def _leader(each: Candidate, found: list[Candidate], metric: str) -> list[str]:
    baseline = baseline_of(each, found)
    effect = None if baseline is None or each.is_baseline else difference(each, baseline, metric)
    against = interval_text(effect) if effect else "-"
    if effect and effect.mean >= 0:
        against = f"+{against}"
    ranked, score, gap = (interval_text(each.interval(name)) for name in (metric, each.score, "gap"))
    return [str(len(each.scored)), ranked, against, score, gap, interval_text(each.interval(each.score, "test"))]


def _calibration(each: Candidate) -> list[str]:
    validation = [interval_text(each.interval(metric)) for metric in ("nll", "calibrated_nll", "ece", "brier")]
    return validation + [interval_text(each.interval(name, "test")) for name in ("nll", "calibrated_nll", "ece")]


def _cost(each: Candidate) -> list[str]:
    epoch = statistics.median(outcome.seconds_per_epoch for outcome in each.outcomes)
    latency = [outcome.mc_ms for outcome in each.outcomes if outcome.mc_ms is not None]
    milliseconds = f"{statistics.median(latency):.1f}" if latency else "-"
    return [f"{epoch:.2f}", f"{each.outcomes[0].parameters:,}", milliseconds]


def _samples(found: list[Candidate]) -> str:
    """Returns the numbers of Monte-Carlo samples whose latency was measured."""
    outcomes = (outcome for each in found for outcome in each.outcomes)
    samples = {outcome.mc_samples for outcome in outcomes if outcome.mc_samples and outcome.mc_ms is not None}
    return " and ".join(map(str, sorted(samples))) or "all"


def _trial(record: Record) -> tuple[str, str]:
    """Returns a line about a trial, and JSON of everything that is needed to repeat it."""
    config = record.trial.config
    fold = f", fold {config.fold[0] + 1}" if config.fold else ""
    nll = record.outcome.validation.get("nll")
    result = f"failed: {record.first_line[:120]}" if record.error else f"NLL {nll:.4f}"
    saved = record.to_json()
    shown = {name: saved[name] for name in ("key", "config", "versions", "seconds", "error") if name in saved}
    return f"Seed {config.seed}{fold}: {result}", json.dumps(shown, indent=1)


def _first(found: list[Candidate]) -> _Ranked:
    """Returns the leaders that a picture has room for, and the best candidate without dropout."""
    ranked = list(enumerate(found, start=1))
    chosen = ranked[:_CURVES]
    if not any(c.is_baseline for _, c in chosen):
        chosen += [(n, c) for n, c in ranked if c.is_baseline][:1]
    return chosen


def _with_baselines(found: list[Candidate], count: int) -> _Ranked:
    """Returns the first candidates and their baselines, by rank."""
    ranked = list(enumerate(found, start=1))
    compared = [baseline_of(each, found) for each in found[:count]]
    return ranked[:count] + [(n, c) for n, c in ranked[count:] if any(c is each for each in compared)]


def _picture(figure: Figure) -> _Picture:
    width = 96 * figure.get_figwidth()
    style = f"max-width: {width:.0f}px; min-width: {0.68 * width:.0f}px; margin-top: 1rem"
    return _Picture(pictures.as_uri(figure, "svg"), style)
