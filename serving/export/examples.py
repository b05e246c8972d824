"""Typical inputs of a model, from which a runtime learns the ranges of integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.serving.export.inputs import Input
from dropzoo.serving.montecarlo.inputs import InputsLike
from dropzoo.serving.montecarlo.reader import Reader


def examples_of(
    reader: Reader, inputs: Sequence[Input], examples: InputsLike, precision: str, num_samples: int
) -> list[dict[str, np.ndarray]]:
    """Returns batches of one row, by the names in requests, from which a runtime learns the ranges of integers.

    Args:
        reader: The model.
        inputs: Its inputs.
        examples: The inputs that the user passes, as Keras takes them, or None.
        precision: The precision of the export.
        num_samples: Int, the number of samples that the user asks for.

    Raises:
        ValueError: If `"int8"` lacks examples or is to be sampled, or examples are given for another precision.
    """
    if (precision == "int8") != (examples is not None):
        raise ValueError(
            "`examples`, some typical inputs, are required for precision='int8', and only for this precision; "
            "only serving.export_model, in Python, takes them. "
            f"Received: precision={precision!r}, examples of type {type(examples).__name__}"
        )
    if examples is None:
        return []
    if num_samples:
        raise ValueError(
            "With precision='int8', a file only gives the deterministic answer: pass num_samples=0. "
            f"Received: precision='int8', num_samples={num_samples}"
        )
    if isinstance(examples, Mapping) and {one.name for one in inputs} <= set(examples):
        flat = [examples[one.name] for one in inputs]
    else:
        flat = reader.inputs.in_order(examples)
    each = [(one.name, _example(one, x)) for one, x in zip(inputs, flat, strict=True)]
    return [{name: x[i : i + 1] for name, x in each} for i in range(min(len(each[0][1]), 200))]


def _example(one: Input, values: Any) -> np.ndarray:
    """The examples of one input in the dtype of a request; a cast would turn images in [0, 1] into black ones."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and not tf.as_dtype(one.dtype).is_floating:
        raise ValueError(
            f"`examples` must have the form of requests, in which {one.name!r} has the dtype {one.dtype}. "
            f"Received: {array.dtype}"
        )
    return array.astype(one.dtype)
