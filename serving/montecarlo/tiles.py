"""Predictions for an image that is too large for one pass, blended from overlapping tiles."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dropzoo.common.checks import check_count
from dropzoo.models.graph.order import channels_first_inputs
from dropzoo.serving.montecarlo.augmentation import TestTimeAugmentation
from dropzoo.serving.montecarlo.blending import Blend, Window, cut_all, windows_of
from dropzoo.serving.montecarlo.calibrated import answered_whole
from dropzoo.serving.montecarlo.ensembles import Ensemble, Rival
from dropzoo.serving.montecarlo.inputs import InputsLike, is_nested
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.sampler import MonteCarlo

_STRIP_PIXELS = 2**18  # of a strip, at least one row, since a strip and its statistics take memory
# The statistics from which those of the whole image follow; a calibration adds answers to the tiles too.
_STATISTICS = ("mean", "variance", "predictive_entropy", "mutual_information")


def predict_tiled(
    mc: MonteCarlo | Ensemble | TestTimeAugmentation,
    image: InputsLike,
    tile: int | tuple[int, ...] = 256,
    overlap: int | tuple[int, ...] = 32,
    *,
    batch_size: int = 4,
) -> Any:
    """Returns the statistics of `MonteCarlo` for one image or volume of any size, from overlapping tiles.

    All tiles have the same size and use the same T masks, so the uncertainty has no seams. The last tiles are
    placed so that they end at the border of the image. Only `batch_size` tiles are on the device at the same time.
    If an axis of the image is shorter than the tile, the tiles are as short as the image; or, if the model only
    takes one size, the image is extended to that size by mirroring it at its end.

    Where two tiles overlap, their answers are blended. In the quarter of the overlap next to its own edge, a tile
    has the weight 0, because it does not see beyond this edge, and the other tile has the weight 1. In the middle
    half of the overlap, the weights change along a squared cosine. The answer is the same as for the whole image
    if three conditions hold:

    - Each output pixel depends on at most `overlap // 4` pixels to each side.
    - The masks do not depend on the position, as with `SpatialDropout2D`. Masks of single units, as with
      `Dropout`, do depend on it: they repeat in each tile.
    - The maps of all tiles lie on the same grid. For a model that reduces the size of its maps by a factor, this
      factor must divide `tile - overlap` and, because of the last tiles, the size of the image minus `tile`.

    Let `w_i` be the weights of the tiles at a pixel; they sum to one. Then `mean = sum w_i mean_i`. The mean
    square and the mean entropy of the samples are averaged in the same way, and the variance and the mutual
    information follow from these. Disagreement between tiles therefore counts as uncertainty.

    Args:
        mc: A `MonteCarlo` with `sampling="fixed"` and a fixed number of samples (not `"auto"`), an `Ensemble`
            without dropout or with `sampling="fixed"`, or a `TestTimeAugmentation`. The output of its model has
            the height and width of the images.
        image: Floating point array `(height, width, channels)`, a volume `(depth, height, width, channels)` or a
            signal `(length, channels)`. It is read tile by tile, and may be a memory map. For a model of several
            inputs, a list or a dict by name: the inputs with the most axes are cut into tiles, and the other
            inputs, such as a feature vector, are passed with each tile.
        tile: Positive int or `(height, width)`, the size of a tile in pixels. It must be the model's size if that
            is fixed. For volumes an int or three ints.
        overlap: Int or `(height, width)`, the number of pixels that neighbouring tiles share, from 0 to half a
            tile.
        batch_size: Positive int, the number of tiles that are computed at the same time.

    Returns:
        A dict of float32 NumPy arrays, like the tensors from `mc` but without the batch axis: `mean` and
        `variance`, `(height, width, classes)`; except for regression also `predictive_entropy` and
        `mutual_information`, `(height, width)`. For several outputs, a dict of such dicts by name.

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
    strips = tiled_strips(mc, image, tile, overlap, batch_size=batch_size)
    whole: list[dict[str, np.ndarray]] = []
    for strip in strips:
        for i, statistics in enumerate(strip.statistics):
            if i == len(whole):
                size = strip.size
                whole.append(
                    {name: np.empty((*size, *x.shape[len(size) :]), x.dtype) for name, x in statistics.items()}
                )
            for name, x in statistics.items():
                whole[i][name][strip.rows] = x
    return answered_whole(joined(whole, mc.reader.names), mc.calibration)


@dataclass(frozen=True)
class Strip:
    """The statistics of a strip of a large image: some positions along its first axis, and all along the others.

    Attributes:
        size: Tuple of ints, the size of the whole image: `(height, width)`.
        rows: Slice of the first axis.
        statistics: For each output a dict of float32 arrays `(rows, width, ...)`, as from `MonteCarlo`.
    """

    size: tuple[int, ...]
    rows: slice
    statistics: list[dict[str, np.ndarray]]


