"""The windows of the tiles of a large image, and the blend of what a model answers to each of them."""

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.statistics import Sums


@dataclass(frozen=True)
class Window:
    """One tile: its place and its weights along each axis. It may reach beyond the end of the image."""

    place: tuple[slice, ...]
    weights: tuple[np.ndarray, ...]


def windows_of(size: tuple[int, ...], shape: tuple[int, ...], overlap: tuple[int, ...]) -> list[Window]:
    """The tiles of this shape that cover an image of this size."""
    axes = []
    for length, tile, shared in zip(size, shape, overlap, strict=True):
        starts, weights = place(length, tile, shared)
        axes.append([(slice(i, i + tile), w[i : i + tile]) for i, w in zip(starts, weights, strict=True)])
    return [Window(*zip(*each, strict=True)) for each in itertools.product(*axes)]


def place(size: int, tile: int, overlap: int) -> tuple[list[int], np.ndarray]:
    """Returns where tiles start along an axis, and the weight of each tile at each pixel, `(tiles, size)`.

    Args:
        size: Int, the length of the image's axis in pixels.
        tile: Int, the length of a tile.
        overlap: Int, how many pixels neighbouring tiles share, at most half of `tile`.
    """
    count = 1 + math.ceil((size - tile) / (tile - overlap)) if size > tile else 1
    starts = [min(i * (tile - overlap), size - tile) for i in range(count)] if count > 1 else [0]
    margin = overlap // 4
    ramp = (np.arange(tile) - margin + 0.5) / max(overlap - 2 * margin, 1)
    rise = np.sin(np.pi / 2 * np.clip(ramp, 0.0, 1.0)) ** 2 if overlap else np.ones(tile)
    weights = np.zeros((count, size))
    for i, start in enumerate(starts):
        window = np.ones(tile)
        window *= rise if i else 1.0  # at the ends of the image there is no tile to fade into
        window *= rise[::-1] if i < count - 1 else 1.0
        weights[i, start : start + tile] = window[: size - start]
    return starts, weights / weights.sum(0)


def cut_all(image: Any, windows: list[Window], shape: tuple[int, ...]) -> np.ndarray:
    """The tiles of an image, `(tiles, ..., channels)`."""
    return np.stack([_cut(image, window, shape) for window in windows])


def _cut(image: Any, window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """The part of the image in a window, mirrored at the image's end up to the shape of a tile."""
    part = np.asarray(image[window.place])
    missing = [(0, n - m) for n, m in zip(shape, part.shape, strict=False)]
    return np.pad(part, [*missing, (0, 0)], mode="symmetric") if any(n for _, n in missing) else part


class Blend:
    """The weighted sums over tiles of the statistics that may be averaged: mean, mean square and mean entropy.

    It holds one row of tiles, and the rows that the next row of tiles shares with it.
    """

    def __init__(self, size: tuple[int, ...], output: Output) -> None:
        self._size, self._output, self._kind = size, output, output.kind
        self._sums: dict[str, np.ndarray] = {}

    def add(self, window: Window, statistics: dict[str, np.ndarray], start: int) -> None:
        """Adds the statistics of one tile of the row of tiles that begins at `start`."""
        weights = functools.reduce(np.multiply.outer, window.weights)  # the part of the tile inside the image
        dims = weights.ndim
        place = (slice(window.place[0].start - start, window.place[0].stop - start), *window.place[1:])
        for name, x in self._averageable(statistics).items():
            if name not in self._sums:
                self._sums[name] = np.zeros((*self._size, *x.shape[dims:]), x.dtype)
            weight = weights.reshape(*weights.shape, *[1] * (x.ndim - dims)).astype(x.dtype)
            part = self._sums[name][place]
            part[tuple(map(slice, weights.shape))] += x[tuple(map(slice, weights.shape))] * weight

    def _averageable(self, statistics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mean = statistics["mean"].astype("float64" if self._kind == "regression" else "float32")  # as in `Sums`
        out = {"mean": mean, "square": statistics["variance"] + mean * mean}
        if self._kind != "regression":
            out["entropy"] = statistics["predictive_entropy"] - statistics["mutual_information"]
        return out

    def part(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Returns the statistics of some of the rows that are held; they must be complete."""
        mean, square = self._sums["mean"][first:last], self._sums["square"][first:last]
        if self._kind != "regression":
            np.clip(mean, 0.0, 1.0, out=mean)  # rounded weights may sum to slightly more than one
        entropy = self._sums["entropy"][first:last] if "entropy" in self._sums else np.float64(0.0)
        with tf.device("CPU"):  # a whole image may be too large for another device
            sums = Sums(*map(tf.convert_to_tensor, (mean, square, entropy)))
            whole = dataclasses.replace(self._output, shape=(None, *mean.shape[1:]))
            return {name: x.numpy() for name, x in sums.statistics(1, whole).items()}

    def move(self, rows: int) -> None:
        """Forgets the first rows, and moves on to the rows after them."""
        for x in self._sums.values():
            x[: len(x) - rows] = x[rows:].copy()
            x[max(len(x) - rows, 0) :] = 0
