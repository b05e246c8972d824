"""The figures of the setting that the search chose, beside one pass with its temperature."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from calibrating.data import Row, images_of, reference

from dropzoo import serving, training
from dropzoo.serving.calibration.fitting.figures import expected_calibration_error

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
    model = reference(name)
    images, labels = images_of(name, arguments)
    images, labels = images[:3000], labels[:3000]
    half = len(images) // 2
    chosen = serving.calibrate(
        serving.MonteCarlo(model, arguments.samples), images[:half], labels[:half], sites="search", verbose=0
    )
    one = serving.calibrate(model, images[:half], labels[:half], verbose=0)
    new = images[half:] if kind == "clean" else training.corrupt(images[half:], kind, 3)
    new, truth = np.asarray(new), labels[half:]
    rows = {}
    for column, cal in (("chosen", chosen), ("one", one)):
        predictor = serving.MonteCarlo(model, calibration=cal)
        p = np.concatenate([predictor(new[i : i + 50])["mean"].numpy() for i in range(0, len(new), 50)])
        rows[column] = p
    each = {
        c: -np.log(np.maximum(np.take_along_axis(p, truth[..., None], -1)[..., 0], 1e-12)) for c, p in rows.items()
    }
    losses = (each["chosen"] - each["one"]).reshape(len(truth), -1).mean(1)
    random = np.random.default_rng(0)
    resampled = [_ece_gap(rows, truth, random.integers(0, len(truth), len(truth))) for _ in range(50)]
    note = ", ".join(f"{site} {rate:.3g}" for site, rate in chosen.sites.items()) or "one pass"
    _MEASURED[name, kind] = {
        "nll": (float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(len(losses)))),
        "ece": (_ece_gap(rows, truth, np.arange(len(truth))), float(np.std(resampled))),
        "note": note,
    }
    return _MEASURED[name, kind]


def _ece_gap(rows: dict[str, np.ndarray], truth: np.ndarray, chosen: np.ndarray) -> float:
    found = {}
    for column, p in rows.items():
        q = p[chosen]
        found[column] = expected_calibration_error(q.max(-1).ravel(), (q.argmax(-1) == truth[chosen]).ravel())
    return found["chosen"] - found["one"]
