"""Predictions for an image that is too large for one pass, blended from overlapping tiles."""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from dropzoo.common.checks import check_count, check_pair
from dropzoo.serving.montecarlo.ensembles import Rival
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.statistics import Sums


def predict_tiled(
    mc: MonteCarlo | Rival,
    image: ArrayLike,
    tile: int | tuple[int, int] = 256,
    overlap: int | tuple[int, int] = 32,
    *,
    batch_size: int = 4,
) -> dict[str, np.ndarray]:
    """Returns the statistics of `MonteCarlo` for one image of any size, from overlapping tiles.

    All tiles have the same size and the same T masks, so the uncertainty has no seams. The last tiles end where
    the image ends. Only `batch_size` tiles are on the device at a time. If an axis of the image is shorter than
    the tile, the tiles are as short as the image. If the model's size is fixed, the image is instead extended to
    that size, by mirroring it at its end.

    In the overlap of two tiles, one fades into the other along a squared cosine. The fade takes up the middle half
    of the overlap. In the quarter at either end, the tile that ends there has no weight, because it does not see
    beyond its edge. A model whose pixels see at most `overlap // 4` pixels to each side therefore gives the same
    answer as for the whole image, if its masks do not depend on the position, like those of `SpatialDropout2D`.
    Masks of single units repeat in each tile. A model that shrinks its maps by a factor sees them on the same grid
    in each tile if the factor divides `tile - overlap` and, for the last tiles, `size - tile`.

    Let `w_i` be the weights of the tiles at a pixel; they sum to one. Then `mean = sum w_i mean_i`. The mean
    square and the mean entropy of the samples are averaged in the same way, and the variance and the mutual
    information follow from these. Disagreement between tiles therefore counts as uncertainty.

    Args:
        mc: A `MonteCarlo` with `sampling="fixed"` and a number of samples, or an `Ensemble` or
            `TestTimeAugmentation`, which have no masks. The output of its model has the height and width of the
            images.
        image: Floating point array `(height, width, channels)`. It is read tile by tile, and may be a memory map.
        tile: Int or `(height, width)`, the size of a tile in pixels; the model's size if that is fixed.
        overlap: Int or `(height, width)`, how many pixels neighbouring tiles share, from 0 to half a tile.
        batch_size: Int, how many tiles are computed at a time.

    Returns:
        A dict of float32 NumPy arrays, like the tensors from `mc` but without the batch axis: `mean` and
        `variance`, `(height, width, classes)`; except for regression also `predictive_entropy` and
        `mutual_information`, `(height, width)`.

    Raises:
        ValueError: If `mc` has another sampling, `num_samples="auto"` or `return_samples=True`, if the image does
            not fit the model, if the model's output does not have the size of its input, or if the tiles do not
            fit the model or the overlap.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> plan = {"bottleneck*": "spatial_dropout2d:0.5"}
    >>> model = models.build_model("unet", num_classes=2, depth=2, filters=4, dropout=plan)
    >>> mc = serving.MonteCarlo(model, num_samples=4, sampling="fixed")
    >>> out = serving.predict_tiled(mc, np.zeros((70, 50, 1), "float32"), tile=32, overlap=8)
    >>> out["mean"].shape, out["mutual_information"].shape
    ((70, 50, 2), (70, 50))

    Reference:
        Ronneberger, Fischer and Brox, "U-Net", 2015, arXiv:1505.04597, for tiles that overlap.
    """
    _check_sampler(mc)
    check_count(batch_size, "batch_size")
    whole = _check_image(image, mc.model.input_shape)
    size = (whole.shape[0], whole.shape[1])
    tile = _check_tile(tile, mc.model.input_shape)
    overlap = _check_overlap(overlap, tile)
    fixed = [n is not None for n in mc.model.input_shape[1:3]]
    height, width = (n if f else min(n, m) for n, m, f in zip(tile, size, fixed, strict=True))
    windows, blend = _windows(size, (height, width), overlap), _Blend(size, mc.task)
    for first in range(0, len(windows), batch_size):
        some = windows[first : first + batch_size]
        tiles = np.stack([_cut(whole, window, (height, width)) for window in some])
        statistics = {name: x.numpy() for name, x in mc(tiles).items()}
        if statistics["mean"].shape[1:3] != (height, width):
            raise ValueError(
                "The output must have the height and width of the images. "
                f"Received: {statistics['mean'].shape[1:3]} for images of {(height, width)}"
            )
        for i, window in enumerate(some):
            blend.add(window, {name: x[i] for name, x in statistics.items()})
    return blend.statistics()


@dataclass(frozen=True)
class _Window:
    """One tile: its place in the image and its weights along both axes. It may reach beyond the image's end."""

    rows: slice
    columns: slice
    down: np.ndarray
    across: np.ndarray


