"""The demo's report: one HTML page that carries its pictures within itself."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from dropzoo.pages import calibration, page, pictures
from dropzoo.pages.drawing import draw_sites
from dropzoo.runs.config import RunConfig
from dropzoo.runs.figures import Figures, label, score_name, value
from dropzoo.runs.scores import Scores


@dataclass(frozen=True)
class Section:
    """The part of the report on one model.

    Attributes:
        config: The run's config, with dropout.
        model: The model that was trained with dropout.
        histories: Dict of curves by variant: without dropout and with dropout.
        train: Dict of the figures on training images by variant.
        scores: Dict of the scores on test images by way to predict: without and with dropout, in one pass and by
            samples, without and with temperature.
        images: Array `(images, height, width, channels)`: some test images.
        labels: Array `(images,)` of their classes, or `(images, height, width)` of their masks.
        answers: Dict of the arrays that `MonteCarlo` returns for these images.
        searched: Int, the number of test images among which the most uncertain ones were found.
        export: The folder of the SavedModel.
        difference: The largest difference between the probabilities of the export and of the model, on four test
            images.
    """

    config: RunConfig
    model: keras.Model
    histories: dict[str, dict[str, list[float]]]
    train: dict[str, Figures]
    scores: dict[str, Scores]
    images: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]
    searched: int
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
        unet_export=next(each.export for each in sections if each.config.model == "unet"),
    )


def _values(section: Section) -> dict[str, object]:
    """Returns the values of the template for one model."""
    config = section.config
    uncertain = f"those with the largest mutual information among the first {section.searched}"
    if section.labels.ndim == 3:
        shown_images = pictures.masks(section.images, section.labels, section.answers)
        shown = f"Predicted masks: the first images of the test set (top), and {uncertain} (bottom)"
    else:
        shown_images = pictures.class_probabilities(section.images, section.labels, section.answers)
        shown = f"Predictions: the first images of the test set (left), and {uncertain} (right)"
    figures = {way: scores.figures() for way, scores in section.scores.items()}
    heads, rows = _table(section.train, figures)
    return {
        "title": f"{config.model} on {config.data}",
        "facts": f"{section.model.count_params():,} parameters, {config.limit} images, {config.epochs} epochs",
        "plan": ", ".join(f"{pattern}: {spec}" for pattern, spec in config.dropout.items()),
        "heads": heads,
        "rows": rows,
        "finding": _finding(figures),
        "risk": pictures.as_uri(calibration.risk_coverage(_ends(section.scores))),
        "sites": pictures.as_uri(draw_sites(section.model)),
        "curves": pictures.as_uri(pictures.curves(section.histories)),
        "predictions": pictures.as_uri(shown_images),
        "shown": shown,
        "export": section.export,
        "difference": f"{section.difference:.0e}",
    }


def _ends(scores: dict[str, Scores]) -> dict[str, Scores]:
    """Returns the first and the last way to predict: one pass without dropout, and calibrated samples."""
    names = list(scores)
    return {name: scores[name] for name in (names[0], names[-1])}


def _finding(figures: dict[str, Figures]) -> str:
    """Returns the difference that dropout makes in this run, in a sentence."""
    plain, dropped, sampled = (figures[name] for name in (list(figures)[0], list(figures)[2], list(figures)[-1]))
    score = score_name(plain)
    parts = [
        f"Test NLL {plain['nll']:.3f} without dropout, {dropped['nll']:.3f} with dropout in one pass, and "
        f"{sampled['nll']:.3f} with samples and a temperature",
        f"{label(score)} {value(plain, score) or 0:.3f}, {value(dropped, score) or 0:.3f} and "
        f"{value(sampled, score) or 0:.3f}",
        f"ECE {plain['ece']:.3f}, {dropped['ece']:.3f} and {sampled['ece']:.3f}",
    ]
    return "; ".join(parts) + "."


def _table(train: dict[str, Figures], test: dict[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and the rows of a table of figures, with a row for each way to predict."""
    score = score_name(next(iter(test.values())))
    heads = ["", f"train {label(score)}", f"test {label(score)}", "gap", "test NLL", "test ECE", "AURC"]
    rows = []
    for name, found in test.items():
        on_test = value(found, score) or 0.0
        on_train = value(train[name], score) if name in train else None
        seen, gap = ("", "") if on_train is None else (f"{on_train:.3f}", f"{on_train - on_test:+.3f}")
        figures = [f"{value(found, each) or 0.0:.3f}" for each in ("nll", "ece", "aurc")]
        rows.append([name, seen, f"{on_test:.3f}", gap, *figures])
    return heads, rows
