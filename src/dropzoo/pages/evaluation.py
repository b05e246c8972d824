"""What an evaluation leaves behind: its pictures, and a page of figures and pictures in one HTML file."""

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
    """Writes figures by predictor, more numbers as `{caption: {row: number}}`, and pictures by name."""
    names = [name for name in next(iter(figures.values())) if name != "iou"]
    return page.write(
        path,
        "evaluation.html",
        title=title,
        heads=["", *figures],
        rows=[[LABELS.get(name, name), *(_cell(each[name]) for each in figures.values())] for name in names],
        tables={
            caption: [[name, _cell(value)] for name, value in rows.items()] for caption, rows in tables.items()
        },
        pictures={_CAPTIONS[name]: pictures.as_uri(figure) for name, figure in drawn.items()},
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
