"""Training data in every form that `fit` takes, read as batches, epoch by epoch.

A run can resume at any step. `Feed.resumes` says what the data need for that.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from dropzoo.training.loop import batches
from dropzoo.training.loop.batches import Batch, Epochs
from dropzoo.training.loop.rows import as_batch, first_batches, merged_spec

Prepare: TypeAlias = Callable[[tf.data.Dataset], tf.data.Dataset]

_LOOKED_AT = 4  # the number of batches in `Feed.first`


@contextlib.contextmanager
def unreadable_named(*data: Any) -> Iterator[None]:
    """Raises the error that names the files that cannot be read, in place of TensorFlow's, which names none.

    Args:
        *data: Feeds or datasets that are read in the block; those without an attribute `check_files` do not count.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.UnknownError):
        for each in data:
            if (check_files := getattr(each, "check_files", None)) is not None:
                check_files()
        raise


class Reading(NamedTuple):
    """An iterator over the rest of an epoch.

    Attributes:
        box: List that holds the only reference to the iterator, so that clearing the list frees the iterator.
        left: Int. The number of batches to read; below 0 if it is not known.
        counted: Bool. Whether the iterator is known to have at least `left` batches.
        dataset: The dataset of the iterator.
    """

    box: list[Iterator[Batch]]
    left: int
    counted: bool
    dataset: tf.data.Dataset


class Feed:
    """The batches of a run. A subclass implements `epoch`.

    Args:
        name: Str. The name of the argument, for errors.

    Attributes:
        spec: The specs of a batch, as `tf.data.Dataset.element_spec` gives them.
        steps: Int or None. The number of batches of an epoch, if it is known.
        resumes: Str. A sentence that says when a resumed run on such data is exact; empty if it always is.
        prepare: Function that is applied to the dataset of each epoch.
        ended: Bool. Whether the data have no more batches, in this epoch and in later ones.
        described: List of str. Settings that a resumed run must not change.
        input_range: The values of a black and of a white pixel, or None if the data do not have this attribute.
        bits: Int or None. The bits of a pixel in the files, or None if the data do not have this attribute.
        value_range: The values in files that are black and white, if the data have this attribute, or None.
        ignore_class: Int or None. The label that does not count, if the data have this attribute.
        check_files: Function that raises the error that names the files that cannot be read, if there are any.
    """

    spec: Any
    steps: int | None = None
    resumes = ""
    ended = False
    described: Sequence[str] = ()
    input_range: tuple[float, float] | None = None
    bits: int | None = None
    value_range: tuple[float, float] | None = None
    ignore_class: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.check_files: Callable[[], None] = lambda: None
        self.prepare: Prepare = lambda dataset: dataset

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        """Returns the batches of an epoch, counted from 0, after the first `skip`."""
        raise NotImplementedError

    @functools.cached_property
    def first(self) -> list[Batch]:
        """The first few batches, for choosing the loss. The run reads them again when it begins, as in `fit`."""
        with unreadable_named(self):
            found = [as_batch(batch) for batch in itertools.islice(self.epoch(0, 0), _LOOKED_AT)]
        if not found:
            raise batches.empty(self.name)
        return found

    def open(self, epoch: int, skip: int) -> Reading:
        """Opens the rest of an epoch."""
        dataset = self.prepare(self.epoch(epoch, skip))
        left = int(dataset.cardinality())
        return Reading([iter(dataset)], left, left > 0, dataset)

    def close(self, reading: Reading, done: int) -> None:
        """Ends the reading of an epoch after `done` batches in all."""
        batches.discard(reading.box, reading.dataset)

    def end(self) -> None:
        """Frees the iterators that live longer than an epoch."""


class Epoched(Feed):
    """A `tf.data.Dataset` that each epoch reads from the start, or an object with a dataset for each epoch."""

    def __init__(self, name: str, data: tf.data.Dataset | Epochs, steps: int | None) -> None:
        super().__init__(name)
        self._data, self._take = data, steps
        self.input_range, self.bits = getattr(data, "input_range", None), getattr(data, "bits", None)
        self.ignore_class = getattr(data, "ignore_class", None)
        self.value_range = getattr(data, "value_range", None)
        self.check_files = getattr(data, "check_files", self.check_files)
        first = self.epoch(0, 0)
        self.spec = first.element_spec
        self.steps = max(int(first.cardinality()), 0) or None
        if not hasattr(data, "at_epoch"):
            self.resumes = "A resumed run is exact if the dataset gives the same batches in every pass"

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        found = batches.dataset(self._data, self.name, epoch, self._take)
        return found.skip(skip) if skip else found


class Stream(Feed):
    """Batches that continue from one epoch to the next: a generator, or part of a dataset.

    Args:
        name: Str. The name of the argument.
        dataset: The dataset of all batches.
        steps: Int. The number of batches of an epoch.
        resumes: Str. See `Feed`.
    """

    def __init__(self, name: str, dataset: tf.data.Dataset, steps: int, resumes: str) -> None:
        super().__init__(name)
        self._dataset, self._length, self.steps, self.resumes = dataset, steps, steps, resumes
        self.spec, self.described = dataset.element_spec, [f"{name}.steps: {steps}"]
        self._box: list[Iterator[Batch]] = []

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        return self._dataset.skip(epoch * self._length + skip)

    def open(self, epoch: int, skip: int) -> Reading:
        if not self._box:
            self._box = [iter(self.prepare(self.epoch(epoch, skip)))]
        counted = int(self._dataset.cardinality()) == tf.data.INFINITE_CARDINALITY
        return Reading(self._box, self._length - skip, counted, self._dataset)

    def close(self, reading: Reading, done: int) -> None:
        if done < self._length:
            self.ended = True

    def end(self) -> None:
        if self._box:
            batches.discard(self._box, self._dataset)


class Generator(Stream):
    """A Python generator or iterator of batches, from which an epoch draws `steps` batches."""

    def __init__(self, name: str, data: Iterator[Any], steps: int) -> None:
        first = first_batches(data, name)

        def draw() -> Iterator[Batch]:
            yield from first
            yield from map(as_batch, data)

        resumes = (
            "A resumed run reads the generator from the start and skips the batches that it has trained on: the "
            "result is exact if the generator gives the same batches each time it is created"
        )
        dataset = tf.data.Dataset.from_generator(draw, output_signature=merged_spec(first)).prefetch(
            tf.data.AUTOTUNE
        )
        super().__init__(name, dataset, steps, resumes)
        self.first = first
