"""The figures of a calibration: how accurate and how well calibrated probabilities are."""

from collections.abc import Sequence

import numpy as np

from dropzoo.serving.calibration.temperature import is_coins, mean_at, nll

_BINS = 15


def figures_of(
    p: np.ndarray, labels: np.ndarray, kind: str, temperature: float | Sequence[float] = 1.0
) -> dict[str, float]:
    """Returns NLL in nats, expected calibration error over 15 equal bins, and accuracy.

    Args:
        p: Float32 array `(rows, samples, classes)` of probabilities.
        labels: Int array `(rows,)`, or `(rows, classes)` of 0 and 1 if each output is a probability of its own.
        kind: The output kind, except `"regression"`.
        temperature: Float above 0, or one for each class.
    """
    mean = mean_at(p, kind, temperature)
    if is_coins(kind, p.shape[-1]):
        right = (mean >= 0.5) == (labels.reshape(mean.shape) == 1)
        sure = np.maximum(mean, 1.0 - mean)
    else:
        right, sure = mean.argmax(-1) == labels, mean.max(-1)
    return {
        "nll": nll(p, labels, kind, temperature),
        "ece": expected_calibration_error(sure.ravel(), right.ravel()),
        "accuracy": float(right.mean()),
    }


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Returns the mean distance between confidence and accuracy over equal bins, weighted by their answers.

    Args:
        confidence: Float array `(answers,)` in [0, 1].
        right: Bool array `(answers,)`.
    """
    places = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(places, confidence - right, _BINS)
    return float(np.abs(gaps).sum() / len(right))
