"""Training data in every form that `fit` takes, as the batches of one epoch after the other.

The order of the batches is a function of the seed and the epoch wherever it is this module that orders them, so a
run can go on from any step. `Feed.resumes` says what the data must do for that.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_count
from dropzoo.training.loop import batches
from dropzoo.training.loop.batches import Batch, Epochs
from dropzoo.training.loop.rows import as_batch, is_arrays, merged_spec, read_numbered, tensors

#: What `Trainer.fit` takes as `train` and as `validation_data`.
DataLike: TypeAlias = (
    tf.data.Dataset
    | Epochs
    | keras.utils.PyDataset
    | Iterable[Any]
    | np.ndarray
    | tuple[Any, ...]
    | dict[str, Any]
)
Prepare: TypeAlias = Callable[[tf.data.Dataset], tf.data.Dataset]

_FORMS = (
    "a tf.data.Dataset, an object with `at_epoch(epoch)`, a keras.utils.PyDataset, a generator of batches, or "
    "arrays (x, y) or (x, y, sample_weight). Make a dataset of other data with tf.data.Dataset.from_generator"
)
_REREAD = (
    "A resumed run reads the dataset up to where it stopped: it is exact if the dataset gives the same batches "
    "each time"
)
_LOOKED_AT = 4  # batches


@dataclasses.dataclass
class Order:
    """How data that have no order of their own are read.

    Args:
        steps: Int or None. The number of batches of an epoch; None for all of them.
        shuffle: Bool. Whether each epoch has an order of its own.
        seed: Int. The seed of these orders; a run that goes on sets it to that of its checkpoint.
        batch_size: Int or None. The size of the batches that are cut from arrays; None for 32.
    """

    steps: int | None = None
    shuffle: bool = False
    seed: int = 0
    batch_size: int | None = None


class Reading(NamedTuple):
    """The rest of an epoch, opened.

    Attributes:
        box: List that holds the only reference to the iterator, so that it can be let go.
        left: Int. The number of batches to read; below 0 where it is not known.
        counted: Bool. Whether the iterator is known to hold so many.
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
        steps: Int or None. The number of batches of an epoch, where it is known.
        resumes: Str. What a resumed run does with such data, and what it needs; empty if there is nothing to say.
        prepare: Function that is applied to the dataset of each epoch.
        ended: Bool. Whether the data have come to an end for good.
        described: List of str. Settings that a run that goes on must not change.
        input_range: The values of a black and of a white pixel, if the data say so.
        bits: Int or None. The bits of a pixel in the files, if the data say so.
    """

    spec: Any
    steps: int | None = None
    resumes = ""
    ended = False
    described: Sequence[str] = ()
    input_range: tuple[float, float] | None = None
    bits: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.prepare: Prepare = lambda dataset: dataset

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        """Returns the batches of an epoch, counted from 0, after the first `skip`."""
        raise NotImplementedError

    @functools.cached_property
    def first(self) -> list[Batch]:
        """The first few batches, to look at. They are read once more when the run begins, as in `fit`."""
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
        """Ends the reading of an epoch, of which `done` batches were read in all."""
        batches.discard(reading.box, reading.dataset)

    def end(self) -> None:
        """Lets go of what outlives an epoch."""


class Epoched(Feed):
    """Datasets of `tf.data`: one that is read anew in each epoch, or an object with one for each epoch."""

    def __init__(self, name: str, data: tf.data.Dataset | Epochs, steps: int | None) -> None:
        super().__init__(name)
        self._data, self._take = data, steps
        self.input_range, self.bits = getattr(data, "input_range", None), getattr(data, "bits", None)
        first = self.epoch(0, 0)
        self.spec = first.element_spec
        self.steps = max(int(first.cardinality()), 0) or None
        if not hasattr(data, "at_epoch"):
            self.resumes = "A resumed run is exact if the dataset gives the same batches in every pass"

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        found = batches.dataset(self._data, self.name, epoch, self._take)
        return found.skip(skip) if skip else found


class Stream(Feed):
    """Batches that go on from one epoch to the next: a generator, or a dataset of which an epoch reads a part.

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
    """A Python generator or iterator of batches, of which an epoch draws `steps`."""

    def __init__(self, name: str, data: Iterator[Any], steps: int) -> None:
        first = [as_batch(batch) for batch in itertools.islice(data, 2)]
        if not first:
            raise batches.empty(name)

        def draw() -> Iterator[Batch]:
            yield from first
            yield from map(as_batch, data)

        resumes = (
            "A resumed run draws from the generator anew and drops the batches that it has trained on: it is "
            "exact if the generator gives the same batches each time it is made"
        )
        dataset = tf.data.Dataset.from_generator(draw, output_signature=merged_spec(first)).prefetch(
            tf.data.AUTOTUNE
        )
        super().__init__(name, dataset, steps, resumes)
        self.first = first


