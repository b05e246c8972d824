"""Figures of evaluations as tables for the terminal, and as a file."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Column, Table

from dropzoo.common.words import count_of
from dropzoo.runs.figures import ByMethod, Corrupted, label, score_name, value
from dropzoo.runs.files import write_rows

if TYPE_CHECKING:  # imports TensorFlow, which the command line does not need to answer `--help`
    from dropzoo.serving import Calibration


def figures_table(columns: ByMethod, split: str = "") -> Table:
    """Returns a table of figures, with a column for each method of prediction.

    Args:
        columns: Dict of figures by the title of the method.
        split: Str. Name of the images that were evaluated on, such as `"test"`.
    """
    first = next(iter(columns.values()))
    heads = (Column(title.replace(", ", "\n"), justify="right") for title in columns)
    images = count_of(first["count"], f"{split} image" if split else "image")
    table = Table(Column(images, no_wrap=True), *heads)
    for name in first:
        if name not in ("iou", "count"):
            table.add_row(label(name), *(_cell(value(figures, name), 4, 6) for figures in columns.values()))
    classes = list(first.get("iou", ()))
    for name in classes if len(classes) <= 4 else ():
        table.add_row(f"IoU {escape(name)}", *(_cell(figures["iou"][name], 4) for figures in columns.values()))
    return table


def text_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Returns a table of texts, with a caption."""
    columns = [Column(heads[0], overflow="fold"), *(Column(head, justify="right") for head in heads[1:])]
    table = Table(*columns, title=caption)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def corruption_tables(clean: ByMethod, found: Corrupted) -> list[Table]:
    """Returns tables of the score, the NLL and the ECE by severity, with a row for each corruption and method.

    Args:
        clean: Figures on the clean images, which are shown as severity 0.
        found: The result of `evaluation.score_corruptions`.
    """
    if not found:
        return []
    severities = sorted({severity for _, severity in found})
    names = list(dict.fromkeys(name for name, _ in found))
    return [
        _corruption_table(clean, found, figure, names, severities)
        for figure in (score_name(next(iter(clean.values()))), "nll", "ece")
    ]


def _corruption_table(
    clean: ByMethod, found: Corrupted, figure: str, names: Sequence[str], severities: Sequence[int]
) -> Table:
    heads = (Column(str(severity), justify="right") for severity in (0, *severities))
    columns = (Column("corruption", no_wrap=True), Column("", no_wrap=True), *heads)
    # Narrow, to stay within 80 characters.
    table = Table(*columns, title=f"{label(figure)} by severity", box=box.SIMPLE, padding=(0, 1, 0, 0))
    rows = {
        name: {method: [value(found[name, s][method], figure) for s in severities] for method in clean}
        for name in names
    }
    if len(names) > 1:
        rows["mean of all"] = {
            method: [fmean(each) for each in zip(*(rows[name][method] for name in names), strict=True)]
            for method in clean
        }
    for name, by_method in rows.items():
        for i, (method, values) in enumerate(by_method.items()):
            cells = (_cell(each, 3) for each in (value(clean[method], figure), *values))
            short = method.replace("Monte Carlo", "MC").replace(" samples", "")
            table.add_row("" if i else name, short, *cells, end_section=i == len(by_method) - 1)
    return table


def ood_table(title: str, aurocs: dict[str, float]) -> Table:
    """Returns a table of the AUROCs that `uncertainty.ood_aurocs` returns."""
    table = Table(Column("uncertainty", no_wrap=True), Column("AUROC", justify="right"), title=escape(title))
    for name, auroc in aurocs.items():
        table.add_row(name, _cell(auroc, 4))
    return table


def calibration_table(found: "Calibration") -> Table:
    """Returns a table of the figures before and after a calibration, on the images that it was fitted on."""
    columns = ("accuracy", "nll", "ece")
    heads = (Column(label(name), justify="right") for name in columns)
    table = Table(Column("on the images that it was fitted on", no_wrap=True), *heads)
    for name, figures in found.figures.items():
        title = name.removesuffix("_temperature").replace("_", " ")
        if name.endswith("_temperature"):
            title += ", with temperature"
        table.add_row(title, *(_cell(figures[each], 4, 6) for each in columns))
    return table


def write_figures(path: Path, clean: ByMethod, found: Corrupted) -> Path:
    """Writes all figures as CSV, with a row for each corruption, severity and method of prediction.

    Args:
        path: Path of the file.
        clean: Figures on the clean images, which get severity 0 and no name of a corruption.
        found: The result of `evaluation.score_corruptions`.

    Returns:
        `path`.
    """
    rows = []
    for (name, severity), by_method in {("", 0): clean, **found}.items():
        for method, figures in by_method.items():
            classes = {f"iou {name}": iou for name, iou in figures.get("iou", {}).items()}
            rest = {name: each for name, each in figures.items() if name != "iou"}
            rows.append({"corruption": name, "severity": severity, "predictor": method, **rest, **classes})
    return write_rows(path, rows)


def _cell(value: float | None, digits: int, small: int | None = None) -> str:
    """Formats a number with `digits` decimals, or with `small` if those would show but one significant digit."""
    if value is None:
        return "-"
    return f"{value:.{small if small and 0 < abs(value) < 10 ** (1 - digits) else digits}f}"
