"""Images too large for one pass: overlapping tiles, blended."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_pair
from dropzoo.serving.montecarlo.ensembles import Rival
from dropzoo.serving.montecarlo.sampler import MonteCarlo, check_count
from dropzoo.serving.montecarlo.statistics import Sums


def predict_tiled(
    mc: MonteCarlo | Rival,
    image: Any,
    tile: int | tuple[int, int] = 256,
    overlap: int | tuple[int, int] = 32,
    *,
    batch_size: int = 4,
) -> dict[str, np.ndarray]:
    """The figures of `MonteCarlo` for one image of any size, from overlapping tiles.

    All tiles have one size and see the same T masks, so that the uncertainty has no seams; the last ones end where
    the image does. Only `batch_size` tiles are on the device at a time. An axis of the image that is shorter than
    the tile is taken whole; where the model's size is fixed, it is mirrored at its end up to that size.

    In the overlap of two tiles one fades into the other along a squared cosine, which takes up the middle half:
    the outer quarters, where a tile misses what lies beyond its edge, have no weight. A model that sees no further
    than `overlap // 4` pixels to each side thus gives what it gives for the whole image, if its masks do not
    depend on the place: `SpatialDropout2D`. Masks of single units come again in each tile. A model that shrinks
    its maps by a factor sees them on the same grid in each tile where the factor divides `tile - overlap` and, for
    the last tiles, `size - tile`.

    With `w_i` the weights of the tiles at a pixel, which sum to one, `mean = sum w_i mean_i`, and likewise the
    mean square and the mean entropy of the samples; variance and mutual information follow from these. So where
    tiles disagree, that counts as uncertainty.

    Args:
        mc: A MonteCarlo with `sampling="fixed"` and a number of samples, or a rival, which has no masks:
            `Ensemble` or `TestTimeAugmentation`. Its model gives an output of the size of its images.
        image: Floating point `(height, width, channels)`. It is read tile by tile, from a memory map too.
        tile: Int or `(height, width)`, the size of a tile; the model's size, where that is fixed.
        overlap: Int or `(height, width)`, how far neighbours overlap, at most half a tile.
        batch_size: Int, tiles computed at a time.

    Returns:
        A dict of float32 NumPy arrays, as from `mc` without the axis of the batch: `mean` and `variance`,
        `(height, width, classes)`; `predictive_entropy` and `mutual_information`, `(height, width)`, but for
        regression.

    Raises:
        ValueError: for other samplings, for `num_samples="auto"` and `return_samples=True`, for a model whose
            output is not of its image's size, and for tiles that do not fit the model or the overlap.

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
    expected = mc.model.input_shape
    image = image if isinstance(image, np.ndarray) else np.asarray(image)
    if image.ndim != 3 or 0 in image.shape or image.shape[-1] != expected[-1]:
        raise ValueError(f"`image` must have the shape (height, width, {expected[-1]}). Received: {image.shape}")
    size, tile = image.shape[:2], check_pair(tile, "tile")
    overlap = _check_overlap(overlap, tile)
    if any(n not in (None, m) for n, m in zip(expected[1:3], tile, strict=True)):
        raise ValueError(f"`tile` must be the model's size, {expected[1:3]}. Received: tile={tile}")
    fixed = [n is not None for n in expected[1:3]]
    shape = tuple(n if f else min(n, m) for n, m, f in zip(tile, size, fixed, strict=True))
    (tops, down), (lefts, across) = map(place, size, shape, overlap)
    places = [(i, j) for i in range(len(tops)) for j in range(len(lefts))]

    blended: dict[str, np.ndarray] = {}
    for first in range(0, len(places), batch_size):
        some = places[first : first + batch_size]
        windows = [
            tuple(slice(s, s + n) for s, n in zip((tops[i], lefts[j]), shape, strict=True)) for i, j in some
        ]
        figures = {name: x.numpy() for name, x in mc(np.stack([_cut(image, w, shape) for w in windows])).items()}
        if figures["mean"].shape[1:3] != shape:
            raise ValueError(
                "The output must have the height and width of the images. "
                f"Received: {figures['mean'].shape[1:3]} for images of {shape}"
            )
        for k, ((i, j), (rows, columns)) in enumerate(zip(some, windows, strict=True)):
            for name, x in _linear({name: x[k] for name, x in figures.items()}, mc.task).items():
                if name not in blended:
                    blended[name] = np.zeros((*size, *x.shape[2:]), x.dtype)
                region = blended[name][rows, columns]  # ends with the image
                n, m = region.shape[:2]
                weights = np.outer(down[i, rows.start : rows.stop], across[j, columns.start : columns.stop])
                region += x[:n, :m] * weights.reshape(n, m, *[1] * (x.ndim - 2)).astype(x.dtype)
    return _figures(blended, mc.task)


