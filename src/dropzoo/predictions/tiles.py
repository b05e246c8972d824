"""An image that is larger than memory: its answer, tile by tile and strip by strip."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import tensorflow as tf

from dropzoo.predictions.reading import Page, Rows
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.statistics import Arrays
from dropzoo.serving.calibration.answers import WholeImage
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.tiles import tiled_strips

_BATCH_PIXELS = 2**18  # of the tiles that are computed at a time by default, which bounds the memory


def check_order(predictor: Predictor) -> None:
    """Raises a ValueError if a model takes images whose channels come first, which cannot be tiled."""
    shape = (1, 2, 3, predictor.input_shape[-1])
    if predictor.feed is not None and tuple(predictor.feed(tf.zeros(shape)).shape) != shape:
        raise ValueError(
            "Tiles need images with channels last, but the model takes channels first. Build a model with an "
            "input of (height, width, channels) and keras.layers.Permute((3, 1, 2)) after it, and save that "
            "model; or leave out --tile"
        )


class Tiles:
    """A large image, opened but not read.

    Args:
        predictor: A predictor whose sampler draws fixed masks.
        page: The image.
        tile: Int, the size of a tile in pixels.
        overlap: Int, how many pixels neighbouring tiles share.
        batch_size: Int, how many tiles are computed at a time; None for a number that depends on their size.

    Attributes:
        size: `(height, width)`.

    Raises:
        ValueError: If the model cannot sample tiles, or the image does not fit the model.
    """

    def __init__(self, predictor: Predictor, page: Page, tile: int, overlap: int, batch_size: int | None) -> None:
        if predictor.sampler is None:
            raise ValueError("Tiles need the Keras model: pass the run or the .keras file")
        self._predictor, self._sampler = predictor, predictor.sampler
        self._tile, self._overlap, self._batch_size = tile, overlap, batch_size or max(1, _BATCH_PIXELS // tile**2)
        self._opened = contextlib.ExitStack()
        try:
            image = _opened(page, predictor.value_range, self._opened)
            self._image = _Scaled(predictor, image, page.key)
            self._image.converted((slice(0, 1), slice(0, 1)))  # an image that does not fit is refused at once
        except BaseException:
            self._opened.close()
            raise
        self.size = (int(image.shape[0]), int(image.shape[1]))

    def rows(self, rows: slice) -> np.ndarray:
        """Returns rows of the image, float32 in [0, 1]."""
        return self._image.converted((rows, slice(None)))

    def strips(self) -> Iterator[tuple[slice, Arrays]]:
        """Yields the statistics of rows, with the answers of a calibration, once; the image is then closed.

        An answer that depends on the whole image can be given only when all tiles have been computed. Until then,
        the strips wait in a temporary file.
        """
        calibration = self._predictor.calibration
        with self._opened:
            found = self._computed()
            if calibration is None:
                answered = found
            elif calibration.needs_image:
                answered = _with_whole(calibration, found)
            else:
                answered = ((rows, _answers(calibration, strip, None)) for rows, strip in found)
            for rows, strip in answered:
                yield rows, self._predictor.arranged(strip)

    def _computed(self) -> Iterator[tuple[slice, Arrays]]:
        options = {"tile": self._tile, "overlap": self._overlap, "batch_size": self._batch_size}
        for strip in tiled_strips(self._sampler, self._image, **options):
            yield strip.rows, strip.statistics[0]


def _with_whole(
    calibration: Calibration, strips: Iterable[tuple[slice, Arrays]]
) -> Iterator[tuple[slice, Arrays]]:
    """Yields strips with the answers that depend on the whole image."""
    parts: list[WholeImage] = []
    places: list[slice] = []
    pixels: list[int] = []
    with tempfile.TemporaryFile() as file:
        for rows, strip in strips:
            mean = strip["mean"]
            parts.append(WholeImage.of(tf.constant(mean[None]), calibration.facts.task))
            places.append(rows)
            pixels.append(mean.shape[0] * mean.shape[1])
            _write(file, strip)
        file.seek(0)
        image = WholeImage.of_parts(parts, pixels)
        for rows in places:
            yield rows, _answers(calibration, _read(file), image)


def _answers(calibration: Calibration, strip: Arrays, image: WholeImage | None) -> Arrays:
    batch = {name: tf.constant(values[None]) for name, values in strip.items()}
    return {name: values[0].numpy() for name, values in calibration.apply(batch, image).items()}


def _write(file: IO[bytes], strip: Arrays) -> None:
    """Writes a strip; what follows the count is a name and an array for each statistic."""
    np.save(file, np.array(list(strip)))
    for values in strip.values():
        np.save(file, values)


def _read(file: IO[bytes]) -> Arrays:
    return {str(name): np.load(file) for name in np.load(file)}


class _Scaled:
    """A large image as the model takes it, converted part by part."""

    ndim = 3

    def __init__(self, predictor: Predictor, image: Any, name: str) -> None:
        self._predictor, self._image, self._name = predictor, image, name
        self.shape = (*image.shape[:2], predictor.input_shape[-1])

    def converted(self, place: tuple[slice, ...]) -> np.ndarray:
        return self._predictor.converted(np.asarray(self._image[place]), self._name)

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        part = self.converted(place)
        feed = self._predictor.feed
        return part if feed is None else np.asarray(feed(tf.constant(part)))


def _opened(page: Page, value_range: tuple[float, float] | None, opened: contextlib.ExitStack) -> Any:
    """A large image, read in parts if the file allows that."""
    if page.place is not None:
        try:
            return opened.enter_context(contextlib.closing(Rows(page, value_range)))
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
    return page.read(value_range)
