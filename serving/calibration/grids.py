"""Fine grids of thresholds, and how many values of an image reach each threshold.

A promise about masks needs the mean loss over images at each threshold. This takes a few thousand numbers for any
number of images, so a data set may be larger than memory.
"""

import numpy as np

_FINENESS = 4096


def probability_grid() -> np.ndarray:
    """Returns ascending float32 thresholds for probabilities, evenly spaced in logits.

    Every probability reaches the first threshold, 0, and none reaches the last, 2. Close to 1 the thresholds are
    as dense as float32 allows.
    """
    logits = np.linspace(-40.0, 17.0, _FINENESS)
    between = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    return np.unique(np.concatenate([[0.0], between, [2.0]]).astype(np.float32))


def distance_grid() -> np.ndarray:
    """Returns ascending float32 thresholds for distances in deviations.

    The first is 0. From the second on, each is half a percent above the one before. The last is infinity, so no
    distance is above it.
    """
    between = np.geomspace(1e-4, 1e5, _FINENESS)
    return np.concatenate([[0.0], between, [np.inf]]).astype(np.float32)


def count_at_least(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Returns, for each threshold of an ascending grid, how many values are at least as large.

    Args:
        values: Float32 array of any shape, each at least `grid[0]`.
        grid: Float32 array `(thresholds,)`.
    """
    places = np.searchsorted(grid, values.ravel(), side="right") - 1  # the last threshold that each value reaches
    return np.cumsum(np.bincount(places, minlength=len(grid))[::-1])[::-1]


def count_above(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Returns, for each threshold of an ascending grid, how many values are larger.

    Args:
        values: Float32 array of any shape, each at least 0.
        grid: Float32 array `(thresholds,)`, from 0 to infinity.
    """
    places = np.searchsorted(grid, values.ravel(), side="left")  # the first threshold that is not below the value
    counts = np.bincount(places, minlength=len(grid))
    return values.size - np.cumsum(counts)


def missed_share(p: np.ndarray, truth: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Returns the share of a class's pixels that are outside the mask `p >= threshold`, for each threshold.

    It rises with the threshold, and is 0 at the first one.

    Args:
        p: Float32 array `(pixels,)`, the probabilities of the class.
        truth: Bool array `(pixels,)`, the pixels of the class, at least one.
        grid: Float32 array `(thresholds,)`, ascending from 0.
    """
    return 1.0 - count_at_least(p[truth], grid) / truth.sum()


def false_share(p: np.ndarray, truth: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Returns, for each threshold, the largest false share of the masks at it and at all higher thresholds.

    The false share of a mask is the share of its pixels that are not of the class, and 0 for an empty mask. It
    need not fall as the threshold rises: the most certain pixel may be wrong. The largest share over all stricter
    thresholds never rises, and it bounds the share at the threshold.

    Args:
        p: Float32 array `(pixels,)`, the probabilities of the class.
        truth: Bool array `(pixels,)`, the pixels of the class.
        grid: Float32 array `(thresholds,)`, ascending to a value that no probability reaches.
    """
    size, right = count_at_least(p, grid), count_at_least(p[truth], grid)
    false = (size - right) / np.maximum(size, 1)
    return np.maximum.accumulate(false[::-1])[::-1]
