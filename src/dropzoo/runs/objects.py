"""Scores of the objects and of the boundaries in masks, each of one class in one image."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_SAME = 0.5  # above this IoU, a predicted and a true object can only be each other's


class Objects(NamedTuple):
    """The objects of a class that were found in one image, or in several: counts, and the sum of the IoU.

    Attributes:
        found: Int, the number of predicted objects that are true ones: their IoU is above 0.5.
        extra: Int, the number of the other predicted objects.
        missed: Int, the number of true objects that were not found.
        overlap: Float, the sum of the IoU of the found objects.
    """

    found: int = 0
    extra: int = 0
    missed: int = 0
    overlap: float = 0.0

    def plus(self, other: "Objects") -> "Objects":
        """Returns the sum of both."""
        return Objects(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[arg-type]

    @property
    def f1(self) -> float | None:
        """The F1 score of the objects, in [0, 1]; None without any object."""
        count = 2 * self.found + self.extra + self.missed
        return 2 * self.found / count if count else None

    @property
    def quality(self) -> float | None:
        """The panoptic quality, in [0, 1]: the F1 score times the mean IoU of the found objects; None without any.

        Reference:
            Kirillov et al., "Panoptic Segmentation", 2019, arXiv:1801.00868.
        """
        count = self.found + 0.5 * (self.extra + self.missed)
        return self.overlap / count if count else None


def compare_objects(predicted: np.ndarray, true: np.ndarray, numbers: np.ndarray | None = None) -> Objects:
    """Compares the objects of two masks: their regions, in which pixels may be connected at corners.

    Args:
        predicted: Array `(height, width)` of bool.
        true: Array of the same shape.
        numbers: Int array of the same shape, the numbers of the true objects, which may touch; None if the regions
            are the objects.
    """
    corners = np.ones((3, 3), bool)
    own, count = ndimage.label(predicted, corners)
    if numbers is None:
        theirs, wanted = ndimage.label(true, corners)
    else:
        inside = true & (numbers > 0)
        values, places = np.unique(numbers[inside], return_inverse=True)
        wanted, theirs = len(values), np.zeros(true.shape, np.int64)
        theirs[inside] = places + 1
    if not count or not wanted:
        return Objects(0, count, wanted)
    shared = np.bincount((own * (wanted + 1) + theirs).ravel(), minlength=(count + 1) * (wanted + 1))
    shared = shared.reshape(count + 1, wanted + 1)
    union = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    iou = shared[1:, 1:] / np.maximum(union[1:, 1:], 1)
    same = iou > _SAME
    found = int(same.sum())
    return Objects(found, count - found, wanted - found, float(iou[same].sum()))


def boundary_distances(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the distances, in pixels, from each boundary pixel of one mask to the boundary of the other.

    Args:
        predicted: Array `(height, width)` of bool.
        true: Array of the same shape.

    Returns:
        The distances of the predicted boundary and those of the true one; None if a mask is empty.
    """
    edges = [mask ^ ndimage.binary_erosion(mask) for mask in (predicted, true)]
    if not edges[0].any() or not edges[1].any():
        return None
    return (
        ndimage.distance_transform_edt(~edges[1])[edges[0]],
        ndimage.distance_transform_edt(~edges[0])[edges[1]],
    )


def hd95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the larger of the 95th percentiles of the distances of both boundaries, in pixels."""
    return float(max(np.percentile(each, 95) for each in distances))


def surface_dice(distances: tuple[np.ndarray, np.ndarray], tolerance: float = 1.0) -> float:
    """Returns the share of both boundaries that is at most `tolerance` pixels from the other, in [0, 1].

    Reference:
        Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", 2021,
        arXiv:1809.04430.
    """
    near = sum(int((each <= tolerance).sum()) for each in distances)
    return near / sum(len(each) for each in distances)
