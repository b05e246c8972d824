"""A random choice of answers, for temperatures and figures, of bounded size for data of any size."""

import numpy as np

from dropzoo.serving.calibration.fitting.heldout import VOID

_PER_IMAGE = 256  # positions that are kept from each image
_MOST = 1 << 15
_VALUES = 1 << 23  # at most this many numbers are kept


class Rows:
    """Keeps answers at random positions of images. The choice does not depend on the order of the images.

    Args:
        samples: Int, the number of samples of an answer.
        classes: Int, the size of the last axis of an answer.
    """

    def __init__(self, samples: int, classes: int) -> None:
        self._most = max(256, min(_MOST, _VALUES // (samples * classes)))
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._count = 0

    def add(self, keys: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch.

        Args:
            keys: Uint64 array `(batch,)`, a number for each image.
            answers: Array `(batch, samples, positions, outputs)`.
            labels: Array `(batch, positions, ...)`, as in `Batch`.
        """
        for key, answer, label in zip(keys, answers, labels, strict=True):
            random = np.random.default_rng(int(key))
            counts = np.flatnonzero(label != VOID) if label.ndim == 1 else np.arange(len(label))
            chosen = counts[random.permutation(len(counts))[:_PER_IMAGE]]
            weights = random.random(len(chosen))
            rows = np.moveaxis(answer[:, chosen], 0, 1)
            self._parts.append((weights, np.full(len(chosen), key), rows, label[chosen]))
            self._count += len(chosen)
        if self._count > 2 * self._most:
            self._shrink()

    def _shrink(self) -> None:
        """Keeps the rows of the smallest weights, which are a random choice of all rows so far."""
        joined = tuple(np.concatenate(each) for each in zip(*self._parts, strict=True))
        if len(joined[0]) > self._most:
            kept = np.sort(np.argpartition(joined[0], self._most)[: self._most])
            joined = tuple(each[kept] for each in joined)
        self._parts, self._count = [joined], len(joined[0])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the keys `(rows,)`, the answers `(rows, samples, outputs)` and the labels `(rows, ...)`."""
        self._shrink()
        _, keys, answers, labels = self._parts[0]
        return keys, answers, labels


def image_means(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values of each image, in the order of the keys.

    Args:
        keys: Uint64 array `(rows,)`, the image of each row.
        values: Float array `(rows,)`.
    """
    _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.bincount(places, values) / counts