def tiled_strips(
    mc: MonteCarlo | Rival,
    image: Any,
    tile: int | tuple[int, ...] = 256,
    overlap: int | tuple[int, ...] = 32,
    *,
    batch_size: int = 4,
) -> Iterator[Strip]:
    """Yields the statistics of `predict_tiled` strip by strip, so that those of the whole image need no memory.

    A strip is yielded once no further tile reaches its rows. Only one row of tiles is held at a time. A
    calibration tempers the samples; the answers that its guarantees add need the whole image, so they are left
    out.

    Args:
        mc: As for `predict_tiled`.
        image: As for `predict_tiled`. It may be anything with `shape`, `ndim` and slices, such as a file.
        tile: As for `predict_tiled`.
        overlap: As for `predict_tiled`.
        batch_size: As for `predict_tiled`.

    Yields:
        Strips in order. Together they cover the image.

    Raises:
        ValueError: As for `predict_tiled`.
    """
    _check_sampler(mc)
    check_count(batch_size, "batch_size")
    if not mc.reader.known:
        mc.reader.check(_first_batch(image, tile))
    _check_maps(mc)
    _check_order(mc)
    shapes = mc.reader.inputs.shapes
    rank = max(map(len, shapes))
    space = next(shape[1:-1] for shape in shapes if len(shape) == rank)
    whole = _check_images(mc, image, rank)
    size = next(tuple(x.shape[:-1]) for x in whole if x.ndim == rank - 1)
    tile = _check_tile(tile, space)
    overlap = _check_overlap(overlap, tile)
    shape = tuple(n if fixed else min(n, m) for n, m, fixed in zip(tile, size, space, strict=True))
    windows = windows_of(size, shape, overlap)
    starts = list(dict.fromkeys(window.place[0].start for window in windows))
    stops = dict(zip(starts, [*starts[1:], size[0]], strict=True))
    step = max(1, _STRIP_PIXELS // math.prod(size[1:]))
    blends = [Blend((shape[0], *size[1:]), output) for output in mc.reader.outputs]

    def cut_some(some: list[Window]) -> list[np.ndarray]:
        return [cut_all(x, some, shape) if x.ndim == rank - 1 else np.stack([x] * len(some)) for x in whole]

    answers = _answers(mc, windows, batch_size, cut_some)
    for start, row in itertools.groupby(answers, lambda each: each[0].place[0].start):
        for window, statistics in row:
            for blend, found in zip(blends, statistics, strict=True):
                blend.add(window, found, start)
        done = stops[start] - start
        for first in range(0, done, step):
            last = min(first + step, done)
            yield Strip(size, slice(start + first, start + last), [blend.part(first, last) for blend in blends])
        for blend in blends:
            blend.move(done)


def _answers(
    mc: MonteCarlo | Rival,
    windows: list[Window],
    batch_size: int,
    cut: Callable[[list[Window]], list[np.ndarray]],
) -> Iterator[tuple[Window, list[dict[str, np.ndarray]]]]:
    """Yields each tile with the statistics of its outputs, computed in batches."""
    for first in range(0, len(windows), batch_size):
        some = windows[first : first + batch_size]
        batch = cut(some)
        shape = batch[int(np.argmax([x.ndim for x in batch]))].shape[1:-1]
        found = _in_order(mc(batch[0] if len(batch) == 1 else mc.reader.inputs.pack(batch)), mc)
        arrays = [{n: x.numpy() for n, x in each.items() if n in _STATISTICS} for each in found]
        for each in arrays:
            if each["mean"].shape[1:-1] != shape:
                raise ValueError(
                    "The output must have the height and width of the images: add keras.layers.UpSampling2D, or "
                    "another layer that enlarges the maps, at the end of the model. "
                    f"Received: {each['mean'].shape[1:-1]} for images of {shape}"
                )
        for i, window in enumerate(some):
            yield window, [{name: x[i] for name, x in each.items()} for each in arrays]


def _in_order(found: Any, mc: MonteCarlo | Rival) -> list[dict[str, Any]]:
    """The statistics of each output, in order."""
    names = mc.reader.names
    return [found] if len(names) == 1 else [found[name] for name in names]


def _check_sampler(mc: MonteCarlo | Rival) -> None:
    if not isinstance(mc, (MonteCarlo, Rival)):
        raise ValueError(f"`mc` must be a MonteCarlo, an Ensemble or a TestTimeAugmentation. Received: {mc!r}")
    if mc.sampling not in (None, "fixed"):
        kind = "a MonteCarlo" if isinstance(mc, MonteCarlo) else "an Ensemble"
        what = "use" if mc.calibration is None else f"calibrate {kind} with"
        raise ValueError(
            f"All tiles need the same dropout masks: {what} sampling='fixed'. Received: {mc.sampling!r}"
        )
    if isinstance(mc, MonteCarlo) and (mc.auto or mc.return_samples):
        raise ValueError(
            "`predict_tiled` needs a fixed number of samples, and cannot return the samples. "
            f"Received: num_samples={mc.num_samples!r}, return_samples={mc.return_samples}"
        )


def _first_batch(image: InputsLike, tile: int | tuple[int, ...]) -> Any:
    """Returns the first tile of an image as a batch, which shows the inputs and outputs of a subclassed model."""
    given = image if is_nested(image) else np.asanyarray(image)
    rank = max(np.ndim(x) for x in keras.tree.flatten(given))
    sizes = _check_sizes(tile, "tile", rank - 1)
    return keras.tree.map_structure(
        lambda x: np.asarray(x[tuple(map(slice, sizes))] if np.ndim(x) == rank else x)[None], given
    )


def _check_maps(mc: MonteCarlo | Rival) -> None:
    """Raises a ValueError if the model is not one from images to maps."""
    shapes, answers = mc.reader.inputs.shapes, [output.shape for output in mc.reader.outputs]
    rank = max(map(len, shapes))
    if rank < 3 or any(len(answer) != rank for answer in answers):
        raise ValueError(
            "Tiles (`predict_tiled`, --tile) need a model that takes images and returns maps, both of the shape "
            f"(batch, height, width, channels), possibly with more or fewer spatial axes. Received: a model that "
            f"takes {', '.join(map(str, shapes))} and returns {', '.join(map(str, answers))}"
        )


def _check_order(mc: MonteCarlo | Rival) -> None:
    """Raises a ValueError if the channels of images come before their height and width."""
    if any(channels_first_inputs(mc.model)):
        raise ValueError(
            "Tiles need images with their channels last. Put keras.layers.Permute((3, 1, 2)) before the model: "
            "inputs = keras.Input((None, None, channels)), then keras.Model(inputs, "
            f"model(keras.layers.Permute((3, 1, 2))(inputs))). Received: {mc.model.name!r}, which takes "
            "channels first"
        )


def _check_images(mc: MonteCarlo | Rival, image: InputsLike, rank: int) -> list[np.ndarray]:
    """Returns the inputs as arrays without a batch axis. Memory maps stay memory maps."""
    inputs = mc.reader.inputs
    flat = [image] if len(inputs.names) == 1 and not isinstance(image, Mapping) else inputs.in_order(image)
    arrays: list[Any] = [x if hasattr(x, "ndim") and hasattr(x, "__getitem__") else np.asarray(x) for x in flat]
    axes = ("height", "width") if rank == 4 else ("length",) if rank == 3 else ("depth", "height", "width")
    sizes = set()
    for array, shape, name in zip(arrays, inputs.shapes, inputs.names, strict=True):
        is_image = len(shape) == rank
        if array.ndim != len(shape) - 1 or 0 in array.shape or (is_image and array.shape[-1] != shape[-1]):
            wanted = f"({', '.join(axes)}, {shape[-1]})" if is_image else f"{shape[1:]}"
            what = "`image`" if len(arrays) == 1 else f"The input {name!r}"
            raise ValueError(f"{what} must have the shape {wanted}. Received: {array.shape}")
        if is_image:
            sizes.add(tuple(array.shape[:-1]))
    if len(sizes) > 1:
        raise ValueError(f"All images must have the same size. Received: {sorted(sizes)}")
    return arrays


def _check_tile(tile: int | tuple[int, ...], space: tuple[int | None, ...]) -> tuple[int, ...]:
    sizes = _check_sizes(tile, "tile", len(space))
    if any(n not in (None, m) for n, m in zip(space, sizes, strict=True)):
        raise ValueError(f"`tile` must be the model's size, {space}. Received: tile={sizes}")
    return sizes


def _check_overlap(overlap: int | tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    sizes = _check_sizes(overlap, "overlap", len(tile), least=0)
    if any(n > m // 2 for n, m in zip(sizes, tile, strict=True)):
        raise ValueError(f"`overlap` must be at most half of the tile, {tile}. Received: overlap={overlap!r}")
    return sizes


def _check_sizes(value: int | tuple[int, ...], name: str, axes: int, least: int = 1) -> tuple[int, ...]:
    """Returns an int of at least `least`, or one for each axis, as a tuple."""
    each = value if isinstance(value, (tuple, list)) else (value,) * axes
    try:
        sizes = tuple(0 if least == 0 and type(n) is int and n == 0 else check_count(n, name) for n in each)
    except ValueError:
        sizes = ()
    if len(sizes) != axes:
        what = "a positive int" if least else "an int of at least 0"
        raise ValueError(f"`{name}` must be {what}, or {axes} of them. Received: {name}={value!r}")
    return sizes
