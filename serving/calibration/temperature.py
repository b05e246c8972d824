"""Temperatures: one number, or one for each class, that divides the logits of every sample before the softmax."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy import optimize

_SMALLEST = 1e-37  # about the smallest normal float32, so that its logarithm is finite
_BOUNDS = (0.05, 20.0)


def is_coins(kind: str, classes: int) -> bool:
    """Returns whether each output is a probability of its own, like that of a coin; softmax outputs sum to 1.

    Args:
        kind: The output kind.
        classes: Int, the length of the last axis of the output.
    """
    return kind == "multi_label" or classes == 1


def temper(p: tf.Tensor, temperature: float | Sequence[float], kind: str) -> tf.Tensor:
    """Returns the probabilities of samples at a temperature.

    Softmax probabilities become `softmax(log p / T)`, which is the softmax of the logits divided by T. With one
    temperature for each class, `log p_k` is divided by `T_k`. Probabilities that do not sum to 1 become
    `sigmoid(logit p / T)`. Each sample is tempered, and not their mean, so that the mutual information never
    exceeds the entropy.

    Args:
        p: Float32 tensor `(..., classes)`, the probabilities of samples.
        temperature: Float above 0, or one for each class. At 1 the probabilities are returned unchanged.
        kind: The output kind; values of a regression are returned unchanged.
    """
    scale = np.asarray(temperature, np.float32)
    if kind == "regression" or (scale == 1.0).all():
        return p
    if is_coins(kind, p.shape[-1]):
        inside = tf.clip_by_value(p, _SMALLEST, 1.0 - 2.0**-24)
        return tf.sigmoid((tf.math.log(inside) - tf.math.log1p(-inside)) / scale)
    return softmax(tf.math.log(tf.maximum(p, _SMALLEST)) / scale)


def softmax(logits: tf.Tensor) -> tf.Tensor:
    """Returns the softmax over the last axis. For two classes it is faster on CPUs than TensorFlow's.

    Args:
        logits: Float tensor `(..., classes)`.
    """
    if logits.shape[-1] != 2:
        return tf.nn.softmax(logits)
    flat = tf.reshape(logits, [-1, 2])  # TensorFlow reverses the last of two axes much faster than that of four
    return tf.sigmoid(tf.reshape(flat - tf.reverse(flat, [1]), tf.shape(logits)))


def fit_temperature(
    p: np.ndarray, labels: np.ndarray, kind: str, per_class: bool = False
) -> float | tuple[float, ...]:
    """Returns the temperature at which the mean of the samples has the lowest negative log-likelihood.

    The temperature is in [0.05, 20]. It is 1 if no other is better. If there are only a few rows, and all are
    predicted correctly, the best temperature would be 0. So each of n labels counts as wrong with the probability
    1 / (n + 2). This is Laplace's rule of succession: as if there were two more answers, one right and one wrong.

    Args:
        p: Float32 array `(rows, samples, classes)` of probabilities.
        labels: Int array `(rows,)`, or `(rows, classes)` of 0 and 1 if each output is a probability of its own.
        kind: The output kind, except `"regression"`.
        per_class: Bool, whether to fit a temperature for each class.

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599; the
        rule of succession for labels: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    coins = is_coins(kind, p.shape[-1])
    logits, targets = _logits(p, coins), _targets(labels, p.shape[-1], coins)
    bounds = np.log(_BOUNDS)
    one = optimize.minimize_scalar(
        lambda x: _nll_and_slope(logits, targets, np.full(p.shape[-1], x), coins)[0],
        bounds=tuple(bounds),
        method="bounded",
        options={"xatol": 1e-3},
    ).x
    if not per_class:
        plain, fitted = (_nll_and_slope(logits, targets, np.full(p.shape[-1], x), coins)[0] for x in (0.0, one))
        return float(np.exp(one)) if fitted < plain else 1.0
    start = np.full(p.shape[-1], one)
    found = optimize.minimize(
        lambda x: _nll_and_slope(logits, targets, x, coins), start, jac=True, bounds=[tuple(bounds)] * len(start)
    )
    return tuple(float(t) for t in np.exp(found.x))


def nll(p: np.ndarray, labels: np.ndarray, kind: str, temperature: float | Sequence[float] = 1.0) -> float:
    """Returns the mean negative log-likelihood, in nats, of the mean of the samples at a temperature.

    Args:
        p: Float32 array `(rows, samples, classes)` of probabilities.
        labels: Int array `(rows,)`, or `(rows, classes)` of 0 and 1 if each output is a probability of its own.
        kind: The output kind, except `"regression"`.
        temperature: Float above 0, or one for each class.
    """
    return float(row_nll(p, labels, kind, temperature).mean())


def row_nll(
    p: np.ndarray, labels: np.ndarray, kind: str, temperature: float | Sequence[float] = 1.0
) -> np.ndarray:
    """Returns the negative log-likelihood of each row, `(rows,)`; the arguments are those of `nll`."""
    mean = mean_at(p, kind, temperature)
    if is_coins(kind, p.shape[-1]):
        right = np.where(labels.reshape(mean.shape) == 1, mean, 1.0 - mean)
        return -np.log(np.maximum(right, 1e-12)).sum(-1)
    return -np.log(np.maximum(np.take_along_axis(mean, labels[:, None], -1)[:, 0], 1e-12))


def mean_at(p: np.ndarray, kind: str, temperature: float | Sequence[float] = 1.0) -> np.ndarray:
    """Returns the mean of the samples at a temperature, `(rows, classes)`."""
    return temper(tf.convert_to_tensor(p), temperature, kind).numpy().mean(1, dtype=np.float64)


def _logits(p: np.ndarray, coins: bool) -> np.ndarray:
    inside = np.clip(p, _SMALLEST, 1.0 - 2.0**-24)
    return np.log(inside) - np.log1p(-inside) if coins else np.log(inside)


def _targets(labels: np.ndarray, classes: int, coins: bool) -> np.ndarray:
    """The probability of each class that the fit aims at, by the rule of succession: `(rows, classes)`."""
    doubt = 1 / (len(labels) + 2)
    if coins:
        return np.where(labels.reshape(-1, classes) == 1, 1 - doubt, doubt)
    targets = np.full((len(labels), classes), doubt / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - doubt
    return targets


def _nll_and_slope(
    logits: np.ndarray, targets: np.ndarray, x: np.ndarray, coins: bool
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of the targets and the mean of the samples, and its slope in each `x = log T`."""
    scaled = logits * np.exp(-x).astype(np.float32)
    if coins:
        p = 1.0 / (1.0 + np.exp(-np.clip(scaled, -80, 80)))
        mean = p.mean(1, dtype=np.float64).clip(1e-12, 1 - 1e-12)
        loss = -(targets * np.log(mean) + (1 - targets) * np.log1p(-mean)).sum(-1).mean()
        slope = (targets / mean - (1 - targets) / (1 - mean)) * (p * (1 - p) * scaled).mean(1)
        return float(loss), slope.mean(0)
    p = np.exp(scaled - scaled.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = p.mean(1).clip(1e-12)
    weighted = p * (targets / mean)[:, None]
    slope = (scaled * (weighted - p * weighted.sum(-1, keepdims=True))).mean(1)
    return float(-(targets * np.log(mean)).sum(-1).mean()), slope.mean(0)
