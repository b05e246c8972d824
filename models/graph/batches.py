"""Small random batches for a model, in the structure in which it takes its inputs."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from dropzoo.common.keras_internals import flatten_layers


def random_batch(model: keras.Model, rows: int, size: int) -> Any:
    """Returns random inputs in the structure that a model takes.

    Floats are in [0, 1), and texts are words. Integers are valid indices for each `Embedding` of the model; in a
    model without one they are 1, or from 1 to 255 for uint8.

    Args:
        model: A Functional or Sequential model.
        rows: Positive int, the number of rows where the model leaves it open.
        size: Positive int, the length of the other axes that the model leaves open.
    """
    rng = np.random.default_rng(0)
    limits = [each.input_dim for each in flatten_layers(model) if isinstance(each, keras.layers.Embedding)]

    def some(tensor: keras.KerasTensor) -> np.ndarray:
        shape = [tensor.shape[0] or rows, *(size if length is None else length for length in tensor.shape[1:])]
        if keras.backend.is_float_dtype(tensor.dtype):
            return rng.random(shape).astype("float32")
        if tensor.dtype == "string":
            return rng.choice(["a", "b", "a b", "c"], shape)
        if tensor.dtype == "bool":
            return rng.random(shape) < 0.5
        most = 256 if tensor.dtype == "uint8" and not limits else max(2, min(limits, default=2))
        return rng.integers(1, most, shape).astype(tensor.dtype)  # not 0, which may mean padding

    return keras.tree.map_structure(some, structure_of(model))


def structure_of(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a model in the structure in which it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def small_batches(model: keras.Model) -> Iterator[Any]:
    """Yields random batches of growing size; a network may need a minimum size, or a multiple of some number."""
    is_open = any(None in tensor.shape[1:] for tensor in model.inputs)
    for size in (16, 32, 64, 128, 256) if is_open else (1,):
        yield random_batch(model, 2, size)
