"""The objects in a mask: connected pixels of a class, with their areas, perimeters and intensities."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_ALL_AROUND = np.ones((3, 3), int)  # pixels that touch at a corner belong together


@dataclass(frozen=True)
class Objects:
    """The objects of one class in one mask.

    Attributes:
        labels: Int32 array `(height, width)`: 0, or the number of the object from 1.
        area: Float array `(objects,)`, pixels.
        perimeter: Float array `(objects,)`, in lengths of a pixel.
        intensity: Float array `(objects, channels)`, the mean of the image, in [0, 1].
    """

    labels: np.ndarray
    area: np.ndarray
    perimeter: np.ndarray
    intensity: np.ndarray

    def __len__(self) -> int:
        return len(self.area)


def find_objects(mask: np.ndarray, image: np.ndarray, *, split: bool = False, min_area: int = 1) -> Objects:
    """Returns the objects in a mask.

    Args:
        mask: Bool array `(height, width)`.
        image: Float array `(height, width, channels)`.
        split: Bool, whether to cut objects that touch where they are narrow, by a watershed.
        min_area: Int, pixels; smaller objects are left out.
    """
    labels = _cut(mask) if split else ndimage.label(mask, _ALL_AROUND)[0]
    area = np.bincount(labels.ravel())[1:]
    kept = area >= min_area
    if not kept.all():
        numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
        labels, area = numbers[labels], area[kept]
    labels = labels.astype(np.int32)
    flat = labels.ravel()
    sums = [np.bincount(flat, image[..., i].ravel(), len(area) + 1)[1:] for i in range(image.shape[-1])]
    intensity = np.stack(sums, -1) / np.maximum(area, 1)[:, None]
    return Objects(labels, area.astype(float), perimeters(labels, len(area)), intensity)


def _cut(mask: np.ndarray) -> np.ndarray:
    """The labels of the parts of a mask, cut where they are narrow.

    A part has a centre where the distance to the edge is the largest around; the watershed of the distance grows
    the parts from their centres.

    Reference:
        Vincent and Soille, "Watersheds in digital spaces", IEEE PAMI 13(6), 1991.
    """
    whole, count = ndimage.label(mask, _ALL_AROUND)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0) * mask
    if not count:
        return whole
    reach = 2 * round(float(np.median(distance[mask]))) + 5
    peaks = (distance == ndimage.maximum_filter(distance, reach)) & mask
    found = np.zeros(mask.shape, np.int32)
    start = 0
    for i, place in enumerate(ndimage.find_objects(whole), 1):
        here = whole[place] == i
        seeds, parts = ndimage.label(peaks[place] & here, _ALL_AROUND)
        grown = _flooded(seeds, distance[place], here) if parts > 1 else here.astype(np.int32)
        found[place][here] = grown[here] + start
        start += max(parts, 1)
    return found


def _flooded(seeds: np.ndarray, height: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels that grow from seeds to all of a mask, the highest pixels first, each to the nearest label."""
    labels = seeds.astype(np.int32)
    for level in np.arange(np.floor(height.max()), -1.0, -1.0):
        new = mask & (height >= level) & (labels == 0)
        if new.any():
            nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
            labels[new] = labels[tuple(nearest)][new]
    return labels


def perimeters(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the length of the outline of each object, by Crofton's formula in four directions.

    The mean number of times that lines across the image cross an outline gives its length. This is right for
    outlines of any shape, on average over their directions; for a square along the axes, it gives 95 % of the
    length.

    Args:
        labels: Int array `(height, width)`.
        count: Int, the number of objects.

    Reference:
        Legland, Kieu and Devaux, "Computation of Minkowski measures on 2D and 3D binary images", 2007.
    """
    padded = np.pad(labels, 1)
    height, width = padded.shape
    total = np.zeros(count + 1)
    for (down, across), spacing in (((0, 1), 1.0), ((1, 0), 1.0), ((1, 1), 0.5**0.5), ((1, -1), 0.5**0.5)):
        rows = slice(0, height - down), slice(down, height)
        columns = (
            (slice(0, width - across), slice(across, width)) if across >= 0 else (slice(1, width), slice(0, -1))
        )
        here, there = padded[rows[0], columns[0]], padded[rows[1], columns[1]]
        differs = here != there
        for side in (here[differs], there[differs]):
            total += spacing * np.bincount(side, minlength=count + 1)
    return np.pi / 8 * total[1:]
