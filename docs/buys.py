"""Draws docs/images/buys.png: what dropout buys where a network fits its training images.

python docs/buys.py

It draws the training runs of the positive control that are in benchmarks/evidence/results/trainings.csv.
"""

import csv
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from dropzoo.pages.style import BLUE, GREEN, GREY, ORANGE, plain

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "evidence" / "results" / "trainings.csv"
PICTURE = ROOT / "docs" / "images" / "buys.png"
CONTROL = {"data": "fashion_mnist", "images": "2000", "network": "CNN", "epochs": "60", "learning_rate": "0.002"}
PLAN = "module? 0.2 + dense* 0.5"
#: The name, the plan, the columns, and the colour of each way to predict.
WAYS = (
    ("no dropout", "none", "one", GREY),
    ("no dropout, temperature", "none", "one_t", ORANGE),
    ("dropout, one pass", PLAN, "one", GREEN),
    ("dropout, 30 samples", PLAN, "mc", BLUE),
)
FIGURES = {
    "score": "accuracy: higher is better",
    "nll": "NLL: lower is better",
    "ece": "calibration error: lower is better",
}


def control_rows() -> list[dict[str, str]]:
    """Returns the rows of the control, of those seeds that both plans have."""
    with open(ROWS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] == each for name, each in CONTROL.items())]
    rows = [row for row in rows if not row["augment"] and row["plan"] in ("none", PLAN) and row["members"] == "1"]
    seeds = [{row["seed"] for row in rows if row["plan"] == plan} for plan in ("none", PLAN)]
    return [row for row in rows if row["seed"] in seeds[0] & seeds[1]]


def draw(rows: list[dict[str, str]]) -> Figure:
    """Returns the picture: a point for each training, a line for the mean of each way."""
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES.items(), strict=True):
        for place, (_, plan, column, colour) in enumerate(WAYS):
            values = [float(row[f"{name}_{column}"]) for row in rows if row["plan"] == plan]
            axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=5)
            axis.plot([fmean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2.5)
            text = f"{fmean(values):.2f}" if name == "nll" else f"{fmean(values):.3f}"
            axis.annotate(text, (fmean(values), place - 0.33), ha="center", va="bottom", fontsize=8, color=colour)
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(WAYS)), [way for way, *_ in WAYS])
        axis.set_ylim(len(WAYS) - 0.5, -0.8)
        axis.margins(x=0.15)
    plain(figure.axes, labelsize=9)
    return figure


def main() -> None:
    rows = control_rows()
    draw(rows).savefig(PICTURE, dpi=150)
    print(f"{PICTURE.relative_to(ROOT)}: {len({row['seed'] for row in rows})} seeds")
    for way, plan, column, _ in WAYS:
        means = {n: fmean(float(row[f"{n}_{column}"]) for row in rows if row["plan"] == plan) for n in FIGURES}
        print(f"{way:26}", "  ".join(f"{name} {mean:.3f}" for name, mean in means.items()))


if __name__ == "__main__":
    main()
