"""Whether uncertainty is of use: to leave the doubtful out, to find errors and foreign images; and temperature."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

# Where `fit_temperature` looks.
_COLDEST, _HOTTEST = 0.01, 100.0


def risk_coverage(uncertainty: Any, errors: Any) -> tuple[np.ndarray, np.ndarray]:
    """The risk among the predictions one keeps, from the surest alone to all of them.

    With the predictions in order of uncertainty, `risk[k - 1]` is the mean error of the first `k`. Predictions of
    equal uncertainty stand for their mean, which is what a random order among them gives on average.

    Args:
        uncertainty: one number a prediction, higher is less sure: entropy, mutual information, 1 - confidence;
            any shape.
        errors: of the same shape: whether the prediction is wrong, or its loss.

    Returns:
        `(coverage, risk)`, float64, `(predictions,)` each: the share that is kept, in (0, 1], and the risk there.

    Raises:
        ValueError: if the shapes differ, are empty, or a number is not finite.

    Example:
        >>> coverage, risk = risk_coverage([0.1, 0.9, 0.4, 0.2], [False, True, True, False])
        >>> coverage.tolist(), risk.round(3).tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.5])

    Reference:
        El-Yaniv and Wiener, 2010: On the Foundations of Noise-free Selective Classification, JMLR 11; Geifman and
        El-Yaniv, 2017, arXiv:1705.08500.
    """
    uncertainty, errors = _checked(uncertainty, errors)
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(group, errors) / size, size)
    kept = np.arange(1, len(errors) + 1)
    return kept / len(errors), np.cumsum(ordered) / kept


def aurc(uncertainty: Any, errors: Any) -> float:
    """Area under the risk-coverage curve: the mean of the risk over all coverages.

    0 is without errors. It mixes two things, how many errors there are and how late they come: a random
    uncertainty gives the error rate, and even the best one `e + (1 - e) log(1 - e)` for an error rate `e`.

    Args:
        uncertainty: one number a prediction, higher is less sure.
        errors: of the same shape: whether the prediction is wrong, or its loss.

    Returns:
        A float; in [0, 1] where errors are yes or no.

    Raises:
        ValueError: if the shapes differ, are empty, or a number is not finite.

    Example:
        >>> round(aurc([0.1, 0.9, 0.4, 0.2], [False, True, True, False]), 4)  # (0 + 0 + 1/3 + 1/2) / 4
        0.2083

    Reference:
        Geifman, Uziel and El-Yaniv, 2018: Bias-Reduced Uncertainty Estimation, arXiv:1805.08206.
    """
    return float(risk_coverage(uncertainty, errors)[1].mean())


def error_auroc(uncertainty: Any, errors: Any) -> float:
    """How well uncertainty tells wrong predictions from right ones.

    The chance that a wrong prediction is the less sure one of a wrong and a right; ties count half.

    Args:
        uncertainty: one number a prediction, higher is less sure.
        errors: of the same shape: whether the prediction is wrong.

    Returns:
        A float in [0, 1], 0.5 for chance; NaN where all are right, or all wrong, and there is nothing to tell.

    Raises:
        ValueError: if the shapes differ, are empty, a number is not finite, or errors are not 0 and 1.

    Example:
        >>> error_auroc([0.1, 0.9, 0.4, 0.2], [False, True, True, False])
        1.0

    Reference:
        Hendrycks and Gimpel, 2017: A Baseline for Detecting Misclassified and Out-of-Distribution Examples,
        arXiv:1610.02136.
    """
    uncertainty, errors = _checked(uncertainty, errors)
    found = np.unique(errors)
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"`errors` must be True or False (1 or 0). Received: {found[~np.isin(found, (0, 1))][0]}")
    return float(roc_auc_score(errors, uncertainty)) if len(found) == 2 else float("nan")


def ood_auroc(uncertainty: Any, foreign: Any) -> float:
    """How well uncertainty tells images of another kind from those the model knows.

    The chance that a foreign image (out of distribution) is less sure than one of the test set; ties count half.

    Args:
        uncertainty: of images of the model's own kind, any shape.
        foreign: uncertainty of images of another kind; as many as there are.

    Returns:
        A float in [0, 1], 0.5 for chance.

    Raises:
        ValueError: if one of them is empty, or a number is not finite.

    Example:
        >>> ood_auroc([0.1, 0.2, 0.6], [0.5, 0.7])  # of six pairs one is the wrong way round
        0.8333333333333334

    Reference:
        Hendrycks and Gimpel, 2017, arXiv:1610.02136.
    """
    own, foreign = (_numbers(n, v) for n, v in (("uncertainty", uncertainty), ("foreign", foreign)))
    return error_auroc(np.concatenate([own, foreign]), np.repeat([0, 1], [len(own), len(foreign)]))


def fit_temperature(logits: Any, labels: Any, ignore_class: int | None = None) -> float:
    """The temperature whose `softmax(logits / T)` has the least negative log-likelihood.

    One number that makes a network less sure (T > 1) or surer (T < 1) and leaves every predicted class as it is.
    Fit it on data that the model was not trained on and that is not the test set. One logit is the foreground of a
    binary task. Log-probabilities, such as the log of a Monte-Carlo mean, go the same way as logits.

    Args:
        logits: `(batch, ..., classes)`, finite.
        labels: integers, `(batch, ..., [1])`.
        ignore_class: a label, say 255, whose pixels do not count.

    Returns:
        A float in [0.01, 100]; a small one where no prediction is wrong, as surer is always better then.

    Raises:
        ValueError: if shapes do not fit, a label is no class, nothing is left to fit on, or logits are not finite.

    Example:
        >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])  # 88 % sure
        >>> T = fit_temperature(logits, [0, 0, 0, 1])  # 75 % right
        >>> round(T, 3), round(float(1 / (1 + np.exp(-2 / T))), 3)
        (1.82, 0.75)

    Reference:
        Guo et al., 2017: On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    if logits.ndim and labels.shape == (*logits.shape[:-1], 1):
        labels = labels[..., 0]
    if logits.ndim < 2 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            "`labels` must hold one integer for each vector of `logits` along its last axis. "
            f"Received: labels of shape {labels.shape}, logits of shape {logits.shape}"
        )
    counts = labels != ignore_class
    logits, labels = logits[counts], labels[counts].astype("int64")  # (values, classes), (values,)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    if not len(labels):
        raise ValueError(f"There is no label to fit a temperature on but the ignored. Received: {counts.size}")
    if not np.isfinite(logits).all():
        raise ValueError(f"`logits` must be finite. Received: {(~np.isfinite(logits)).sum()} that are not")
    wrong = (labels < 0) | (labels >= logits.shape[-1])
    if wrong.any():
        raise ValueError(f"`labels` must be in [0, {logits.shape[-1]}). Received: {labels[wrong][0]}")
    if (logits.argmax(-1) == labels).all():
        return _COLDEST
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=-1)[rows, labels].mean())

    # Convex in 1 / T, so with one minimum in log T.
    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _numbers(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values, "float64").ravel()
    if not values.size or not np.isfinite(values).all():
        what = f"{(~np.isfinite(values)).sum()} that are not" if values.size else "none"
        raise ValueError(f"`{name}` must be one or more finite numbers. Received: {what}")
    return values


def _checked(uncertainty: Any, errors: Any) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(uncertainty) != np.shape(errors):
        raise ValueError(
            "`uncertainty` and `errors` must have one shape. "
            f"Received: {np.shape(uncertainty)} and {np.shape(errors)}"
        )
    return _numbers("uncertainty", uncertainty), _numbers("errors", errors)