def _windows(size: tuple[int, int], shape: tuple[int, int], overlap: tuple[int, int]) -> list[_Window]:
    """The tiles of this shape that cover an image of this size."""
    (tops, down), (lefts, across) = (place(*axis) for axis in zip(size, shape, overlap, strict=True))
    return [
        _Window(rows := slice(top, top + shape[0]), columns := slice(left, left + shape[1]), d[rows], a[columns])
        for top, d in zip(tops, down, strict=True)
        for left, a in zip(lefts, across, strict=True)
    ]


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


def _cut(image: np.ndarray, window: _Window, shape: tuple[int, int]) -> np.ndarray:
    """The part of the image in a window, mirrored at the image's end up to the shape of a tile."""
    part = np.asarray(image[window.rows, window.columns])
    missing = [(0, n - m) for n, m in zip(shape, part.shape, strict=False)]
    return np.pad(part, [*missing, (0, 0)], mode="symmetric") if any(n for _, n in missing) else part


class _Blend:
    """The weighted sums over tiles of the statistics that may be averaged: mean, mean square and mean entropy."""

    def __init__(self, size: tuple[int, int], kind: str) -> None:
        self._size, self._kind = size, kind
        self._sums: dict[str, np.ndarray] = {}

    def add(self, window: _Window, statistics: dict[str, np.ndarray]) -> None:
        """Adds the statistics of one tile."""
        weights = np.outer(window.down, window.across)  # the part of the tile that is inside the image
        height, width = weights.shape
        for name, x in self._averageable(statistics).items():
            if name not in self._sums:
                self._sums[name] = np.zeros((*self._size, *x.shape[2:]), x.dtype)
            weight = weights.reshape(height, width, *[1] * (x.ndim - 2)).astype(x.dtype)
            self._sums[name][window.rows, window.columns] += x[:height, :width] * weight

    def _averageable(self, statistics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mean = statistics["mean"].astype("float64" if self._kind == "regression" else "float32")  # as in `Sums`
        out = {"mean": mean, "square": statistics["variance"] + mean * mean}
        if self._kind != "regression":
            out["entropy"] = statistics["predictive_entropy"] - statistics["mutual_information"]
        return out

    def statistics(self) -> dict[str, np.ndarray]:
        """Returns the statistics of the whole image."""
        mean, square = self._sums["mean"], self._sums["square"]
        if self._kind != "regression":
            np.clip(mean, 0.0, 1.0, out=mean)  # rounded weights may sum to slightly more than one
        with tf.device("CPU"):  # a whole image may be too large for another device
            sums = Sums(*map(tf.convert_to_tensor, (mean, square, self._sums.get("entropy", np.float64(0.0)))))
            return {name: x.numpy() for name, x in sums.statistics(1, (None, *mean.shape[1:]), self._kind).items()}


def _check_sampler(mc: MonteCarlo | Rival) -> None:
    if not isinstance(mc, (MonteCarlo, Rival)):
        raise ValueError(f"`mc` must be a MonteCarlo, an Ensemble or a TestTimeAugmentation. Received: {mc!r}")
    if isinstance(mc, MonteCarlo) and mc.sampling != "fixed":
        raise ValueError(f"Tiles need the same masks: use sampling='fixed'. Received: {mc.sampling!r}")
    if isinstance(mc, MonteCarlo) and (mc.auto or mc.return_samples):
        raise ValueError(
            "Tiles need a fixed number of samples and cannot return the samples. "
            f"Received: num_samples={mc.num_samples!r}, return_samples={mc.return_samples}"
        )
    if len(mc.model.input_shape) != 4 or len(mc.model.output_shape) != 4:
        raise ValueError(
            "Tiles need a model from images to maps, both of the shape (batch, height, width, channels). "
            f"Received: {mc.model.input_shape} to {mc.model.output_shape}"
        )


def _check_image(image: ArrayLike, expected: tuple[int | None, ...]) -> np.ndarray:
    """Returns the image as an array; a memory map stays one."""
    array = image if isinstance(image, np.ndarray) else np.asarray(image)
    if array.ndim != 3 or 0 in array.shape or array.shape[-1] != expected[-1]:
        raise ValueError(f"`image` must have the shape (height, width, {expected[-1]}). Received: {array.shape}")
    return array


def _check_tile(tile: int | tuple[int, int], expected: tuple[int | None, ...]) -> tuple[int, int]:
    pair = check_pair(tile, "tile")
    if any(n not in (None, m) for n, m in zip(expected[1:3], pair, strict=True)):
        raise ValueError(f"`tile` must be the model's size, {expected[1:3]}. Received: tile={pair}")
    return pair


def _check_overlap(overlap: int | tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    pair = (0, 0) if type(overlap) is int and overlap == 0 else check_pair(overlap, "overlap")
    if any(n > m // 2 for n, m in zip(pair, tile, strict=True)):
        raise ValueError(f"`overlap` must be at most half of the tile, {tile}. Received: overlap={overlap!r}")
    return pair
