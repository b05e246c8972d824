"""The forms of held-out data that `calibrate` takes, as pairs of inputs and labels that can be read again."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.serving.montecarlo.inputs import is_nested

Pairs: TypeAlias = Callable[[], Iterable[tuple[Any, Any]]]
"""A function that yields batches `(inputs, labels)`, the same ones in each call."""

_NONE = "Calibration needs held-out images. Received: none"


def pairs_of(images: Any, labels: Any, batch_size: int) -> Pairs:
    """Returns a function that reads held-out data from their beginning.

    Args:
        images: An array with the batch first, also written as a list, or a structure of arrays; or batches
            `(images, labels)`: a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an object with a length that can
            be iterated again and again, such as a `DataLoader` of PyTorch.
        labels: Array of labels, or None with batches.
        batch_size: Int, how many rows of an array to read at a time.

    Raises:
        ValueError: If the data have none of these forms, or do not end, or the images do not fit the labels.
    """
    if isinstance(images, Iterator):
        raise ValueError(
            "A generator can be read only once, and calibration reads the data several times: pass arrays, a "
            "keras.utils.PyDataset, or tf.data.Dataset.from_generator(function, output_signature=...). "
            f"Received: {type(images).__name__}"
        )
    if not _is_batches(images):
        arrays, truth = _check_arrays(images, labels)
        return partial(_slices, arrays, truth, batch_size)
    if labels is not None:
        raise ValueError("A dataset already contains the labels: leave `labels` out. Received: both")
    if isinstance(images, tf.data.Dataset):
        if images.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("The dataset must be finite: leave out `repeat()`. Received: an infinite dataset")
        return lambda: map(_pair, images)
    if not isinstance(images, keras.utils.PyDataset):
        return lambda: map(_pair, images)
    if images.num_batches is None:
        raise ValueError("The dataset must be finite: give it a `__len__`. Received: a PyDataset without a length")
    return lambda: (_pair(images[i]) for i in range(images.num_batches or 0))


def first_of(pairs: Pairs) -> Any:
    """Returns the inputs of the first images.

    Args:
        pairs: The data, as `pairs_of` returns them.

    Raises:
        ValueError: If there are none.
    """
    for inputs, _ in pairs():
        first = keras.tree.map_structure(lambda x: np.asarray(x)[:16], inputs)
        if all(x.size for x in keras.tree.flatten(first)):
            return first
        break
    raise ValueError(_NONE)


def _is_batches(images: Any) -> bool:
    """Returns whether an object yields batches of images and labels, rather than is an array of images."""
    if isinstance(images, (tf.data.Dataset, keras.utils.PyDataset)):
        return True
    arrays = (str, bytes, dict, list, tuple)
    can_repeat = hasattr(images, "__iter__") and hasattr(images, "__len__") and not isinstance(images, arrays)
    return can_repeat and not hasattr(images, "__array__") and not tf.is_tensor(images)


def _pair(element: Any) -> tuple[Any, Any]:
    """Returns a batch of a dataset as `(inputs, labels)`."""
    if isinstance(element, (list, tuple)) and len(element) == 3 and element[2] is None:
        element = element[:2]
    if not isinstance(element, (list, tuple)) or len(element) != 2:
        weights = isinstance(element, (list, tuple)) and len(element) == 3
        raise ValueError(
            "The dataset must give batches (images, labels). Received: "
            + (
                "batches of three parts. If the third is a weight, leave it out: dataset.map(lambda x, y, weight: "
                "(x, y)); pixels that do not count can have a label of their own, `ignore_class`"
                if weights
                else f"{keras.tree.map_structure(lambda x: tuple(np.shape(x)), element)}"
            )
        )
    if not np.ndim(element[1]):
        raise ValueError(
            "The dataset must give batches (images, labels): pass dataset.batch(32). Received: single examples, "
            f"with the label {element[1]}"
        )
    return element[0], element[1]


def _slices(images: Any, labels: np.ndarray, size: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields arrays in batches."""
    for first in range(0, len(labels), size):
        places = slice(first, first + size)
        yield keras.tree.map_structure(lambda x, places=places: x[places], images), labels[places]


def _check_arrays(images: Any, labels: Any) -> tuple[Any, np.ndarray]:
    if labels is None:
        raise ValueError(
            "Calibration needs `labels`, or batches (images, labels): a tf.data.Dataset or a "
            f"keras.utils.PyDataset. Received: {type(images).__name__} and labels=None"
        )
    truth = np.asarray(labels)
    # A list or dict of arrays holds one for each input, as in Keras; a list of numbers is one array.
    arrays = keras.tree.map_structure(np.asarray, images) if is_nested(images) else np.asarray(images)
    sizes = {len(x) if x.ndim else 0 for x in keras.tree.flatten(arrays)}
    if not truth.ndim or not len(truth) or sizes == {0}:
        raise ValueError(_NONE)
    if sizes != {len(truth)}:
        raise ValueError(f"Each image needs one label. Received: {sorted(sizes)} images, {len(truth)} labels")
    return arrays, truth
