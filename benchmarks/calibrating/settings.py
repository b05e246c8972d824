"""The figures of the setting that the search chose, beside one pass with its temperature."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from calibrating.data import Row, batches, images_of, network

from dropzoo import serving, training
from dropzoo.serving.calibration.fitting.figures import expected_calibration_error

_LEAST = 20  # images for a search, which needs so many
_KINDS = ("clean", "gaussian_noise")
_MEASURED: dict[str, dict[str, Any]] = {}  # by data, and by the kind of images


def settings(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind in _KINDS:
        for figure in ("nll", "ece"):
            yield f"{figure} {kind}", lambda k=kind, f=figure: difference(name, k, f, arguments)


def difference(name: str, kind: str, figure: str, arguments: argparse.Namespace) -> Row:
    """The figure of the chosen setting minus that of one pass with its temperature, on images not used before."""
    if name not in _MEASURED:
        _MEASURED[name] = _differences(name, arguments)
    mean, error = _MEASURED[name][kind][figure]
    return {
        "value": round(mean, 5),
        "standard_error": round(error, 5),
        "must": bool(mean <= error),
        "aim": bool(mean < 0),
        "note": _MEASURED[name]["note"],
    }


def _differences(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    model = network(name, arguments)
    images, labels = (x[:3000] for x in images_of(name, arguments))
    first = max(_LEAST, len(images) // 2)
    mc = serving.MonteCarlo(model, arguments.samples)
    chosen = serving.calibrate(mc, images[:first], labels[:first], sites="search", verbose=0)
    one = serving.calibrate(model, images[:first], labels[:first], verbose=0)
    predictors = {
        name: serving.MonteCarlo(model, calibration=cal) for name, cal in (("chosen", chosen), ("one", one))
    }
    found: dict[str, Any] = {
        "note": ", ".join(f"{site} {rate:.3g}" for site, rate in chosen.sites.items()) or "one pass"
    }
    for kind in _KINDS:
        new = images[first:] if kind == "clean" else np.asarray(training.corrupt(images[first:], kind, 3))
        answers = {
            name: np.concatenate([predictor(x)["mean"].numpy() for x in batches(new)])
            for name, predictor in predictors.items()
        }
        found[kind] = _figures(answers, labels[first:])
    return found


def _figures(answers: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, tuple[float, float]]:
    """The difference of each figure, chosen minus one pass, and its standard error."""
    each = {
        name: -np.log(np.maximum(np.take_along_axis(p, truth[..., None], -1)[..., 0], 1e-12))
        for name, p in answers.items()
    }
    losses = (each["chosen"] - each["one"]).reshape(len(truth), -1).mean(1)
    random = np.random.default_rng(0)
    resampled = [_ece_gap(answers, truth, random.integers(0, len(truth), len(truth))) for _ in range(50)]
    return {
        "nll": (float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(len(losses)))),
        "ece": (_ece_gap(answers, truth, np.arange(len(truth))), float(np.std(resampled))),
    }


def _ece_gap(rows: dict[str, np.ndarray], truth: np.ndarray, chosen: np.ndarray) -> float:
    found = {}
    for column, p in rows.items():
        q = p[chosen]
        found[column] = expected_calibration_error(q.max(-1).ravel(), (q.argmax(-1) == truth[chosen]).ravel())
    return found["chosen"] - found["one"]
