"""The seconds that a calibration, and members in one export, add to an answer."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from calibrating.data import CLASSES, Row, images_of, network

from dropzoo import serving


def latency(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "with a calibration", lambda: latency_of_calibration(name, arguments)
    yield "five members", lambda: latency_of_members(name, arguments)


def latency_of_calibration(name: str, arguments: argparse.Namespace) -> Row:
    model = network(name, arguments)
    images, labels = (each[:200] for each in images_of(name, arguments))
    mc = serving.MonteCarlo(model, arguments.samples)
    guarantee = {"set": 0.1} if labels.ndim == 1 else {"miss": 0.2}
    options: dict[str, Any] = {} if labels.ndim == 1 else {"classes": CLASSES[name]}
    cal = serving.calibrate(mc, images, labels, guarantee=guarantee, verbose=0, **options)
    with tempfile.TemporaryDirectory() as folder:
        loaded = [
            tf.saved_model.load(str(serving.export_model(model, f"{folder}/m", arguments.samples, **each)))
            for each in ({"sampling": cal.facts.sampling}, {"calibration": cal})
        ]
        plain, calibrated = ([each.signatures["predict_mc"]] for each in loaded)
        ratio, error = paired_ratio(calibrated, plain, images[:8])
    row: Row = {"value": round(ratio, 4), "standard_error": round(error, 4)}
    return row | {"must": bool(ratio - 2 * error <= 1.05), "samples": arguments.samples}


def latency_of_members(name: str, arguments: argparse.Namespace) -> Row:
    members = [network(name, arguments) for _ in range(5)]
    images, _ = images_of(name, arguments)
    with tempfile.TemporaryDirectory() as folder:
        one = tf.saved_model.load(str(serving.export_model(members[0], f"{folder}/m", 0)))
        five = tf.saved_model.load(str(serving.export_model(serving.Ensemble(members), f"{folder}/m")))
        passes = [one.signatures["serving_default"]] * 5
        ratio, error = paired_ratio([five.signatures["serving_default"]], passes, images[:8])
    row: Row = {"value": round(ratio, 4), "standard_error": round(error, 4)}
    return row | {"must": bool(ratio - 2 * error <= 1.1), "aim": ratio < 1}


def paired_ratio(first: list[Any], second: list[Any], images: np.ndarray, rounds: int = 60) -> tuple[float, float]:
    """The median of the ratio of the seconds of two lists of calls, which take turns, and its standard error."""
    batch, ratios = tf.constant(images), []
    for turn in range(rounds + 5):
        seconds = []
        for calls in (first, second) if turn % 2 else (second, first):
            start = time.perf_counter()
            for call in calls:
                for value in call(images=batch).values():
                    value.numpy()
            seconds.append(time.perf_counter() - start)
        a, b = seconds if turn % 2 else reversed(seconds)
        ratios.append(a / b)
    kept = np.array(ratios[5:])
    spread = np.median(np.abs(kept - np.median(kept))) * 1.4826
    return float(np.median(kept)), float(1.25 * spread / np.sqrt(len(kept)))
