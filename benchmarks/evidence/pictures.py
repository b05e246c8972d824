"""The figures of the page: the NLL of each condition in four columns, and the learning curve."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from protocol import Claim, Condition, Rows, Setting, found_rows, value_of

from dropzoo.pages.style import BLUE, GREEN, GREY, ORANGE, plain
from dropzoo.sweep.stats import interval

LEARNING_CURVE = 13
_STYLES = {
    "one": ("one pass", GREY, "s"),
    "one_t": ("one pass, temperature", ORANGE, "^"),
    "mc": ("samples", GREEN, "D"),
    "mc_t": ("samples, temperature", BLUE, "o"),
}
_MOST = 6  # panels


def caption(claim: Claim) -> str:
    """Returns what the figure of a claim shows."""
    if claim.number == LEARNING_CURVE:
        return "Accuracy and calibrated NLL by the number of images, with and without dropout, with 95 % intervals"
    if claim.number == 9:
        return "The advantage of the first classes over the last, with 95 % intervals"
    return "The test NLL of each condition for four ways to predict, with 95 % intervals"


def draw(claim: Claim, rows: Rows, path: Path) -> bool:
    """Draws the figure of a claim; returns whether there was something to draw."""
    panels = []
    for setting, conditions in claim.trials:
        found = {each.name: list(found_rows(setting, each, rows).values()) for each in conditions}
        if any(found.values()):
            panels.append((setting, {name: some for name, some in found.items() if some}))
    if not panels:
        return False
    if claim.number == LEARNING_CURVE:
        figure = _curve(claim, rows)
    else:
        figure = _dots(panels[:_MOST], "advantage_of_first" if claim.number == 9 else "nll")
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)
    return True


def _dots(panels: list[tuple[Setting, dict[str, list[dict]]]], name: str) -> Figure:
    heights = [len(found) for _, found in panels]
    figure = Figure(figsize=(7.5, 0.9 + 0.32 * sum(heights) + 0.75 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[h + 1 for h in heights])[:, 0]
    for axis, (setting, found) in zip(axes, panels, strict=True):
        styles = _STYLES.items() if name == "nll" else [("", ("", BLUE, "o"))]
        for number, (column, (label, colour, marker)) in enumerate(styles):
            for place, some in enumerate(found.values()):
                values = [value_of(row, f"{name}_{column}" if column else name) for row in some]
                kept = interval(value for value in values if value == value)
                if kept.count:
                    axis.errorbar(
                        kept.mean,
                        -place + 0.12 * (1.5 - number),
                        xerr=kept.half or 0,
                        fmt=marker,
                        color=colour,
                        markersize=4.5,
                        capsize=2,
                        label=label if place == len(found) - 1 else None,
                    )
        axis.set_yticks([-place for place in range(len(found))], list(found))
        axis.set_title(setting.name, fontsize=10, loc="left")
        axis.set_ylim(-len(found) + 0.4, 0.6)
    axes[-1].set_xlabel("test NLL, nats" if name == "nll" else name.replace("_", " "))
    if name == "nll":
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    plain(axes, 8)
    return figure


def _curve(claim: Claim, rows: Rows) -> Figure:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour, style in (("none", GREY, "s--"), ("dropout", BLUE, "o-")):
        for axis, column in ((left, "score"), (right, "nll")):
            _line(axis, claim, rows, name, column, colour, style)
    left.set(xlabel="training images", title="test accuracy", xscale="log")
    right.set(xlabel="training images", title="test NLL, with temperature", xscale="log", yscale="log")
    left.legend(frameon=False, fontsize=8)
    plain((left, right), 8)
    return figure


def _line(axis: Axes, claim: Claim, rows: Rows, name: str, column: str, colour: str, style: str) -> None:
    points = {}
    for setting, conditions in claim.trials:
        chosen: list[Condition] = [each for each in conditions if each.name == name]
        values = [value_of(row, column) for row in found_rows(setting, chosen[0], rows).values()]
        if values:
            points[setting.images] = interval(values)
    means = [each.mean for each in points.values()]
    halves = [each.half or 0 for each in points.values()]
    axis.errorbar(list(points), means, halves, fmt=style, color=colour, capsize=3, markersize=5, label=name)