class Numbered(Feed):
    """A `keras.utils.PyDataset`, whose batches have numbers, read by its workers."""

    resumes = (
        "A resumed run asks the PyDataset for the batches of the rest of the epoch, in the same order: it is "
        "exact if a batch depends on its index and on the calls of `on_epoch_begin` and `on_epoch_end` alone"
    )

    def __init__(self, name: str, data: keras.utils.PyDataset, order: Order) -> None:
        super().__init__(name)
        self._data, self._order, self._begun = data, order, 0
        count = data.num_batches
        if count == 0:
            raise batches.empty(name)
        if count is None and order.steps is None:
            raise batches.endless(name)
        self.first = [as_batch(data[index]) for index in range(min(2, count or 2))]
        self.spec = merged_spec(self.first)
        self.steps = order.steps or count

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        numbers = epoch_order(epoch, self._order, self._data.num_batches)[skip:]
        dataset = tf.data.Dataset.from_generator(
            lambda: read_numbered(self._data, [number for _, number in numbers]), output_signature=self.spec
        )
        return dataset.apply(tf.data.experimental.assert_cardinality(len(numbers))).prefetch(1)

    def open(self, epoch: int, skip: int) -> Reading:
        for _ in range(self._begun, epoch):  # of a run that goes on: the data may change in these calls
            self._data.on_epoch_begin()
            self._data.on_epoch_end()
        self._begun = epoch + 1
        self._data.on_epoch_begin()
        return super().open(epoch, skip)

    def close(self, reading: Reading, done: int) -> None:
        reading.box.clear()  # here, because the workers must be gone before the data change
        self._data.on_epoch_end()


