"""Answers to many images: read ahead, computed in batches, or in tiles where an image is too large for that."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_count
from dropzoo.predictions.reading import Page
from dropzoo.predictions.summary import MaskSummary, Row, row_of_classes, row_of_labels
from dropzoo.predictions.tiles import Tiles, check_order
from dropzoo.predictions.values import ValueSummary, row_of_values
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.statistics import Arrays, check_finite

_READERS = 2  # threads that read files ahead
_HELD_PIXELS = 2**22  # of images that are read ahead, which bounds the memory
_BATCH_VALUES = 2**20  # pixels times classes of a batch, for the default size of a batch
_MOST = 64  # images of a batch
_AT_ONCE = 2  # batches that are computed at a time, so that no core waits for the end of a batch
_Computed = dict[int, "Arrays | Exception"]


@dataclass
class Answer:
    """The answer of a model for an image.

    Attributes:
        page: The image file, and the number of the page within it.
        size: `(height, width)` of the image in its file, in pixels. It is first turned upright by the
            orientation that the file states.
        is_map: Bool, whether there is an answer for each pixel.
        strips: The statistics in the size of the image, from the first row to the last: pairs of a slice of rows
            and a dict of arrays `(rows, width, ...)`. They can be iterated once. An answer without a map has one
            strip, `(slice(0, 1), {"mean": (classes,), ...})`.
        image: Function from a slice of rows to these rows of the image, float32 in [0, 1].
        error: The reason why there is no answer; None if there is one.
    """

    page: Page
    size: tuple[int, int] = (0, 0)
    is_map: bool = False
    strips: Iterable[tuple[slice, Arrays]] = ()
    image: Callable[[slice], np.ndarray] | None = None
    error: Exception | None = None

    def whole(self) -> Arrays:
        """Returns the statistics of the whole image as arrays by name; the strips are then used up."""
        strips = [strip for _, strip in self.strips]
        if len(strips) == 1:
            return strips[0]
        return {
            name: np.concatenate([strip[name] for strip in strips])
            if first.ndim
            else first  # `defer` is one answer
            for name, first in strips[0].items()
        }

    def row(self, predictor: Predictor, see: Callable[[slice, Arrays], None] = lambda rows, strip: None) -> Row:
        """Returns the image's row of the table that `dropzoo predict --table` writes; the strips are then used up.

        Args:
            predictor: The `Predictor` that gave the answer.
            see: Function that is called with the slice of rows and the statistics of each strip, such as one that
                writes them to a file.

        Raises:
            ValueError: If the model's answer is not finite.
        """
        made = {} if predictor.calibration is None else predictor.calibration.guarantees
        promised = {
            kind: made[name].classes for kind, name in (("outer", "miss"), ("inner", "false")) if name in made
        }
        names, several = predictor.class_names, predictor.task == "multi_label"
        values = predictor.task == "regression"
        summary: MaskSummary | ValueSummary = (
            ValueSummary(names) if values else MaskSummary(names, predictor.num_samples, promised, several)
        )
        row_of = row_of_values if values else row_of_labels if several else row_of_classes
        row: Row = {}
        for rows, strip in self.strips:
            check_finite(strip["mean"])
            see(rows, strip)
            if self.is_map:
                summary.add(strip)
            else:
                row = row_of(strip, names)
        return summary.row(self.size) if self.is_map else row


@dataclass
class _Loaded:
    """An image that was read: as float32 in [0, 1], and in the size of the model."""

    page: Page
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 1), np.float32))
    sized: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 1), np.float32))


def answers(
    predictor: Predictor,
    pages: Iterable[Page],
    *,
    batch_size: int | None = None,
    tile: int | None = None,
    overlap: int = 64,
) -> Generator[Answer, None, None]:
    """Yields the answer to each page in order; only a few images are held at a time.

    Images of the same size are computed together if they come soon after one another. With `tile`, larger images
    are computed in tiles; a TIFF file is then read in parts. A page that cannot be read has an `error`.

    Args:
        predictor: The model. With `tile`, its sampler draws fixed masks.
        pages: The pages.
        batch_size: Int, the number of images, or tiles, in a batch; None for a number that depends on their size.
            Two batches of small images may be computed at a time.
        tile: Int, the size of a tile in pixels; None for whole images.
        overlap: Int, how many pixels neighbouring tiles share.
    """
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    computing: deque[Iterator[Answer]] = deque()
    pool = ThreadPoolExecutor(1 if tf.config.list_physical_devices("GPU") else _AT_ONCE, "compute")
    try:
        for loaded in _gathered(_loaded(predictor, pages, tile), 2 * (batch_size or _MOST)):
            if isinstance(loaded, list) and predictor.side_by_side and not _fills_a_batch(loaded):
                computing.append(_begun(pool.submit, predictor, loaded, batch_size))
                if len(computing) > 1:
                    yield from computing.popleft()
                continue
            while computing:
                yield from computing.popleft()
            if isinstance(loaded, list):
                yield from _begun(_now, predictor, loaded, batch_size)
                continue
            if tile is not None and loaded.error is None:
                check_order(predictor)
                loaded = _tiled(predictor, loaded.page, tile, overlap, batch_size)
            yield loaded
        while computing:
            yield from computing.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(found: Iterable[_Loaded | Answer], most: int) -> Iterator[list[_Loaded] | Answer]:
    """Yields images in lists of a bounded size, and each answer, a large image or an error, by itself."""
    pending: list[_Loaded] = []
    held = 0
    for loaded in found:
        if isinstance(loaded, _Loaded):
            pending.append(loaded)
            held += loaded.image.shape[0] * loaded.image.shape[1]
        if pending and (isinstance(loaded, Answer) or held >= _HELD_PIXELS // 2 or len(pending) >= most):
            yield pending
            pending, held = [], 0
        if isinstance(loaded, Answer):
            yield loaded
    if pending:
        yield pending


def _loaded(predictor: Predictor, pages: Iterable[Page], tile: int | None) -> Iterator[_Loaded | Answer]:
    """Reads pages ahead in threads and yields them in order. A large image is only opened."""

    def load(page: Page) -> _Loaded | Answer:
        try:
            if tile is not None and page.size is not None and _is_large(page.size, tile):
                return Answer(page, is_map=True)
            image = predictor.converted(page.read(predictor.value_range), page.key)
            if tile is not None and _is_large(image.shape, tile):
                return Answer(page, is_map=True)
            return _Loaded(page, image, predictor.sized(image))
        except Exception as error:  # whatever a decoder raises: the other images are still computed
            return Answer(page, error=error)

    held = _Held()

    def begun(page: Page) -> _Loaded | Answer | Page:
        if not held.has_room():
            return page  # it is read when its turn comes
        result = load(page)
        held.add(result)
        return result

    def ended(result: _Loaded | Answer | Page) -> _Loaded | Answer:
        if isinstance(result, Page):
            return load(result)
        held.remove(result)
        return result

    ahead: deque[Future[_Loaded | Answer | Page]] = deque()
    most = 4 * _READERS
    with ThreadPoolExecutor(_READERS, "read") as pool:
        for page in pages:
            ahead.append(pool.submit(begun, page))
            while len(ahead) > most:
                result = ended(ahead.popleft().result())
                most = _ahead(result)
                yield result
        while ahead:
            yield ended(ahead.popleft().result())


class _Held:
    """How many images were read ahead, and how many pixels they have."""

    def __init__(self) -> None:
        self._lock, self._images, self._pixels = threading.Lock(), 0, 0

    def has_room(self) -> bool:
        """Whether another image may be read: there are few, or they are small."""
        with self._lock:
            return self._images < 2 * _READERS or self._pixels < _HELD_PIXELS

    def add(self, result: _Loaded | Answer) -> None:
        """Counts an image that was read."""
        self._count(result, 1)

    def remove(self, result: _Loaded | Answer) -> None:
        """Forgets an image that is no longer held here."""
        self._count(result, -1)

    def _count(self, result: _Loaded | Answer, sign: int) -> None:
        if isinstance(result, _Loaded):
            with self._lock:
                self._images += sign
                self._pixels += sign * result.image.shape[0] * result.image.shape[1]


def _ahead(loaded: _Loaded | Answer) -> int:
    """How many images to read ahead, if they are like this one."""
    pixels = 0 if isinstance(loaded, Answer) else loaded.image.shape[0] * loaded.image.shape[1]
    return int(np.clip(_HELD_PIXELS // (4 * pixels), 2 * _READERS, 2 * _MOST)) if pixels else 4 * _READERS


def _is_large(shape: Sequence[int], tile: int) -> bool:
    return max(shape[:2]) > tile


def _fills_a_batch(loaded: list[_Loaded]) -> bool:
    """Whether an image is so large that it is a batch of its own. Two of them at a time could fill the memory."""
    return any(each.sized.shape[0] * each.sized.shape[1] >= _BATCH_VALUES for each in loaded)


def _now(compute: Callable[..., _Computed], *arguments: Any) -> Future[_Computed]:
    """Computes in this thread, for models whose calls must not overlap. An interrupt stops it."""
    done: Future[_Computed] = Future()
    done.set_result(compute(*arguments))
    return done


def _begun(
    submit: Callable[..., Future[_Computed]], predictor: Predictor, loaded: list[_Loaded], batch_size: int | None
) -> Iterator[Answer]:
    """Begins to compute images, those of the same size together. Returns their answers in order."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, each in enumerate(loaded):
        by_size.setdefault(each.sized.shape, []).append(i)
    found: dict[int, Future[_Computed]] = {}
    for shape, places in by_size.items():
        classes = len(predictor.class_names or "ab")
        fitting = int(np.clip(_BATCH_VALUES // (shape[0] * shape[1] * classes), 1, _MOST))
        step = batch_size or fitting
        for first in range(0, len(places), step):
            some = places[first : first + step]
            images = [loaded[i].sized for i in some]
            if first:  # a batch of another size would cost a compilation
                images += [images[-1]] * (step - len(some))
            found |= dict.fromkeys(some, submit(_computed, predictor, images, some))
    return (_answer(each, found.pop(i).result()[i]) for i, each in enumerate(loaded))


def _computed(predictor: Predictor, images: list[np.ndarray], places: list[int]) -> _Computed:
    """The statistics of each image of a batch, or the model's error on it. Images without a place are left out."""
    try:
        out = predictor.predict(np.stack(images))
    except (ValueError, tf.errors.OpError, OSError) as error:
        if len(places) == 1:
            return {places[0]: error}
        each = [_computed(predictor, [image], [i]) for image, i in zip(images, places, strict=False)]
        return {i: got for one in each for i, got in one.items()}  # one bad image fails no other
    return {place: {name: x[i] for name, x in out.items()} for i, place in enumerate(places)}


def _answer(loaded: _Loaded, statistics: Arrays | Exception) -> Answer:
    if isinstance(statistics, Exception):
        return Answer(loaded.page, error=statistics)
    size = (loaded.image.shape[0], loaded.image.shape[1])
    if statistics["mean"].ndim == 1:
        return Answer(loaded.page, size, False, [(slice(0, 1), statistics)], lambda rows: loaded.image[rows])
    whole = {name: in_size(x, size) for name, x in statistics.items()}
    return Answer(loaded.page, size, True, [(slice(0, size[0]), whole)], lambda rows: loaded.image[rows])


def in_size(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a map in the size of its image; other values are unchanged.

    Args:
        values: Array `(height, width)` or `(height, width, classes)`, or of another rank.
        size: `(height, width)`.
    """
    if values.ndim not in (2, 3) or values.shape[:2] == size:
        return values
    deep = values if values.ndim == 3 else values[..., None]
    is_truth = values.dtype == bool
    method = "nearest" if is_truth else "bilinear"
    made = tf.image.resize(deep.astype(np.float32), size, method=method).numpy()
    made = made.astype(bool) if is_truth else made
    return made if values.ndim == 3 else made[..., 0]


def _tiled(predictor: Predictor, page: Page, tile: int, overlap: int, batch_size: int | None) -> Answer:
    """The answer to a large image, which is computed when its strips are read."""
    try:
        image = Tiles(predictor, page, tile, overlap, batch_size)
    except Exception as error:  # whatever a decoder raises: the other images are still computed
        return Answer(page, error=error)
    return Answer(page, image.size, True, image.strips(), image.rows)
