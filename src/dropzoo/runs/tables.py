"""Figures of evaluations as tables for the terminal, and as a file."""

import csv
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Column, Table

LABELS = {
    "mean_iou": "mean IoU",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_adaptive": "ECE, equal mass",
    "ece_classwise": "ECE, class-wise",
    "aurc": "AURC",
    "error_auroc": "error AUROC",
}


def results_table(columns: dict[str, dict[str, Any]], split: str = "") -> Table:
    """Figures of one or several evaluations, a column each, on the images of a split."""
    first = next(iter(columns.values()))
    heads = (Column(title.replace(", ", "\n"), justify="right") for title in columns)
    images = f"{first['count']:,} {split} images" if split else f"{first['count']:,} images"
    table = Table(Column(images, no_wrap=True), *heads)
    for name in first:
        if name not in ("iou", "count"):
            table.add_row(LABELS.get(name, name), *(_cell(figures[name], 4, 6) for figures in columns.values()))
    classes = list(first.get("iou", ()))
    for name in classes if len(classes) <= 4 else ():
        table.add_row(f"IoU {escape(name)}", *(_cell(figures["iou"][name], 4) for figures in columns.values()))
    return table


def corruption_tables(
    clean: dict[str, dict[str, Any]], found: dict[tuple[str, int], dict[str, dict[str, Any]]]
) -> list[Table]:
    """Of the score, NLL and ECE each a table: a row for a corruption and a predictor, a column for a severity.

    Args:
        clean: figures by predictor, of the images as they are: severity 0.
        found: as of `evaluation.score_corruptions`.
    """
    score = "mean_iou" if "mean_iou" in next(iter(clean.values())) else "accuracy"
    severities = sorted({severity for _, severity in found})
    names = list(dict.fromkeys(name for name, _ in found))
    tables = []
    for figure in (score, "nll", "ece"):
        heads = (Column(str(severity), justify="right") for severity in (0, *severities))
        title = f"{LABELS.get(figure, figure)} by severity"
        columns = (Column("corruption", no_wrap=True), Column("", no_wrap=True), *heads)
        table = Table(*columns, title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))  # within 80 characters
        rows = {
            name: {p: [found[name, severity][p][figure] for severity in severities] for p in clean}
            for name in names
        }
        if len(names) > 1:
            rows["mean of all"] = {
                p: [fmean(each) for each in zip(*(rows[n][p] for n in names), strict=True)] for p in clean
            }
        for name, by_predictor in rows.items():
            for i, (predictor, values) in enumerate(by_predictor.items()):
                cells = (_cell(value, 3) for value in (clean[predictor][figure], *values))
                short = predictor.replace("Monte Carlo", "MC").replace(" samples", "")
                table.add_row("" if i else name, short, *cells, end_section=i == len(by_predictor) - 1)
        tables.append(table)
    return tables


def write_figures(
    path: Path, clean: dict[str, dict[str, Any]], found: dict[tuple[str, int], dict[str, dict[str, Any]]]
) -> Path:
    """All figures as CSV, a row for a predictor under a corruption and severity; under a temporary name first.

    Args:
        path: of the file.
        clean: figures by predictor, of the images as they are: severity 0 of no corruption.
        found: as of `evaluation.score_corruptions`.
    """
    rows = []
    for (name, severity), by_predictor in {("", 0): clean, **found}.items():
        for predictor, figures in by_predictor.items():
            classes = {f"iou {name}": value for name, value in figures.get("iou", {}).items()}
            rest = {name: value for name, value in figures.items() if name != "iou"}
            rows.append({"corruption": name, "severity": severity, "predictor": predictor, **rest, **classes})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
    return path


def ood_table(title: str, aurocs: dict[str, float]) -> Table:
    """Of `uncertainty.ood_aurocs`."""
    table = Table(Column("uncertainty", no_wrap=True), Column("AUROC", justify="right"), title=escape(title))
    for name, value in aurocs.items():
        table.add_row(name, _cell(value, 4))
    return table


def _cell(value: float | None, digits: int, small: int | None = None) -> str:
    """With `small` digits instead where `digits` would leave but one."""
    if value is None:
        return "-"
    return f"{value:.{small if small and 0 < abs(value) < 10 ** (1 - digits) else digits}f}"