class Arrays(Feed):
    """Arrays, tensors or data frames, cut into batches.

    Args:
        name: Str. The name of the argument.
        parts: Tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        order: How they are read.
    """

    resumes = (
        "A resumed run is exact if the arrays are the same: their order is a function of the seed and the epoch"
    )

    def __init__(self, name: str, parts: Batch, order: Order) -> None:
        super().__init__(name)
        self._parts = tensors(parts)
        counts = {int(part.shape[0]) for part in tf.nest.flatten(self._parts)}
        if len(counts) > 1:
            raise ValueError(
                f"All arrays of `{name}` must have the same number of rows. Received: {sorted(counts)}"
            )
        (self._rows,) = counts
        if not self._rows:
            raise batches.empty(name)
        self._size = order.batch_size or (math.ceil(self._rows / order.steps) if order.steps else 32)
        self._order = order
        self._count = math.ceil(self._rows / self._size)
        self.steps = order.steps or self._count
        self.described = [f"{name}.batch_size: {self._size}", f"{name}.shuffle: {order.shuffle}"]
        # All targets are there to be looked at, but only a few inputs.
        self.first = [(tf.nest.map_structure(lambda part: part[: self._size], self._parts[0]), *self._parts[1:])]
        self.spec = tf.nest.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), self._parts
        )

    def epoch(self, epoch: int, skip: int) -> tf.data.Dataset:
        # One dataset of indices for each pass over the arrays that the epoch reads from: nearly always one.
        numbers = epoch_order(epoch, dataclasses.replace(self._order, shuffle=False), self._count)[skip:]
        turns = sorted({turn for turn, _ in numbers}) or [0]
        pieces = [self._pass(turn, [number for each, number in numbers if each == turn]) for turn in turns]
        indices = pieces[0]
        for piece in pieces[1:]:
            indices = indices.concatenate(piece)
        rows = indices.map(
            lambda rows: tf.nest.map_structure(lambda part: tf.gather(part, rows), self._parts),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return rows.prefetch(tf.data.AUTOTUNE)

    def _pass(self, turn: int, numbers: list[int]) -> tf.data.Dataset:
        """Returns the indices of the rows of some batches of one pass over the arrays."""
        order = np.arange(self._rows)
        if self._order.shuffle:
            order = np.random.default_rng([self._order.seed, turn]).permutation(self._rows)
        chosen = order[numbers[0] * self._size : (numbers[-1] + 1) * self._size] if numbers else order[:0]
        return tf.data.Dataset.from_tensor_slices(chosen).batch(self._size)


def epoch_order(epoch: int, order: Order, count: int | None) -> list[tuple[int, int]]:
    """Returns the batches of an epoch as pairs of a pass over the data and the number of a batch.

    Args:
        epoch: Int from 0.
        order: How the data are read.
        count: Int or None. The number of batches of the data; None for data without an end.
    """
    steps = order.steps or count or 0
    numbers = range(epoch * steps, (epoch + 1) * steps)
    if count is None:
        return [(0, number) for number in numbers]
    found: list[tuple[int, int]] = []
    for turn in range(numbers[0] // count, numbers[-1] // count + 1):
        batch_numbers = np.arange(count)
        if order.shuffle:
            batch_numbers = np.random.default_rng([order.seed, turn]).permutation(count)
        start, stop = max(numbers[0] - turn * count, 0), min(numbers[-1] + 1 - turn * count, count)
        found += [(turn, int(number)) for number in batch_numbers[start:stop]]
    return found


def feed_of(data: Any, name: str, order: Order) -> Feed:
    """Returns the feed of data in any form.

    Args:
        data: See `DataLike`. A tuple is `(x, y)` or `(x, y, sample_weight)`.
        name: Str. The name of the argument, for errors.
        order: How data without an order of their own are read.

    Raises:
        ValueError: If the data have no such form, are empty, or may never end and there are no `steps`.
    """
    if order.steps is not None:
        check_count(order.steps, batches.STEPS[name])
    if order.batch_size is not None:
        check_count(order.batch_size, "batch_size")
    if hasattr(data, "at_epoch"):
        return Epoched(name, data, order.steps)
    if isinstance(data, tf.data.Dataset):
        if order.steps is None or name != "train":
            return Epoched(name, data, order.steps)
        return Stream(name, batches.checked(data, name).repeat(), order.steps, _REREAD)
    if isinstance(data, keras.utils.PyDataset):
        return Numbered(name, data, order)
    if isinstance(data, Iterator):
        if order.steps is None:
            raise batches.endless(name)
        return Generator(name, data, order.steps)
    if is_arrays(data):
        return Arrays(name, data if isinstance(data, tuple) else (data,), order)
    if hasattr(data, "__iter__") and hasattr(data, "__len__") and not isinstance(data, (str, dict, list, tuple)):
        return Epoched(name, _of_loader(data, name), order.steps)
    raise ValueError(f"`{name}` must be {_FORMS}. Received: {type(data).__name__}")


def given(train: Any, x: Any, y: Any, sample_weight: Any, validation_data: Any) -> Any:
    """Returns the training data from the arguments of `fit`.

    Raises:
        ValueError: If there are none, or they were given twice.
    """
    if isinstance(validation_data, (np.ndarray, tf.Tensor)):
        raise ValueError(
            "`validation_data` must have targets, as (x, y). Received an array: targets of the training data are "
            "given as fit((x, y)) or fit(x=x, y=y)"
        )
    if x is None:
        if train is None or y is not None or sample_weight is not None:
            raise ValueError("Give the training data as `train`, or arrays as `x`, `y` and `sample_weight`")
        return train
    if train is not None:
        raise ValueError("Give the training data as `train` or as `x`, not both")
    if not is_arrays(x):
        if y is not None or sample_weight is not None:
            raise ValueError(f"`y` and `sample_weight` go with arrays. Received: x={type(x).__name__}")
        return x
    return (x, y, sample_weight)


def _of_loader(data: Any, name: str) -> tf.data.Dataset:
    """Returns the batches of an object that gives them anew in each pass, such as a `DataLoader` of PyTorch."""
    first = [as_batch(batch) for batch in itertools.islice(data, 2)]
    if not first:
        raise batches.empty(name)
    dataset = tf.data.Dataset.from_generator(lambda: map(as_batch, data), output_signature=merged_spec(first))
    return dataset.apply(tf.data.experimental.assert_cardinality(len(data)))
