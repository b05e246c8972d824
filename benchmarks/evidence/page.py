"""Makes docs/evidence.md from the files of results."""

import math
import os
import re
from typing import Any

from harness import HERE, RESULTS, Claim, Effect, effects, read, settings
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dropzoo.pages.style import BLUE, GREEN, GREY, ORANGE
from dropzoo.sweep.stats import interval, interval_text

PAGE = HERE.parents[1] / "docs" / "evidence.md"
PICTURE = HERE.parents[1] / "docs" / "images" / "evidence.png"
_PICTURED = (
    "The gap and the accuracy by the number of images, and the accuracy by site and rate, with 95 % intervals"
)
# The function that finds the best mean of a column, which is set in bold.
_BEST = {"score": max, "worse_score": max, "nll": min, "worse_nll": min, "ece": min, "worse_ece": min}
_HEAD = """# What dropout buys: ten claims, tried

Made by `make evidence` from `benchmarks/evidence/results`; nothing here is written by hand. Small networks on
small data on a CPU: what holds here need not hold for a network a hundred times as large. Every difference is
taken seed by seed (the runs of a seed start from the same weights and see the same images in the same order),
with Student's 95 % interval; *d* is the mean difference over its standard deviation. **holds**: the interval
lies on the claimed side of 0; **the opposite**: on the other side; **not shown**: 0 is inside. There is no
correction for the number of statements: out of twenty that are not true, about one *holds* or shows *the opposite*
by chance. All conditions of a setting have the same number of epochs and the same learning rate, unless their name
says otherwise. So a condition that only needs more time looks worse than it is (see claim 1).

"""


def difference(effect: Effect) -> str:
    """Returns text such as `+0.0120 ± 0.0040, d +2.1`."""
    half = effect.interval.half or 0.0
    d = f", d {effect.cohens_d:+.1f}" if math.isfinite(effect.cohens_d) else ""  # all seeds alike
    return f"{effect.interval.mean:+.4f} ± {half:.4f}{d}"


def overall(claim: Claim, rows: list[dict[str, Any]]) -> str:
    """Returns the verdict on a claim, from all its statements in all settings."""
    verdicts = [effect.verdict for statement in claim.statements for effect in effects(statement, rows)]
    if not verdicts:
        return "not run yet"
    counts = {word: verdicts.count(word) for word in ("holds", "the opposite", "not shown")}
    if counts["holds"] == len(verdicts):
        word = "holds"
    elif not counts["holds"]:
        word = "does not hold" if counts["the opposite"] else "not shown"
    else:
        word = "depends"
    return f"{word}: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}"


def write(claims: list[Claim]) -> None:
    """Writes the page; a claim without results is marked as not run."""
    parts = [_HEAD, "| | claim | verdict, by statement and setting |\n|---|---|---|\n"]
    found = {claim.number: read(RESULTS / claim.file) for claim in claims}
    for claim in claims:
        name = f"[{claim.number}](#claim-{claim.number})"
        parts.append(f"| {name} | {claim.text} | {overall(claim, found[claim.number])} |\n")
    if picture(found[1], found[6]):
        parts.append(f"\n![{_PICTURED}]({PICTURE.relative_to(PAGE.parent).as_posix()})\n")
    for claim in claims:
        rows = found[claim.number]
        parts.append(f"\n## Claim {claim.number}\n\n**{claim.text}** {claim.method}\n")
        if not rows:
            parts.append("\nNot run yet.\n")
            continue
        parts.append("\n| statement | where | difference | verdict |\n|---|---|---|---|\n")
        for statement in claim.statements:
            for effect in effects(statement, rows):
                verdict = f"**{effect.verdict}**" if effect.verdict != "not shown" else effect.verdict
                parts.append(f"| {statement.text} | {effect.setting} | {difference(effect)} | {verdict} |\n")
        if left := pending(claim, rows):
            parts.append(f"\n{left}\n")
        for setting in settings(rows):
            here = [row for row in rows if row["setting"] == setting]
            shown = [name for name in claim.shown if any(row.get(name) == row.get(name, 0) for row in here)]
            parts.append(f"\n{setting}, means over seeds with their intervals:\n\n")
            parts.append(f"| | {' | '.join(name.replace('_', ' ') for name in shown)} | seeds |\n")
            parts.append("|---|" + "---|" * (len(shown) + 1) + "\n")
            those = by_condition(here)
            means = {n: {c: interval(r[n] for r in some).mean for c, some in those.items()} for n in shown}
            best = {n: _BEST[n](of.values()) for n, of in means.items() if n in _BEST}
            for condition, some in those.items():
                intervals = [interval(row[name] for row in some) for name in shown]
                cells = [interval_text(each, 3 if abs(each.mean) < 10 else 0) for each in intervals]
                bold = [means[name][condition] == best.get(name) for name in shown]
                cells = [f"**{cell}**" if b else cell for cell, b in zip(cells, bold, strict=True)]
                parts.append(f"| {condition} | {' | '.join(cells)} | {len(some)} |\n")
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text("".join(parts))
    os.replace(temporary, PAGE)


