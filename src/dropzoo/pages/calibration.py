"""Pictures of calibration, of selective prediction, and of both on corrupted images."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dropzoo import training
from dropzoo.common.files import whole_file
from dropzoo.pages.style import GREY, INK, LINES, ORANGE, plain
from dropzoo.runs.figures import ByMethod, Corrupted, score_name, value
from dropzoo.runs.figures import label as figure_label
from dropzoo.runs.promises import Promises
from dropzoo.runs.scores import Scores

_PALE = "#8fc1e0"  # blue, but so pale that a hatch can be seen on it
# No curve gets more points than this, since a picture could not show them.
_POINTS = 500


def reliability(scores: dict[str, Scores]) -> Figure:
    """Draws accuracy against confidence by bins, and the share of predictions in each; a column for each title."""
    figure = Figure(figsize=(max(3.0 * len(scores), 4.2), 4.6), layout="constrained")
    axes = figure.subplots(2, len(scores), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (top, bottom), (title, score) in zip(axes.T, scores.items(), strict=True):
        bins = score.bins
        count, correct, confidence = bins.count, bins.correct, bins.confidence
        middle, width = (np.arange(len(count)) + 0.5) / len(count), 1 / len(count)
        filled = count > 0
        accuracy, sure = (each[filled] / count[filled] for each in (correct, confidence))
        top.bar(middle[filled], accuracy, 0.92 * width, color=_PALE, label="accuracy")
        low, gap = np.minimum(accuracy, sure), np.abs(accuracy - sure)
        style = {"color": "none", "edgecolor": ORANGE, "linewidth": 0.8, "hatch": "////"}
        top.bar(middle[filled], gap, 0.92 * width, low, label="gap to the mean confidence", **style)
        top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect calibration")
        top.set(ylim=(0, 1), xlim=(0, 1))
        lines = [*title.split(", "), f"ECE {score.figures()['ece']:.3f}"]
        top.set_title("\n".join(lines), fontsize=9)
        bottom.bar(middle, count / count.sum(), 0.92 * width, color=GREY)
        bottom.set(xlabel="confidence", ylim=(0, 1))
        bottom.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("predictions")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    plain(figure.axes, labelsize=8)
    return figure


def risk_coverage(scores: dict[str, Scores]) -> Figure:
    """Draws the error of the most certain predictions against the share that is kept; a lower curve is better."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    for i, (title, score) in enumerate(scores.items()):
        uncertainty, errors = score.uncertainty_and_errors()
        coverage, risk = training.risk_coverage(uncertainty, errors)
        shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
        colour, dash = LINES[i % len(LINES)]
        label = f"{title}: AURC {risk.mean():.3g}"
        axis.plot(coverage[shown], risk[shown], linestyle=dash, color=colour, linewidth=1.8, label=label)
    axis.set(xlabel="coverage: the surest share of the predictions", ylabel="error among them", xlim=(0, 1))
    _finish(axis)
    return figure


def guarantee(promises: Promises) -> Figure:
    """Draws the error among the images that are kept, from few to all, with the promise and the share kept."""
    promise = promises.calibration.guarantees["error"]
    doubts, errors = promises.doubts_and_errors()
    coverage, risk = training.risk_coverage(doubts, errors)
    kept = float((doubts < promise.thresholds[0]).mean())
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    axis.plot(coverage[shown], risk[shown], color=LINES[0][0], linewidth=1.8, label="error among the kept images")
    axis.axhline(
        promise.level, color=ORANGE, linestyle="--", linewidth=1.4, label=f"promised: {promise.level:.1%}"
    )
    axis.axvline(kept, color=GREY, linewidth=1.4, label=f"kept: {kept:.1%}; the others go to a human")
    axis.set(xlabel="coverage: the share of the images that is kept", ylabel="error among them", xlim=(0, 1.02))
    _finish(axis)
    return figure


def corruptions(clean: ByMethod, found: Corrupted) -> Figure:
    """Draws the score and the ECE by severity, where 0 is the clean images; a panel for each corruption."""
    names = list(dict.fromkeys(name for name, _ in found))
    score = score_name(next(iter(clean.values())))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(2.6 * columns, 4.2), 3.4 * rows + 0.5), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, sharex=True)
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        severities = [severity for each, severity in found if each == name]
        for axis, key in zip(axes[2 * row : 2 * row + 2, column], (score, "ece"), strict=True):
            for i, method in enumerate(clean):
                colour, dash = LINES[i % len(LINES)]
                values = [value(each[method], key) for each in (clean, *(found[name, s] for s in severities))]
                axis.plot([0, *severities], values, linestyle=dash, color=colour, linewidth=1.8, label=method)
        axes[2 * row, column].set_title(name.replace("_", " "), fontsize=9)
    for row in range(rows):
        for axis_row, label in ((axes[2 * row], figure_label(score)), (axes[2 * row + 1], "ECE")):
            axis_row[0].set_ylabel(label)
            shown = np.concatenate([line.get_ydata() for axis in axis_row for line in axis.lines])
            top = float(np.max(shown, where=np.isfinite(shown), initial=0))
            for axis in axis_row:
                axis.set_ylim(0, 1.05 * top or 1)
    for axis in axes[-1]:
        axis.set_xlabel("severity")
    for axis in axes.ravel()[[not axis.lines for axis in axes.ravel()]]:
        axis.set_axis_off()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    plain(figure.axes, labelsize=8)
    return figure


def draw(scores: dict[str, Scores]) -> dict[str, Figure]:
    """Draws both plots of the scores; returns them by name, `reliability` and `risk_coverage`."""
    return {"reliability": reliability(scores), "risk_coverage": risk_coverage(scores)}


def save_plots(drawn: dict[str, Figure], folder: Path) -> list[Path]:
    """Writes plots by name as SVG and PNG, and returns the paths; equal plots give equal files."""
    written = []
    for name, figure in drawn.items():
        for kind, metadata in (("svg", {"Date": None, "Title": name.replace("_", " ")}), ("png", None)):
            path = folder / f"{name}.{kind}"
            with whole_file(path) as unfinished, matplotlib.rc_context({"svg.hashsalt": "dropzoo"}):
                figure.savefig(unfinished, dpi=150, metadata=metadata)
            written.append(path)
    return written


def _finish(axis: Axes) -> None:
    """Gives an axis of errors against coverage its percent signs and its legend."""
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axis.legend(frameon=False, fontsize=8, loc="best")
    plain([axis], labelsize=8)
