"""The demo's report: one HTML page that carries its pictures within itself."""

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dropzoo import pictures
from dropzoo.drawing import draw_sites
from dropzoo.runs import RunConfig


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


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 :root {{ color-scheme: light; }}
 body {{ font: 16px/1.55 system-ui, sans-serif; color: #222831; background: #fff; margin: 0 auto; max-width: 62rem;
   padding: 1.5rem 1rem 4rem; }}
 h1 {{ font-size: 1.7rem; margin-bottom: .2rem; }} h2 {{ margin-top: 2.6rem; border-bottom: 1px solid #dde1e6; }}
 h3 {{ font-size: 1.02rem; margin: 1.6rem 0 .4rem; }}
 .wide {{ overflow-x: auto; }} .wide img {{ min-width: 34rem; }}
 img {{ width: 100%; height: auto; display: block; }}
 table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
 th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ed; white-space: nowrap; }}
 th:first-child, td:first-child {{ text-align: left; }}
 pre {{ background: #f4f6f8; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; font-size: .85rem; }}
 p.note {{ color: #5a6270; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""

_DEMO = """
<p>Two networks, each trained twice on real handwritten digits, once without and once with dropout at named sites;
then sampled, exported, and loaded again without the package.</p>
{sections}
<h2>Go on</h2>
<pre>{commands}</pre>"""


def page(title: str, body: str) -> str:
    """A page of its own; `body` is HTML."""
    return _PAGE.format(title=html.escape(title), body=body)


def write_report(path: Path, sections: list[Section], out: Path) -> Path:
    """Writes the page under a temporary name first."""
    body = _DEMO.format(
        sections="\n".join(map(_section, sections)), commands=html.escape(_commands(sections, out))
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page("dropzoo demo", body))
    os.replace(temporary, path)
    return path


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
    title = score.replace("_", " ").replace("iou", "IoU")
    heads = ("", f"train {title}", f"test {title}", "gap", "test NLL", "test ECE")
    rows = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for name, sets in results.items():
        train, test = sets["train"], sets["test"]
        if test is None:
            continue
        seen = f"{train[score]:.3f}" if train else ""
        gap = f"{train[score] - test[score]:+.3f}" if train else ""
        rows.append(
            f"<tr><td>{name}</td><td>{seen}</td><td>{test[score]:.3f}</td><td>{gap}</td>"
            f"<td>{test['nll']:.3f}</td><td>{test['ece']:.3f}</td></tr>"
        )
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


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
