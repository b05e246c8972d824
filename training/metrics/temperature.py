"""Temperature scaling: one number that calibrates a trained classifier."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# The interval in which `fit_temperature` searches.
_COLDEST, _HOTTEST = 0.01, 100.0


def fit_temperature(logits: ArrayLike, labels: ArrayLike, ignore_class: int | None = None) -> float:
    """Returns the temperature `T` with the lowest negative log-likelihood of `softmax(logits / T)`.

    The temperature is one number. It makes a network less certain (T > 1) or more certain (T < 1) and changes no
    predicted class. Fit it on data that the model was not trained on and that is not the test set. A single logit
    is the logit of the foreground in a binary task. You can also pass log-probabilities, such as the log of a
    Monte-Carlo mean.

    If there are only a few labels, and all are predicted correctly, the best temperature would be 0. So each of n
    labels counts as wrong with the probability 1 / (n + 2). This is Laplace's rule of succession: as if there were
    two more predictions, one right and one wrong. With thousands of labels, this makes no difference.

    Args:
        logits: Float array `(batch, ..., classes)`, finite.
        labels: Int array `(batch, ...)` or `(batch, ..., 1)`.
        ignore_class: Int, for example 255, or None. Pixels with this label do not count.

    Returns:
        Float in [0.01, 100].

    Raises:
        ValueError: If the shapes do not fit, if a label is not a class, if all labels are ignored, or if a logit
            is not finite.

    Example:
    >>> import numpy as np
    >>> from dropzoo import training
    >>> logits = np.tile([2.0, 0.0], (1000, 1))  # 88 % certain
    >>> T = training.fit_temperature(logits, [0] * 750 + [1] * 250)  # 75 % right
    >>> round(T, 2), round(float(1 / (1 + np.exp(-2 / T))), 3)
    (1.82, 0.75)

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599; the rule of succession for
        labels: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    scores, classes = np.asarray(logits, "float64"), np.asarray(labels)
    if scores.ndim and classes.shape == (*scores.shape[:-1], 1):
        classes = classes[..., 0]
    if scores.ndim < 2 or classes.shape != scores.shape[:-1]:
        raise ValueError(
            "`labels` must hold one integer for each vector of `logits` along its last axis. "
            f"Received: labels of shape {classes.shape}, logits of shape {scores.shape}"
        )
    counts = classes != ignore_class
    scores, classes = scores[counts], classes[counts].astype("int64")  # (values, classes), (values,)
    if scores.shape[-1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], -1)
    if not len(classes):
        raise ValueError(f"`labels` must hold a label that is not ignored. Received: {counts.size} ignored labels")
    if not np.isfinite(scores).all():
        raise ValueError(f"`logits` must be finite. Received: {(~np.isfinite(scores)).sum()} that are not")
    wrong = (classes < 0) | (classes >= scores.shape[-1])
    if wrong.any():
        raise ValueError(f"`labels` must be in [0, {scores.shape[-1]}). Received: {classes[wrong][0]}")
    rows, others = np.arange(len(classes)), scores.shape[-1] - 1
    doubt = 1 / (len(classes) + 2) if others else 0.0

    def nll(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=-1)
        right = log_p[rows, classes]
        wrong = (log_p.sum(-1) - right) / max(others, 1)
        return -float(((1 - doubt) * right + doubt * wrong).mean())

    # The function is convex in 1 / T, so it has one minimum in log T.
    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
