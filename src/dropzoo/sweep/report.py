"""The report of a sweep: one HTML page that needs no network, and the recommendation in words."""

import html
import json
import statistics
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from dropzoo.pages import page, pictures
from dropzoo.sweep import pictures as sweep_pictures
from dropzoo.sweep.advice import Recommendation, in_words, recommend, train_command
from dropzoo.sweep.stats import (
    Candidate,
    baseline_of,
    candidates,
    difference,
    interval_text,
    names,
    score_name,
    title,
    what_mattered,
)
from dropzoo.sweep.store import read

_LEADERS = 10
_CURVES = 3


def write_report(path: Path, file: Path) -> Path:
    """Writes the page of a sweep's file; of its newest space."""
    recorded = read(file)
    records = recorded.of_space()
    found = candidates(records)
    space = recorded.space
    head = "dropzoo sweep" if space is None else f"{', '.join(space.models)} on {Path(space.data).name}"
    longest = [c for c in found if c.scored and c.epochs == found[0].epochs]
    body = [_summary(records, found)]
    if longest:
        body += [_recommended(recommend(records)), _leaders(longest), _heat_map(longest), _curves(longest)]
        body += [_calibration(longest), _cost(longest), _mattered(longest)]
    body.append(_all_trials(found))
    return page.write(path, "sweep.html", title=f"Sweep: {head}", body=Markup("\n".join(body)))


def recommendation_text(file: Path, metric: str) -> tuple[list[Candidate], list[str], str]:
    """For a terminal: the rows of a table, the evidence by lines, and the command."""
    recorded = read(file)
    records = recorded.of_space()
    found = recommend(records, metric)
    rows = [found.chosen]
    rows += [c for c in (found.baseline, found.best) if c is not None and not any(c is row for row in rows)]
    lines, space = in_words(found), recorded.space
    # Of a sweep by halving nobody knows how many there will be.
    if space is not None and space.strategy != "halving" and len(records) < (most := len(space.trials())):
        lines.append(f"The sweep is not done: {len(records)} of {most} trials.")
    return rows, lines, train_command(found.chosen.config)


def _summary(records: list[dict[str, Any]], found: list[Candidate]) -> str:
    failed = sum("error" in record for record in records)
    hours = sum(record["seconds"] for record in records) / 3600
    used = {f"{name} {version}" for record in records for name, version in record["versions"].items()}
    time = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return (
        f"<p>{len(records)} trials of {len(found)} configurations, {failed} failed; {time} of computing. "
        f"{html.escape(', '.join(sorted(used)))}.</p>"
    )


def _recommended(found: Recommendation) -> str:
    lines = in_words(found)
    rest = "".join(f"<li>{html.escape(line)}</li>" for line in lines[1:])
    command = html.escape(train_command(found.chosen.config))
    return f"""<h2>Recommended</h2>
<p><strong>{html.escape(lines[0])}</strong></p>
<ul>{rest}</ul>
<pre class="wrap">{command}</pre>"""


def _leaders(found: list[Candidate]) -> str:
    score = score_name(found[0].records)
    heads = ("", "plan", "runs", "NLL", "against no dropout", title(score), "gap", f"test {title(score)}")
    shown = _with_baselines(found, _LEADERS)
    rows = []
    for (number, each), label in zip(shown, names([c for _, c in shown]), strict=True):
        baseline = baseline_of(each, found)
        effect = None if baseline is None or each.is_baseline else difference(each, baseline, "nll")
        figures = [interval_text(each.interval(metric)) for metric in (score, "gap")]
        against = interval_text(effect) if effect else "-"
        if effect and effect.mean >= 0:
            against = f"+{against}"
        test = interval_text(each.interval(score, "test"))
        runs = str(len(each.scored))
        rows.append((str(number), label, runs, interval_text(each.interval("nll")), against, *figures, test))
    alt = "Means and intervals of the leaders"
    return f"""<h2>Leaders</h2>
<p class="note">The best of {len(found)} configurations by the mean NLL on validation images, and those without
dropout. Intervals are of 95 % over seeds and folds (Student's t). Against no dropout: the difference in NLL,
paired: both sides start from the same weights and see the same batches. The gap: {title(score)} on training
images, less that on validation images.</p>
{page.table(heads, rows, wrap=1)}
{_figure(sweep_pictures.intervals([each for _, each in shown]), alt)}
<p class="note">Each stroke is a run; squares have no dropout. Lower is better for NLL and ECE, the expected
calibration error over 15 bins: how far the confidence is from the share of right answers.</p>"""


def _heat_map(found: list[Candidate]) -> str:
    figure = sweep_pictures.effects(found)
    if figure is None:
        return ""
    return f"""<h2>Where, and how much</h2>
<p class="note">What dropout at these sites and rates changes in the validation NLL, against the same without
dropout: below 0, purple, is better. A star marks a 95 % interval without 0; cells that stand for several
configurations (schedules, other regularisers) are their mean, without a star.</p>
{_figure(figure, "Effect on the validation NLL by site and rate")}"""


def _curves(found: list[Candidate]) -> str:
    return f"""<h2>Convergence</h2>
<p class="note">The leaders and the best without dropout, by their numbers in the table: means over the runs, and
their range. The training loss is with dropout on, and with what the loss adds: penalties, smoothing.</p>
{_figure(sweep_pictures.convergence(_first(found)), "Curves of the leaders by epoch")}"""


