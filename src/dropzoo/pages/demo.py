"""The demo's report: one HTML page that carries its pictures within itself."""

import html
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


_LEAD = """Two networks, each trained twice on real handwritten digits, once without and once with dropout at named
sites; then sampled, exported, and loaded again without the package."""


def write_report(path: Path, sections: list[Section], out: Path) -> Path:
    """Writes the page under a temporary name first."""
    body = "\n".join(map(_section, sections))
    body += f"\n<h2>Go on</h2>\n<pre>{html.escape(_commands(sections, out))}</pre>"
    return page.write(path, "dropzoo demo", f"<p>{_LEAD}</p>\n{body}")


def _section(section: Section) -> str:
    config = section.config
    segmentation = section.labels.ndim == 3
    if segmentation:
        figure = pictures.masks(section.images, section.labels, section.answers)
        what = "Predicted masks, the first images of the test set above, the most uncertain ones below"
    else:
        figure = pictures.class_probabilities(section.images, section.labels, section.answers)
        what = "Predictions, the first images of the test set on the left, the most uncertain ones on the right"
    drawing = pictures.as_html(draw_sites(section.model), "The model's sites; those with dropout are filled")
    plan = ", ".join(f"{pattern}: {spec}" for pattern, spec in config.dropout.items())
    return f"""
<h2>{config.model} on {config.data}</h2>
<p>{section.model.count_params():,} parameters, {config.epochs} epochs.
Dropout: <code>{html.escape(plan)}</code>.</p>
{_table(section.results)}
<p class="note">The gap is the training set's score minus the test set's. NLL is in nats, ECE is the expected
calibration error over 15 bins; Monte Carlo averages the probabilities of several samples with dropout on.
One seed on a small set: a demonstration of the tools, not evidence for a plan.</p>
<h3>Where it is dropped</h3>
<div class="wide">{drawing}</div>
<h3>Training</h3>
<div class="wide">{pictures.as_html(pictures.curves(section.histories), "Training and validation curves")}</div>
<h3>What the model does not know</h3>
<p class="note">{what}. Mutual information (MI) is the part of the uncertainty that more data would remove.</p>
<div class="wide">{pictures.as_html(figure, what)}</div>
<p>Exported to <code>{html.escape(str(section.export))}</code>; loaded in a fresh process that could import neither
dropzoo nor Keras, its probabilities differ from the model's by at most {section.difference:.0e}.</p>
"""


def _table(results: dict[str, dict[str, dict[str, Any] | None]]) -> str:
    score = "mean_iou" if any("mean_iou" in (r["test"] or {}) for r in results.values()) else "accuracy"
    title = LABELS.get(score, score)
    heads = ("", f"train {title}", f"test {title}", "gap", "test NLL", "test ECE")
    rows = []
    for name, sets in results.items():
        train, test = sets["train"], sets["test"]
        if test is None:
            continue
        seen = f"{train[score]:.3f}" if train else ""
        gap = f"{train[score] - test[score]:+.3f}" if train else ""
        rows.append((name, seen, f"{test[score]:.3f}", gap, f"{test['nll']:.3f}", f"{test['ece']:.3f}"))
    return page.table(heads, rows)


def _commands(sections: list[Section], out: Path) -> str:
    runs, unet = out / "runs", sections[-1]
    return "\n".join(
        [
            "# the sites of a model, and what a plan puts there",
            "dropzoo sites unet --dropout bayesian_segnet",
            "# the same figures on the command line, averaged over 30 samples",
            f"dropzoo evaluate {runs / 'unet_with_dropout'} --mc 30",
            "# another plan",
            'dropzoo train unet --data digit_scenes --dropout "skip*=spatial_dropout2d:0.2" --option depth=3 '
            "--option filters=16 --out runs/skips",
            "# your own images",
            f"dropzoo predict IMAGE.png --model {unet.export}",
        ]
    )
