"""Data that the trainer orders itself: arrays, and `keras.utils.PyDataset`.

The order of the batches depends only on a seed and the epoch, so a run can resume at any step.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from dropzoo.training.loop import batches
from dropzoo.training.loop.batches import Batch
from dropzoo.training.loop.feeds import Feed, Reading
from dropzoo.training.loop.rows import as_batch, merged_spec, read_numbered, tensors


@dataclasses.dataclass
class Order:
    """The order in which data without their own order are read.

    Args:
        steps: Int or None. The number of batches of an epoch; None for all of them.
        shuffle: Bool. Whether each epoch shuffles the data in its own order.
        seed: Int. The seed of these orders; a resumed run takes it from its checkpoint.
        batch_size: Int or None. The size of the batches that are cut from arrays; None means 32 or, if `steps` is
            given, the size that gives this number of batches.
    """

    steps: int | None = None
    shuffle: bool = False
    seed: int = 0
    batch_size: int | None = None


class Numbered(Feed):
    """A `keras.utils.PyDataset`, whose batches have numbers, read by its workers."""

    resumes = (
        "A resumed run reads the rest of the epoch from the PyDataset, in the same order: the result is exact if "
        "a batch depends only on its index and on the calls of `on_epoch_begin` and `on_epoch_end`"
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
        for _ in range(self._begun, epoch):  # in a resumed run: the data may change in these calls
            self._data.on_epoch_begin()
            self._data.on_epoch_end()
        self._begun = epoch + 1
        self._data.on_epoch_begin()
        return super().open(epoch, skip)

    def close(self, reading: Reading, done: int) -> None:
        reading.box.clear()  # first, because the workers must stop before the data change
        self._data.on_epoch_end()


class Arrays(Feed):
    """Arrays, tensors or data frames, cut into batches.

    Args:
        name: Str. The name of the argument.
        parts: Tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        order: The order in which they are read.
    """

    resumes = (
        "A resumed run is exact if the arrays are the same: their order depends only on the seed and the epoch"
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
        # All targets help to choose the loss, but a few inputs are enough.
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

        @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and the search is slow
        def rows_of(places: tf.Tensor) -> Batch:
            return tf.nest.map_structure(lambda part: tf.gather(part, places), self._parts)

        rows = indices.map(rows_of, num_parallel_calls=tf.data.AUTOTUNE)
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
        order: The order in which the data are read.
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
