"""The forms of data that `fit` takes, and the feed of each."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_count
from dropzoo.training.loop import batches
from dropzoo.training.loop.batches import Epochs
from dropzoo.training.loop.feeds import Epoched, Feed, Generator, Stream
from dropzoo.training.loop.ordered import Arrays, Numbered, Order
from dropzoo.training.loop.rows import as_batch, first_batches, is_arrays, merged_spec

#: The types of `train` and `validation_data` of `Trainer.fit`.
DataLike: TypeAlias = (
    tf.data.Dataset
    | Epochs
    | keras.utils.PyDataset
    | Iterable[Any]
    | np.ndarray
    | tuple[Any, ...]
    | dict[str, Any]
)

_FORMS = (
    "a tf.data.Dataset, an object with `at_epoch(epoch)`, a keras.utils.PyDataset, a generator of batches, or "
    "arrays (x, y) or (x, y, sample_weight). For other data, make a dataset with tf.data.Dataset.from_generator"
)
_REREAD = (
    "A resumed run reads the dataset up to where it stopped: the result is exact if the dataset gives the same "
    "batches each time"
)


def feed_of(data: Any, name: str, order: Order) -> Feed:
    """Returns the feed of data in any form.

    Args:
        data: See `DataLike`. A tuple is `(x, y)` or `(x, y, sample_weight)`.
        name: Str. The name of the argument, for errors.
        order: The order in which data without their own order are read.

    Raises:
        ValueError: If the data have none of these forms, are empty, or have no known length and no `steps`.
    """
    if order.steps is not None:
        check_count(order.steps, batches.STEPS[name])
    if order.batch_size is not None:
        check_count(order.batch_size, "batch_size")
    if hasattr(data, "at_epoch"):
        return Epoched(name, data, order.steps)
    if isinstance(data, tf.data.Dataset):
        return _of_dataset(data, name, order)
    if isinstance(data, keras.utils.PyDataset):
        return Numbered(name, data, order)
    if isinstance(data, Iterator):
        if order.steps is None:
            raise batches.endless(name)
        return Generator(name, data, order.steps)
    if is_arrays(data):
        return Arrays(name, data if isinstance(data, tuple) else (data,), order)
    if hasattr(data, "__iter__") and hasattr(data, "__len__") and not isinstance(data, (str, dict, list, tuple)):
        return _of_dataset(_of_loader(data, name), name, order)
    raise ValueError(f"`{name}` must be {_FORMS}. Received: {type(data).__name__}")


def given(train: Any, x: Any, y: Any, sample_weight: Any, validation_data: Any) -> Any:
    """Returns the training data from the arguments of `fit`.

    Raises:
        ValueError: If there are none, or if they were passed twice.
    """
    if isinstance(validation_data, (np.ndarray, tf.Tensor)):
        raise ValueError(
            "`validation_data` must have targets, as (x, y). Received an array. If the array holds the targets of "
            "the training data, call fit((x, y)) or fit(x=x, y=y)"
        )
    if x is None:
        if train is None or y is not None or sample_weight is not None:
            raise ValueError("Pass the training data as `train`, or arrays as `x`, `y` and `sample_weight`")
        return train
    if train is not None:
        raise ValueError("Pass the training data as `train` or as `x`, not both")
    if not is_arrays(x):
        if y is not None or sample_weight is not None:
            raise ValueError(
                f"`y` and `sample_weight` can only be passed with arrays. Received: x={type(x).__name__}"
            )
        return x
    return (x, y, sample_weight)


def _of_dataset(data: tf.data.Dataset, name: str, order: Order) -> Feed:
    """Returns the feed of a dataset; with a number of steps, each epoch begins where the last one ended."""
    if order.steps is None or name != "train":
        return Epoched(name, data, order.steps)
    return Stream(name, batches.checked(data, name).repeat(), order.steps, _REREAD)


def _of_loader(data: Any, name: str) -> tf.data.Dataset:
    """Returns the batches of an object that can be iterated again and again, such as a `DataLoader` of PyTorch."""
    first = first_batches(data, name)
    dataset = tf.data.Dataset.from_generator(lambda: map(as_batch, data), output_signature=merged_spec(first))
    return dataset.apply(tf.data.experimental.assert_cardinality(len(data)))