def pending(claim: Claim, rows: list[dict[str, Any]]) -> str:
    """Returns a sentence on the jobs of five seeds that have no row yet; empty if there are none."""
    done = {(row["setting"], row["condition"], row["seed"]) for row in rows}
    jobs = claim.jobs(range(5), False)
    left = [job for job in jobs if (job.setting, job.condition, job.seed) not in done]
    names = dict.fromkeys(f"{job.condition} ({job.setting})" for job in left)
    return (
        f"**Not finished**: {len(left)} of {len(jobs)} trainings are to come: {'; '.join(names)}." if left else ""
    )


def by_condition(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each condition, with `none` first."""
    names = sorted({row["condition"] for row in rows}, key=lambda name: (name != "none", name))
    return {name: [row for row in rows if row["condition"] == name] for name in names}


def picture(sizes: list[dict[str, Any]], rates: list[dict[str, Any]]) -> bool:
    """Draws claim 1 by the number of images and claim 6 by the rate; returns whether both have results."""
    conditions = by_condition(rates)
    if not sizes or "none" not in conditions:
        return False
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    lines = {"none": (GREY, "s-"), "dropout": (BLUE, "o-"), "dropout, 3x epochs": (ORANGE, "^--")}
    for axis, name, title in ((left, "gap", "train-test gap"), (middle, "score", "test accuracy")):
        for condition, (colour, style) in lines.items():
            some = [row for row in sizes if row["condition"] == condition]
            number = {row["setting"]: int(re.sub(r"\D", "", row["setting"])) for row in some}
            points = {number[s]: [r[name] for r in some if r["setting"] == s] for s in settings(some)}
            _line(axis, points, colour, style, condition)
        axis.set(xlabel="training images", title=title, xscale="log")
    left.legend(frameon=False, fontsize=8)
    base = interval(row["score"] for row in conditions.pop("none"))
    right.axhspan(base.low, base.high, color=GREY, alpha=0.3, linewidth=0)
    right.axhline(base.mean, color=GREY, label="none")
    sites = dict.fromkeys(name.rpartition(" ")[0] for name in conditions)
    styles = ((ORANGE, "^--"), (GREEN, "D-."), (BLUE, "o-"), ("#CC79A7", "v:"))
    for site, (colour, style) in zip(sites, styles, strict=True):
        points = {
            float(name.rpartition(" ")[2]): [row["score"] for row in some]
            for name, some in conditions.items()
            if name.rpartition(" ")[0] == site
        }
        _line(right, points, colour, style, site)
    right.set(xlabel="rate", title="test accuracy")
    right.legend(frameon=False, fontsize=8, loc="lower left")
    temporary = PICTURE.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, PICTURE)
    return True


def _line(axis: Axes, points: dict[Any, list[float]], colour: str, style: str, label: str) -> None:
    x, found = sorted(points), [interval(points[key]) for key in sorted(points)]
    means, halves = [each.mean for each in found], [each.half or 0 for each in found]
    axis.errorbar(x, means, halves, fmt=style, color=colour, capsize=3, markersize=5, label=label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
