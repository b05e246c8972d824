"""Pictures of a sweep: leaders with intervals, effects by site and rate, curves, calibration, what mattered."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dropzoo.pages.style import BLUE, GREY, INK, LINES, plain
from dropzoo.sweep.stats import Candidate, Interval, baseline_of, difference, title


def intervals(found: list[Candidate], metric: str) -> Figure:
    """Draws the means and 95 % intervals of four figures, a row for each candidate, numbered from the top.

    Args:
        found: The candidates.
        metric: Str, the first of the figures, by which the candidates are ranked.
    """
    figure = Figure(figsize=(7.0, 1.6 + 0.5 * len(found)), layout="constrained")
    rows = np.arange(len(found))
    shown = (metric, found[0].score, "gap", "ece")
    for axis, name in zip(figure.subplots(2, 2, sharey=True).ravel(), shown, strict=True):
        for row, candidate in zip(rows, found, strict=True):
            value = candidate.interval(name)
            colour = GREY if candidate.is_baseline else BLUE
            axis.plot(list(candidate.values(name).values()), [row] * value.count, "|", color=colour, alpha=0.6)
            marker = "s" if candidate.is_baseline else "o"
            axis.errorbar(value.mean, row, xerr=value.half, fmt=marker, color=colour, capsize=3, markersize=5)
        axis.set_title(title(name), fontsize=10)
        axis.set_yticks(rows, [_number(i, c) for i, c in enumerate(found, start=1)])
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        plain([axis], labelsize=9)
    return figure


def effects(found: list[Candidate], metric: str) -> Figure | None:
    """Draws the mean effects of dropout, by sites and spec (rows) and rate (columns).

    An effect is the difference from the same configuration without dropout.

    Args:
        found: The candidates.
        metric: Str, the figure on the validation images to draw.

    Returns:
        A heat map; None if no candidate has both a rate and a baseline.
    """
    cells: dict[tuple[str, float], list[Interval]] = {}
    for candidate in found:
        axes, baseline = candidate.axes, baseline_of(candidate, found)
        if candidate.is_baseline or axes.rate is None or baseline is None or not candidate.scored:
            continue
        models = {c.axes.model for c in found}
        row = f"{axes.model}: " * (len(models) > 1) + f"{axes.sites}\n{axes.spec}"
        effect = difference(candidate, baseline, metric)
        if effect.count:
            cells.setdefault((row, axes.rate), []).append(effect)
    if not cells:
        return None
    rows, rates = list(dict.fromkeys(row for row, _ in cells)), sorted({rate for _, rate in cells})
    values = np.full((len(rows), len(rates)), np.nan)
    for (row, rate), several in cells.items():
        values[rows.index(row), rates.index(rate)] = np.mean([effect.mean for effect in several])
    figure = Figure(figsize=(2.6 + 0.95 * len(rates), 1.3 + 0.62 * len(rows)), layout="constrained")
    axis = figure.subplots()
    bound = max(float(np.nanmax(np.abs(values))), 1e-9)
    image = axis.imshow(values, cmap="PuOr_r", norm=TwoSlopeNorm(0, -bound, bound), aspect="auto")
    for (row, rate), several in cells.items():
        y, x = rows.index(row), rates.index(rate)
        sure = len(several) == 1 and several[0].half is not None and not several[0].low <= 0 <= several[0].high
        dark = abs(values[y, x]) > 0.6 * bound
        text = f"{values[y, x]:+.3f}{'*' * sure}"
        axis.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_yticks(range(len(rows)), rows)
    axis.set_xlabel("rate")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label=f"{title(metric)}, difference\nfrom no dropout", shrink=0.9)
    return figure


def convergence(found: list[tuple[int, Candidate]]) -> Figure:
    """Draws the validation NLL and the training loss by epoch: the mean over the runs, and their range."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels = (("val_nll", "validation NLL"), ("loss", "training loss"))
    for axis, (curve, head) in zip(figure.subplots(1, 2), panels, strict=True):
        for i, (number, candidate) in enumerate(found):
            colour, dash = (GREY, ":") if candidate.is_baseline else LINES[i % len(LINES)]
            runs = np.array([outcome.curves[curve] for outcome in candidate.outcomes], "float64")  # (runs, epochs)
            epochs = np.arange(1, runs.shape[1] + 1)
            axis.plot(epochs, runs.mean(0), color=colour, linestyle=dash, label=_number(number, candidate))
            axis.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.12, linewidth=0)
        axis.set(xlabel="epoch")
        axis.set_title(head, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain([axis], labelsize=9)
    axis.legend(frameon=False, fontsize=9)
    return figure


def reliability(found: list[tuple[int, Candidate]]) -> Figure | None:
    """Draws accuracy against confidence on validation images; the bins of all runs are summed.

    Returns:
        A reliability diagram; None if no record holds bins.
    """
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=INK, linewidth=1)
    for i, (number, candidate) in enumerate(found):
        bins = [outcome.reliability for outcome in candidate.outcomes if outcome.reliability]
        if not bins:
            continue
        names = ("count", "correct", "confidence")
        count, correct, confidence = (np.sum([each[name] for each in bins], axis=0) for name in names)
        filled = count > 0
        accuracy, sure = correct[filled] / count[filled], confidence[filled] / count[filled]
        colour, dash = (GREY, ":") if candidate.is_baseline else LINES[i % len(LINES)]
        axis.plot(sure, accuracy, color=colour, linestyle=dash, label=_number(number, candidate))
        axis.scatter(sure, accuracy, 4 + 150 * count[filled] / count.sum(), color=colour, alpha=0.5)
    if len(axis.lines) == 1:
        return None
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    plain([axis], labelsize=9)
    axis.legend(frameon=False, fontsize=9)
    return figure


def shares(found: dict[str, float]) -> Figure:
    """Draws the shares of the variance as bars."""
    figure = Figure(figsize=(6.4, 0.9 + 0.36 * len(found)), layout="constrained")
    axis = figure.subplots()
    names = list(found)
    last = [GREY if name == "interactions and noise" else BLUE for name in names]
    bars = axis.barh(names, [found[name] for name in names], color=last)
    axis.bar_label(bars, [f" {100 * found[name]:.0f} %" for name in names], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, max(1.0, *found.values()) * 1.1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    plain([axis], labelsize=9)
    return figure


def _number(i: int, candidate: Candidate) -> str:
    return f"{i}, no dropout" if candidate.is_baseline else str(i)