def _calibration(found: list[Candidate]) -> str:
    rows, shown = [], _with_baselines(found, _LEADERS)
    for (number, each), label in zip(shown, names([c for _, c in shown]), strict=True):
        figures = [interval_text(each.interval(metric)) for metric in ("nll", "ece", "brier")]
        test = [interval_text(each.interval(metric, "test")) for metric in ("nll", "ece")]
        rows.append((str(number), label, *figures, *test))
    heads = ("", "plan", "NLL", "ECE", "Brier score", "test NLL", "test ECE")
    figure = sweep_pictures.reliability(_first(found))
    diagram = _figure(figure, "Accuracy against confidence of the leaders") if figure else ""
    words = """
<p class="note">Reliability on validation images: on the diagonal, predictions are right as often as they are sure;
below it they are surer than that. The larger a dot, the more predictions.</p>"""
    return f"""<h2>Calibration</h2>
<p class="note">Lower is better for all. Without Monte Carlo; <code>dropzoo evaluate RUN --mc 30</code> tells what
that changes.</p>
{page.table(heads, rows, wrap=1)}{words if figure else ""}
{diagram}"""


def _cost(found: list[Candidate]) -> str:
    rows, shown = [], _with_baselines(found, _LEADERS)
    for (number, each), label in zip(shown, names([c for _, c in shown]), strict=True):
        epoch = statistics.median(record["seconds_per_epoch"] for record in each.scored)
        latency = [record["mc_ms"] for record in each.scored if record["mc_ms"] is not None]
        milliseconds = f"{statistics.median(latency):.1f}" if latency else "-"
        size = f"{each.scored[0]['parameters']:,}"
        rows.append((str(number), label, f"{epoch:.2f}", size, milliseconds))
    samples = {
        r["mc_samples"] for _, c in shown for r in c.scored if r.get("mc_samples") and r["mc_ms"] is not None
    }
    of = " and ".join(map(str, sorted(samples))) or "all"
    heads = ("", "plan", "s an epoch", "parameters", "Monte-Carlo ms an image")
    return f"""<h2>Cost</h2>
<p class="note">Medians on the machine that ran the trials. Monte Carlo: {of} samples of one image.</p>
{page.table(heads, rows, wrap=1)}"""


def _mattered(found: list[Candidate]) -> str:
    shares = what_mattered(found)
    if not shares:
        return ""
    return f"""<h2>What mattered</h2>
<p class="note">The share of the variance of the validation NLL over all runs that each choice explains by itself:
the main effects of an additive model. A large share of the seed says that more seeds are needed. Choices that
exclude each other (a rate of 0 and no sites) share what they explain, so that the sum may differ from 100 %.</p>
{_figure(sweep_pictures.shares(shares), "Shares of the variance by axis")}"""


def _all_trials(found: list[Candidate]) -> str:
    items = []
    for number, each in enumerate(found, start=1):
        items.append(f"<h3>{number}. {html.escape(each.full_label)}, {each.epochs} epochs</h3>")
        items += map(_trial, each.records)
    count = sum(len(each.records) for each in found)
    return f"""<h2>All trials</h2>
<p class="note">By plan, under the numbers of the tables; each with all that makes it again.</p>
<details><summary>{count} trials</summary>{"".join(items)}</details>"""


def _trial(record: dict[str, Any]) -> str:
    config = record["config"]
    fold = f", fold {config['fold'][0] + 1}" if config["fold"] else ""
    if "error" in record:
        result = f"failed: {record['error'].splitlines()[0][:120]}"
    else:
        result = f"NLL {record['validation']['nll']:.4f}"
    shown = {k: record[k] for k in ("key", "config", "versions", "seconds", "error") if k in record}
    text = html.escape(json.dumps(shown, indent=1))
    head = html.escape(f"Seed {config['seed']}{fold}: {result}")
    return f"<details><summary>{head}</summary><pre>{text}</pre></details>"


def _first(found: list[Candidate]) -> list[tuple[int, Candidate]]:
    """The leaders by rank that a picture has room for, and the best without dropout."""
    ranked = list(enumerate(found, start=1))
    chosen = ranked[:_CURVES]
    if not any(c.is_baseline for _, c in chosen):
        chosen += [(n, c) for n, c in ranked if c.is_baseline][:1]
    return chosen


def _with_baselines(found: list[Candidate], count: int) -> list[tuple[int, Candidate]]:
    """The first, and what they are compared with, by rank."""
    ranked = list(enumerate(found, start=1))
    compared = [baseline_of(each, found) for each in found[:count]]
    return ranked[:count] + [(n, c) for n, c in ranked[count:] if any(c is each for each in compared)]


def _figure(figure: Figure, alt: str) -> str:
    """At its own size; smaller where the screen is, until its text would be too small to read."""
    width = 96 * figure.get_figwidth()
    style = f"max-width: {width:.0f}px; min-width: {0.68 * width:.0f}px; margin-top: 1rem"
    uri = pictures.as_uri(figure, "svg")
    return f'<div class="wide"><img alt="{alt}" style="{style}" src="{uri}"></div>'
