"""The figures of the setting that the search chose, beside one pass with its temperature."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from calibrating import nuclei
from calibrating.data import Row, batches, images_of, network

from dropzoo import serving, training
from dropzoo.serving.calibration.fitting.figures import expected_calibration_error

_FEW = 20  # of the 32 images of nuclei that a network has not seen; a search needs so many
_MEASURED: dict[tuple[str, str], dict[str, Any]] = {}


def settings(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind in ("clean", "gaussian_noise"):
        for figure in ("nll", "ece"):
            yield f"{figure} {kind}", lambda k=kind, f=figure: difference(name, k, f, arguments)


def difference(name: str, kind: str, figure: str, arguments: argparse.Namespace) -> Row:
    """The figure of the chosen setting minus that of one pass with its temperature, on images not used before."""
    rows = _differences(name, kind, arguments)
    mean, error = rows[figure]
    return {
        "value": round(mean, 5),
        "standard_error": round(error, 5),
        "must": bool(mean <= error),
        "aim": bool(mean < 0),
        "note": rows["note"],
    }


def _differences(name: str, kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if (name, kind) in _MEASURED:
        return _MEASURED[name, kind]
    notes, parts = [], []
    for model, images, labels, first in _networks(name, arguments):
        mc = serving.MonteCarlo(model, arguments.samples)
        chosen = serving.calibrate(mc, images[:first], labels[:first], sites="search", verbose=0)
        one = serving.calibrate(model, images[:first], labels[:first], verbose=0)
        new = np.asarray(images[first:] if kind == "clean" else training.corrupt(images[first:], kind, 3))
        found = {}
        for column, cal in (("chosen", chosen), ("one", one)):
            predictor = serving.MonteCarlo(model, calibration=cal)
            found[column] = np.concatenate([predictor(x)["mean"].numpy() for x in batches(new)])
        parts.append({**found, "truth": labels[first:]})
        notes.append(", ".join(f"{site} {rate:.3g}" for site, rate in chosen.sites.items()) or "one pass")
    rows = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    truth = rows.pop("truth")
    each = {
        c: -np.log(np.maximum(np.take_along_axis(p, truth[..., None], -1)[..., 0], 1e-12)) for c, p in rows.items()
    }
    losses = (each["chosen"] - each["one"]).reshape(len(truth), -1).mean(1)
    random = np.random.default_rng(0)
    resampled = [_ece_gap(rows, truth, random.integers(0, len(truth), len(truth))) for _ in range(50)]
    _MEASURED[name, kind] = {
        "nll": (float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(len(losses)))),
        "ece": (_ece_gap(rows, truth, np.arange(len(truth))), float(np.std(resampled))),
        "note": "; ".join(dict.fromkeys(notes)),
    }
    return _MEASURED[name, kind]


def _networks(
    name: str, arguments: argparse.Namespace
) -> Iterator[tuple[keras.Model, np.ndarray, np.ndarray, int]]:
    """Networks, images that they have not seen, labels, and on how many images to search; the others judge."""
    if name == "nuclei":
        for model, images, labels in nuclei.parts(arguments):
            yield model, images, labels, _FEW
    else:
        images, labels = (x[:3000] for x in images_of(name, arguments))
        yield network(name, arguments), images, labels, len(images) // 2


def _ece_gap(rows: dict[str, np.ndarray], truth: np.ndarray, chosen: np.ndarray) -> float:
    found = {}
    for column, p in rows.items():
        q = p[chosen]
        found[column] = expected_calibration_error(q.max(-1).ravel(), (q.argmax(-1) == truth[chosen]).ravel())
    return found["chosen"] - found["one"]
