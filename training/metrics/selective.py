"""Figures that judge an uncertainty: does it find doubtful predictions, errors and foreign images?"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score


def risk_coverage(uncertainty: ArrayLike, errors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean error of the k most certain predictions, for every k from 1 to all of them.

    The predictions are put in the order of their uncertainty; `risk[k - 1]` is the mean error of the first `k`.
    Predictions of equal uncertainty could have any order. So the error of each is replaced by the mean of their
    errors. This gives the average of `risk` over these orders.

    Args:
        uncertainty: Array of any shape, one number for each prediction; higher for a less certain prediction, such
            as the entropy, the mutual information, or 1 - confidence.
        errors: Array of the same shape. Whether each prediction is wrong, or its loss.

    Returns:
        `(coverage, risk)`, float64 arrays `(predictions,)`: the share of the predictions that is kept, in (0, 1],
        and the mean error of the predictions that are kept.

    Raises:
        ValueError: If the shapes differ, the arrays are empty, or a number is not finite.

    Example:
    >>> from dropzoo import training
    >>> coverage, risk = training.risk_coverage([0.1, 0.9, 0.4, 0.2], [False, True, True, False])
    >>> coverage.tolist(), risk.round(3).tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.5])

    Reference:
        El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 11, 2010; Geifman
        and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017, arXiv:1705.08500.
    """
    uncertainty, errors = _checked(uncertainty, errors)
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(group, errors) / size, size)
    kept = np.arange(1, len(errors) + 1)
    return kept / len(errors), np.cumsum(ordered) / kept


def aurc(uncertainty: ArrayLike, errors: ArrayLike) -> float:
    """Returns the area under the risk-coverage curve: the mean of the risk over all coverages.

    It is 0 if there are no errors. It depends on the number of errors, and on how late they come in the order from
    certain to uncertain. For many predictions with the error rate `e`, it is about `e` with a random uncertainty,
    and about `e + (1 - e) log(1 - e)` with the best possible uncertainty.

    Args:
        uncertainty: Array of any shape, one number for each prediction, higher for a less certain one.
        errors: Array of the same shape. Whether each prediction is wrong, or its loss.

    Returns:
        Float; in [0, 1] if the errors are True or False.

    Raises:
        ValueError: If the shapes differ, the arrays are empty, or a number is not finite.

    Example:
    >>> from dropzoo import training
    >>> round(training.aurc([0.1, 0.9, 0.4, 0.2], [False, True, True, False]), 4)  # (0 + 0 + 1/3 + 1/2) / 4
    0.2083

    Reference:
        Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2018,
        arXiv:1805.08206.
    """
    return float(risk_coverage(uncertainty, errors)[1].mean())


def error_auroc(uncertainty: ArrayLike, errors: ArrayLike) -> float:
    """Returns how well uncertainty separates wrong predictions from right ones.

    It is the probability that a wrong prediction is less certain than a right one; ties count half.

    Args:
        uncertainty: Array of any shape, one number for each prediction, higher for a less certain one.
        errors: Array of the same shape. Whether each prediction is wrong.

    Returns:
        Float in [0, 1], 0.5 for chance; NaN if all predictions are right or all are wrong.

    Raises:
        ValueError: If the shapes differ, the arrays are empty, a number is not finite, or an error is not 0 or 1.

    Example:
    >>> from dropzoo import training
    >>> training.error_auroc([0.1, 0.9, 0.4, 0.2], [False, True, True, False])
    1.0

    Reference:
        Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
        Networks", 2017, arXiv:1610.02136.
    """
    uncertainty, errors = _checked(uncertainty, errors)
    found = np.unique(errors)
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"`errors` must be True or False (1 or 0). Received: {found[~np.isin(found, (0, 1))][0]}")
    return float(roc_auc_score(errors, uncertainty)) if len(found) == 2 else float("nan")


def ood_auroc(uncertainty: ArrayLike, foreign: ArrayLike) -> float:
    """Returns how well uncertainty separates images of another kind from images like the training data.

    It is the probability that a foreign (out-of-distribution) image is less certain than one like the training
    data; ties count half.

    Args:
        uncertainty: Array of any shape. The uncertainty of images like the training data.
        foreign: Array of any shape and size. The uncertainty of images of another kind.

    Returns:
        Float in [0, 1], 0.5 for chance.

    Raises:
        ValueError: If an array is empty, or a number is not finite.

    Example:
    >>> from dropzoo import training
    >>> training.ood_auroc([0.1, 0.2, 0.6], [0.5, 0.7])  # one of the six pairs is in the wrong order
    0.8333333333333334

    Reference:
        Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
        Networks", 2017, arXiv:1610.02136.
    """
    own, foreign = (_numbers(n, v) for n, v in (("uncertainty", uncertainty), ("foreign", foreign)))
    return error_auroc(np.concatenate([own, foreign]), np.repeat([0, 1], [len(own), len(foreign)]))


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Returns a flat float64 array, or raises a ValueError that names the argument."""
    values = np.asarray(values, "float64").ravel()
    if not values.size or not np.isfinite(values).all():
        what = f"{(~np.isfinite(values)).sum()} that are not" if values.size else "none"
        raise ValueError(f"`{name}` must be one or more finite numbers. Received: {what}")
    return values


def _checked(uncertainty: ArrayLike, errors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns two flat float64 arrays of the same size, or raises a ValueError."""
    if np.shape(uncertainty) != np.shape(errors):
        raise ValueError(
            "`uncertainty` and `errors` must have the same shape. "
            f"Received: {np.shape(uncertainty)} and {np.shape(errors)}"
        )
    return _numbers("uncertainty", uncertainty), _numbers("errors", errors)
