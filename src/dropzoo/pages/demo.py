"""The demo's report: one HTML page that carries its pictures within itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from dropzoo.pages import page, pictures
from dropzoo.pages.drawing import draw_sites
from dropzoo.runs.config import RunConfig
from dropzoo.runs.figures import Figures, label, score_name, value


class Judged(NamedTuple):
    """Figures of one model on its training images, None if it was not evaluated on them, and on the test set."""

    train: Figures | None
    test: Figures


@dataclass(frozen=True)
class Section:
    """The part of the report on one model.

    Attributes:
        config: The run's config, with dropout.
        model: The model that was trained with dropout.
        histories: Dict of curves by variant: without dropout and with dropout.
        figures: Dict of figures by variant, with one more entry for Monte Carlo.
        images: Array `(images, height, width, channels)`: some test images.
        labels: Array `(images,)` of their classes, or `(images, height, width)` of their masks.
        answers: Dict of the arrays that `MonteCarlo` returns for these images.
        export: The folder of the SavedModel.
        difference: The largest difference between the probabilities of the export and of the model.
    """

    config: RunConfig
    model: keras.Model
    histories: dict[str, dict[str, list[float]]]
    figures: dict[str, Judged]
    images: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]
    export: Path
    difference: float


def write_report(path: Path, sections: list[Section], out: Path) -> Path:
    """Writes the page of the demo in the folder `out`; returns its path."""
    return page.write(
        path,
        "demo.html",
        title="dropzoo demo",
        sections=[_values(section) for section in sections],
        unet_run=out / "runs" / "unet_with_dropout",
        unet_export=sections[-1].export,
    )


def _values(section: Section) -> dict[str, object]:
    """Returns the values of the template for one model."""
    config = section.config
    if section.labels.ndim == 3:
        figure = pictures.masks(section.images, section.labels, section.answers)
        shown = "Predicted masks, the first images of the test set above, the most uncertain ones below"
    else:
        figure = pictures.class_probabilities(section.images, section.labels, section.answers)
        shown = "Predictions, the first images of the test set on the left, the most uncertain ones on the right"
    heads, rows = _table(section.figures)
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


def _table(figures: dict[str, Judged]) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and the rows of a table of figures, with a row for each variant."""
    score = score_name(next(iter(figures.values())).test)
    heads = ["", f"train {label(score)}", f"test {label(score)}", "gap", "test NLL", "test ECE"]
    rows = []
    for name, (train, test) in figures.items():
        on_test = value(test, score) or 0.0
        on_train = None if train is None else value(train, score)
        seen, gap = ("", "") if on_train is None else (f"{on_train:.3f}", f"{on_train - on_test:+.3f}")
        rows.append([name, seen, f"{on_test:.3f}", gap, f"{test['nll']:.3f}", f"{test['ece']:.3f}"])
    return heads, rows
