"""Intervals for measurements that hold at their level: fitted on images whose numbers are known.

The samples of an image say how uncertain a number is; the known images say how far to trust that. Let `m` be the
estimate, `e = m + bias` the corrected estimate, and `s` the scale `w0 + w1 sd + w2 sqrt(m)`, in which `sd` is the
deviation of the samples. The interval is `e - q s` to `e + q s`, but never below 0, where q is the conformal
quantile of `|truth - e| / s` over the known images.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class Interval:
    """The interval of one number, such as the count of a class.

    Attributes:
        level: Float in (0, 1), the share of images whose number lies in its interval.
        quantile: Float, the factor of the scale.
        weights: The weights of the scale: a constant, the deviation of the samples, the root of the estimate.
        bias: Float, the median of `truth - estimate`, which is added to an estimate.
        n: Int, the number of images that the quantile rests on.
    """

    level: float
    quantile: float
    weights: tuple[float, float, float]
    bias: float
    n: int

    def around(self, estimate: float, deviation: float) -> tuple[float, float]:
        """Returns the interval around an estimate, not below 0.

        Args:
            estimate: Float, the number in the mask that the mean of the samples gives.
            deviation: Float, the standard deviation of the number over the samples.
        """
        reach = self.quantile * float(_scale(np.array([estimate]), np.array([deviation]), self.weights)[0])
        return max(estimate + self.bias - reach, 0.0), max(estimate + self.bias + reach, 0.0)

    def to_json(self) -> dict[str, object]:
        """Returns the interval as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> "Interval":
        """Returns the interval that `to_json` described."""
        values = dict(said)
        values["weights"] = tuple(values["weights"])  # type: ignore[arg-type]
        return cls(**values)  # type: ignore[arg-type]


def fit(
    estimates: Sequence[float] | np.ndarray,
    deviations: Sequence[float] | np.ndarray,
    truths: Sequence[float] | np.ndarray,
    level: float = 0.9,
) -> Interval:
    """Returns the interval that covers the truth in the share `level` of images like the known ones.

    Every third image fits the weights of the scale; the others give the quantile, so that the promise holds for
    any model as long as images are exchangeable.

    Args:
        estimates: For each known image, the number in the mask that the mean of the samples gives.
        deviations: For each image, the standard deviation of the number over the samples.
        truths: For each image, the true number.
        level: Float in (0, 1).

    Raises:
        ValueError: If there are too few images for the level.

    Reference:
        Lei et al., "Distribution-free predictive inference for regression", 2018, arXiv:1604.04173, for conformal
        intervals that are scaled by an estimate of the error.
    """
    e, s, t = (np.asarray(x, float) for x in (estimates, deviations, truths))
    first = np.arange(len(e)) % 3 == 0
    rest = ~first
    n = int(rest.sum())
    rank = _rank(n, level)
    if rank > n:
        least = next(each for each in itertools.count(1) if _rank(2 * each // 3, level) <= 2 * each // 3)
        raise ValueError(
            f"Intervals at the level {level:g} need at least {least} images with known masks. Received: {len(e)}"
        )
    bias = float(np.median((t - e)[first]))
    error = np.abs(t - e - bias)
    design = np.stack([np.ones_like(e), s, np.sqrt(np.maximum(e, 0))], -1)
    weights, _ = nnls(design[first], error[first])
    if not weights.any():
        weights = np.array([1.0, 0.0, 0.0])
    weights[0] = max(weights[0], 0.05 * float(design[first][:, 1:].mean(0) @ weights[1:]), 1e-3)
    scale = _scale(e, s, tuple(weights))
    scores = np.sort(error[rest] / scale[rest])
    return Interval(level, float(scores[rank - 1]), tuple(map(float, weights)), bias, n)  # type: ignore[arg-type]


def _rank(count: int, level: float) -> int:
    """Returns which of the sorted errors of `count` images, counted from 1, is the quantile."""
    return math.ceil((count + 1) * level)


def _scale(estimates: np.ndarray, deviations: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    return weights[0] + weights[1] * deviations + weights[2] * np.sqrt(np.maximum(estimates, 0))


def of_samples(values: np.ndarray, level: float = 0.9) -> tuple[float, float]:
    """Returns the interval that holds the share `level` of the samples of a number.

    Args:
        values: Float array `(samples,)`.
        level: Float in (0, 1).
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (0.0, 0.0)
    return float(low), float(high)
