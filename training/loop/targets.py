"""Facts about the targets of an output, which decide its task: their type, shape and values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_CLOSE = 1e-3


class Targets(NamedTuple):
    """Facts about the targets of one output in the first batches.

    Attributes:
        shape: The shape with the batch, with None for sizes that differ.
        integer: Bool. Whether their type is an integer type or bool.
        low: Float. The smallest value.
        high: Float. The largest value.
        whole: Bool. Whether all values are whole numbers.
        one_hot: Bool. Whether each vector along the last axis sums to 1 and has no value outside [0, 1].
    """

    shape: tuple[int | None, ...]
    integer: bool
    low: float
    high: float
    whole: bool
    one_hot: bool

    @property
    def zero_or_one(self) -> bool:
        """Whether all values are 0 or 1."""
        return self.whole and self.low >= 0 and self.high <= 1

    @property
    def words(self) -> str:
        """The targets, for people."""
        if self.low == self.high:
            values = f"all {self.low:g}"
        elif self.zero_or_one:
            values = "0 and 1"
        else:
            values = f"from {self.low:.5g} to {self.high:.5g}"
        kind = "whole numbers" if self.whole else "numbers"
        shape = ", ".join("batch" if n == 0 else str(size) for n, size in enumerate(self.shape))
        return f"{kind}, {values}, of the shape ({shape}{',' if len(self.shape) == 1 else ''})"


def facts(name: str, found: Sequence[Any]) -> Targets:
    """Returns the facts about the targets of an output.

    Args:
        name: Str. The output, for errors.
        found: The targets of a few batches.

    Raises:
        ValueError: If the targets are not numbers.
    """
    arrays = [np.asarray(each) for each in found]
    first = arrays[0]
    if first.dtype.kind not in "biuf" and first.dtype.name != "bfloat16":
        raise ValueError(
            f"The targets of {name} must be numbers: convert text labels to numbers, for example with "
            f"keras.layers.StringLookup, or pass a `loss` that takes them. Received: {first.dtype}"
        )
    integer = first.dtype.kind in "biu"
    arrays = [each if integer else each.astype("float64") for each in arrays if each.size]
    if not arrays:
        raise ValueError(f"The targets of {name} must have values. Received: empty batches")
    sizes = zip(*(each.shape[1:] for each in arrays), strict=True)
    return Targets(
        shape=(None, *(each[0] if len(set(each)) == 1 else None for each in sizes)),
        integer=integer,
        low=float(min(each.min() for each in arrays)),
        high=float(max(each.max() for each in arrays)),
        whole=integer or all((each == np.round(each)).all() for each in arrays),
        one_hot=first.ndim > 1 and all(_sums_to_one(each) for each in arrays),
    )


def _sums_to_one(values: np.ndarray) -> bool:
    fractions = values.min() >= 0 and values.max() <= 1
    return bool(fractions and (np.abs(values.sum(-1, dtype="float64") - 1) < _CLOSE).all())
