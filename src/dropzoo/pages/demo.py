"""The demo's report: one HTML page that carries its pictures within itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dropzoo.pages import page, pictures
from dropzoo.pages.drawing import draw_sites
from dropzoo.runs.run import RunConfig
from dropzoo.runs.tables import LABELS


@dataclass(frozen=True)
class Section:
    """What the report says of one model."""

    name: str
    config: RunConfig
    model: keras.Model
    histories: dict[str, dict[str, list[float]]]
    results: dict[str, dict[str, dict[str, Any] | None]]  # by variant, then "train" and "test"
    images: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]  # of Monte Carlo
    export: Path
    difference: float  # between the export and the model


def write_report(path: Path, sections: list[Section], out: Path) -> Path:
    """Writes the page of the demo in the folder `out`."""
    return page.write(
        path,
        "demo.html",
        title="dropzoo demo",
        sections=[_values(section) for section in sections],
        unet_run=out / "runs" / "unet_with_dropout",
        unet_export=sections[-1].export,
    )


def _values(section: Section) -> dict[str, Any]:
    """Returns what the template says of one model."""
    config = section.config
    if section.labels.ndim == 3:
        figure = pictures.masks(section.images, section.labels, section.answers)
        shown = "Predicted masks, the first images of the test set above, the most uncertain ones below"
    else:
        figure = pictures.class_probabilities(section.images, section.labels, section.answers)
        shown = "Predictions, the first images of the test set on the left, the most uncertain ones on the right"
    heads, rows = _table(section.results)
    return {
        "title": f"{config.model} on {config.data}",
        "facts": f"{section.model.count_params():,} parameters, {config.epochs} epochs",
        "plan": ", ".join(f"{pattern}: {spec}" for pattern, spec in config.dropout.items()),
        "heads": heads,
        "rows": rows,
        "sites": pictures.as_uri(draw_sites(section.model)),
        "curves": pictures.as_uri(pictures.curves(section.histories)),
        "predictions": pictures.as_uri(figure),
        "shown": shown,
        "export": section.export,
        "difference": f"{section.difference:.0e}",
    }


def _table(
    results: dict[str, dict[str, dict[str, Any] | None]],
) -> tuple[list[str], list[list[str]]]:
    score = "mean_iou" if any("mean_iou" in (r["test"] or {}) for r in results.values()) else "accuracy"
    title = LABELS.get(score, score)
    heads = ["", f"train {title}", f"test {title}", "gap", "test NLL", "test ECE"]
    rows = []
    for name, sets in results.items():
        train, test = sets["train"], sets["test"]
        if test is None:
            continue
        seen = f"{train[score]:.3f}" if train else ""
        gap = f"{train[score] - test[score]:+.3f}" if train else ""
        rows.append([name, seen, f"{test[score]:.3f}", gap, f"{test['nll']:.3f}", f"{test['ece']:.3f}"])
    return heads, rows