def place(size: int, tile: int, overlap: int) -> tuple[list[int], np.ndarray]:
    """Where tiles start along an axis, and the weight of each tile at each pixel, `(tiles, size)`."""
    count = 1 + math.ceil((size - tile) / (tile - overlap)) if size > tile else 1
    starts = [min(i * (tile - overlap), size - tile) for i in range(count)] if count > 1 else [0]
    margin = overlap // 4
    ramp = (np.arange(tile) - margin + 0.5) / max(overlap - 2 * margin, 1)
    rise = np.sin(np.pi / 2 * np.clip(ramp, 0.0, 1.0)) ** 2 if overlap else np.ones(tile)
    weights = np.zeros((count, size))
    for i, start in enumerate(starts):
        window = np.ones(tile)
        window *= rise if i else 1.0  # at the ends of the image there is nothing to fade into
        window *= rise[::-1] if i < count - 1 else 1.0
        weights[i, start : start + tile] = window[: size - start]
    return starts, weights / weights.sum(0)


def _cut(image: np.ndarray, window: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    part = np.asarray(image[window])
    missing = [(0, n - m) for n, m in zip(shape, part.shape, strict=False)]
    return np.pad(part, [*missing, (0, 0)], mode="symmetric") if any(n for _, n in missing) else part


def _linear(figures: dict[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    """What may be averaged: the mean, the mean square, and the mean entropy of the samples."""
    mean = figures["mean"].astype("float64" if task == "regression" else "float32")  # see `Sums`
    out = {"mean": mean, "square": figures["variance"] + mean * mean}
    if task != "regression":
        out["entropy"] = figures["predictive_entropy"] - figures["mutual_information"]
    return out


def _figures(blended: dict[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    mean, square = blended["mean"], blended["square"]
    if task != "regression":
        np.clip(mean, 0.0, 1.0, out=mean)  # the weights may sum to a rounding more
    with tf.device("CPU"):  # a whole image may be too large elsewhere
        sums = Sums(*map(tf.convert_to_tensor, (mean, square, blended.get("entropy", np.float64(0.0)))))
        return {name: x.numpy() for name, x in sums.figures(1, (None, *mean.shape[1:]), task).items()}


def _check_sampler(mc: Any) -> None:
    if not isinstance(mc, (MonteCarlo, Rival)):
        raise ValueError(f"`mc` must be a MonteCarlo, an Ensemble or a TestTimeAugmentation. Received: {mc!r}")
    if isinstance(mc, MonteCarlo) and mc.sampling != "fixed":
        raise ValueError(f"Tiles need the same masks: MonteCarlo(sampling='fixed'). Received: {mc.sampling!r}")
    if isinstance(mc, MonteCarlo) and (mc.auto or mc.return_samples):
        raise ValueError(
            "Tiles need one number of samples, of which none is kept. "
            f"Received: num_samples={mc.num_samples!r}, return_samples={mc.return_samples}"
        )
    if len(mc.model.input_shape) != 4 or len(mc.model.output_shape) != 4:
        raise ValueError(
            "Tiles need a model from images to maps, (batch, height, width, channels) both. "
            f"Received: {mc.model.input_shape} to {mc.model.output_shape}"
        )


def _check_overlap(overlap: Any, tile: tuple[int, int]) -> tuple[int, int]:
    pair = (0, 0) if type(overlap) is int and overlap == 0 else check_pair(overlap, "overlap")
    if any(n > m // 2 for n, m in zip(pair, tile, strict=True)):
        raise ValueError(f"`overlap` must be at most half of the tile, {tile}. Received: overlap={overlap!r}")
    return pair
