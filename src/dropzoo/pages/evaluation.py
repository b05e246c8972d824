"""What an evaluation leaves behind: its pictures, and a page of figures and pictures in one HTML file."""

import html
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dropzoo.pages import calibration as calibration_plots
from dropzoo.pages import page, pictures
from dropzoo.runs.tables import LABELS

_CAPTIONS = {
    "reliability": "Reliability: accuracy against confidence",
    "risk_coverage": "Risk and coverage: the error among the surest predictions",
    "corruptions": "Corrupted images: severity 0 is the test set as it is",
    "least_certain": "The least certain images, by predictive entropy (H); MI is the mutual information",
    "most_certain": "The most certain images",
}


def save_all(
    folder: Path,
    title: str,
    figures: dict[str, dict[str, Any]],
    plots: dict[str, Figure],
    images: dict[str, Figure],
    tables: dict[str, Any],
) -> list[Path]:
    """Writes plots as SVG and PNG, pictures of images as PNG, and `report.html`, which holds them all."""
    written = calibration_plots.save_plots(plots, folder)
    written += [pictures.save(figure, folder / f"{name}.png") for name, figure in images.items()]
    return [*written, _write_page(folder / "report.html", title, figures, plots | images, tables)]


def _write_page(
    path: Path, title: str, figures: dict[str, dict[str, Any]], drawn: dict[str, Figure], tables: dict[str, Any]
) -> Path:
    """Writes the page under a temporary name first.

    Args:
        path: The file.
        title: Of the page.
        figures: Of the evaluation, by predictor.
        drawn: Pictures by name.
        tables: More numbers, `{caption: {row: number}}`.
    """
    names = [name for name in next(iter(figures.values())) if name != "iou"]
    cells = {LABELS.get(name, name): [each[name] for each in figures.values()] for name in names}
    parts = [_table(list(figures), cells)]
    for caption, rows in tables.items():
        parts += [
            f"<h2>{html.escape(caption)}</h2>",
            _table([""], {name: [value] for name, value in rows.items()}),
        ]
    for name, figure in drawn.items():
        caption = _CAPTIONS[name]
        parts += [f"<h2>{caption}</h2>", f'<div class="wide">{pictures.as_html(figure, caption)}</div>']
    return page.write(path, title, "\n".join(parts))


def _table(heads: list[str], rows: dict[str, list[Any]]) -> str:
    return page.table(["", *heads], ([name, *map(_cell, values)] for name, values in rows.items()))


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
