"""Batches of NumPy arrays and tensors in one form, their specs, and the workers that read them."""

import collections
import itertools
import multiprocessing.pool
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.training.loop.batches import Batch, empty


def as_batch(batch: Any) -> Batch:
    """Returns a batch as a tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`, with tuples in place of lists.

    Raises:
        ValueError: If the batch has none of these forms.
    """
    parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    while len(parts) > 1 and parts[-1] is None:
        parts = parts[:-1]
    if not 1 <= len(parts) <= 3 or any(part is None for part in parts):
        raise ValueError(
            "A batch must be (x,), (x, y) or (x, y, sample_weight). "
            f"Received: {type(batch).__name__} of {len(parts)}"
        )
    return keras.tree.map_structure(_array, keras.tree.lists_to_tuples(parts))


def first_batches(data: Iterable[Any], name: str) -> list[Batch]:
    """Returns the first two batches of the data, which show the shapes that all have.

    Raises:
        ValueError: If there is no batch.
    """
    found = [as_batch(batch) for batch in itertools.islice(data, 2)]
    if not found:
        raise empty(name)
    return found


def tensors(parts: Batch) -> Batch:
    """Returns arrays as tensors on the CPU, to cut batches from them."""
    with tf.device("CPU:0"):
        return keras.tree.map_structure(tf.convert_to_tensor, as_batch(parts))


def _array(values: Any) -> Any:
    """Returns an array as `fit` does: floats in Keras' type, and a series of pandas as a column."""
    if isinstance(values, (tf.Tensor, tf.RaggedTensor, tf.SparseTensor)):
        return values
    array = np.asarray(values)
    if array.ndim == 1 and type(values).__module__.startswith("pandas."):
        array = array[:, None]
    return array.astype(keras.config.floatx()) if array.dtype == "float64" else array


def merged_spec(found: Sequence[Batch]) -> Any:
    """Returns the specs of batches: sizes that differ, and the size of the batch, are None."""

    def merged(first: Any, *others: Any) -> tf.TypeSpec:
        if isinstance(first, (tf.RaggedTensor, tf.SparseTensor)):
            return tf.type_spec_from_value(first)
        first = tf.convert_to_tensor(first)
        shapes = [first.shape[1:], *(np.shape(other)[1:] for other in others)]
        if len({len(shape) for shape in shapes}) > 1 or not first.shape.rank:
            raise ValueError(f"The arrays of all batches must have the same number of axes. Received: {shapes}")
        sizes = [each[0] if len(set(each)) == 1 else None for each in zip(*shapes, strict=True)]
        return tf.TensorSpec([None, *sizes], first.dtype)

    return keras.tree.map_structure(merged, *found)


def is_arrays(data: Any) -> bool:
    """Returns whether data are an array, or a structure of arrays."""
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    return bool(leaves) and all(hasattr(leaf, "shape") or hasattr(leaf, "__array__") for leaf in leaves)


def read_numbered(data: keras.utils.PyDataset, numbers: Sequence[int]) -> Iterator[Batch]:
    """Yields batches of a `keras.utils.PyDataset` in the given order, read ahead by its workers as in `fit`."""
    if data.workers <= 1 and not data.use_multiprocessing:
        yield from (as_batch(data[number]) for number in numbers)
        return
    kind = multiprocessing.pool.Pool if data.use_multiprocessing else multiprocessing.pool.ThreadPool
    with kind(max(data.workers, 1), initializer=_hold, initargs=(data,)) as pool:
        ahead: collections.deque = collections.deque()
        for number in numbers:
            ahead.append(
                pool.apply_async(_held_batch if data.use_multiprocessing else data.__getitem__, (number,))
            )
            if len(ahead) >= data.max_queue_size:
                yield as_batch(ahead.popleft().get())
        while ahead:
            yield as_batch(ahead.popleft().get())


_HELD: list[keras.utils.PyDataset] = []  # the data of a worker process


def _hold(data: keras.utils.PyDataset) -> None:
    """Keeps the data of a worker process."""
    _HELD[:] = [data]


def _held_batch(number: int) -> Any:
    """Returns a batch of the data of a worker process."""
    return _HELD[0][number]
