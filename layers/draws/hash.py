"""The integer hash behind every mask, and the numbers that are made from its bits, on any Keras backend.

A mask is a pure function of (seed, replica, index of the element): an integer hash of a counter, not a stream. So
a seed gives the same mask eagerly, in a graph and under XLA, and two replicas never share one. The hash is
triple32 (C. Wellons, hash-prospector, 2018) of `index * a + b`. The key gives the odd number `a` and the number
`b`. If the key were only added, all masks would be windows of the same sequence.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

Tensor: TypeAlias = Any
"""A tensor of the backend that Keras runs on; Keras has no type for it."""

Shape: TypeAlias = Sequence[int | Tensor]
"""The sizes of a tensor's axes, as `keras.ops.shape` gives them: a scalar tensor where a size is dynamic."""

STEPS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB), (14, None))
"""The steps of triple32: `h ^= h >> shift`, and then a product with the factor, if there is one."""


def hash_bits(shape: Any, key: Tensor) -> Tensor:
    """Returns 32 bits for each element of `shape` under a key.

    Args:
        shape: Tuple of ints, or an int tensor `(rank,)` where a size is dynamic.
        key: uint32 tensor `(2,)`, as from `derive_key`.

    Returns:
        A uint32 tensor of `shape`.
    """
    h = positions(math.prod(shape) if isinstance(shape, tuple) else ops.prod(shape))
    h = _wrapped(h * (key[1] | u32(1)) + key[0])
    for shift, factor in STEPS:
        h = h ^ ops.right_shift(h, shift)
        h = h if factor is None else _wrapped(h * u32(factor))
    return ops.reshape(h, shape)


def row_bits(first: Tensor, second: Tensor, size: int | Tensor) -> Tensor:
    """Returns 32 bits for each element of several rows; each row has its own keys.

    Args:
        first: uint32 tensor `(rows,)`, a key for each row.
        second: uint32 tensor `(rows,)`, a second key for each row.
        size: Int scalar, the number of elements in a row.

    Returns:
        A uint32 tensor `(rows, size)`.
    """
    return mix_twice(positions(size)[None] + mix(first)[:, None], mix(second)[:, None])


def derive_key(seed: Tensor, replica: int | Tensor = 0) -> Tensor:
    """Returns a key for `hash_bits`: 64 well mixed bits of a seed and a replica.

    Args:
        seed: Int tensor `(2,)`, the seed and the counter that `keras.random.SeedGenerator.next()` gives.
        replica: Int scalar, the number of the replica. Replica 0 draws the same masks as a single device.

    Returns:
        A uint32 tensor `(2,)`.
    """
    seed = _wrapped(ops.cast(seed, "uint32"))
    first = mix(mix(seed[0] ^ u32(0x9E3779B9)) + seed[1])
    second = mix(mix(seed[1] ^ u32(0x85EBCA6B)) + seed[0])
    return ops.stack([first, second ^ mix(ops.cast(replica, "uint32"))])


def mix(h: Tensor) -> Tensor:
    """Returns the hash lowbias32, by the same author, of each element of a uint32 tensor."""
    return _folded(_multiplied(_folded(_wrapped(h))))


def mix_twice(h: Tensor, between: Tensor) -> Tensor:
    """Returns `mix(mix(h) ^ between)` with three quarters of the operations on each element of `h`.

    `_folded` undoes itself, so the end of the first hash and the beginning of the second cancel.

    Args:
        h: uint32 tensor.
        between: uint32 tensor that broadcasts to the shape of `h`.

    Returns:
        A uint32 tensor like `h`.
    """
    return _folded(_multiplied(_multiplied(_folded(_wrapped(h))) ^ _folded(_wrapped(between))))


def _folded(h: Tensor) -> Tensor:
    return h ^ ops.right_shift(h, 16)


def _multiplied(h: Tensor) -> Tensor:
    h = _wrapped(h * u32(0x7FEB352D))
    return _wrapped((h ^ ops.right_shift(h, 15)) * u32(0x846CA68B))


def _wrapped(h: Tensor) -> Tensor:
    """Returns numbers modulo 2**32. On PyTorch, Keras' uint32 is an int64, which does not wrap around there."""
    return h & u32(0xFFFFFFFF) if keras.backend.backend() == "torch" else h


def u32(value: int) -> Tensor:
    """Returns a uint32 scalar. A Python int would become a constant of another type and a cast in each graph."""
    return ops.convert_to_tensor(np.array(value, "uint32"), dtype="uint32")


def keep_mask(bits: Tensor, rate: float | Tensor) -> Tensor:
    """Returns a bool tensor whose elements are True with probability `1 - rate`, to within 2**-32."""
    return ops.greater_equal(bits, ops.cast(ops.cast(rate, "float32") * 4294967296.0, "uint32"))


def uniform(bits: Tensor) -> Tensor:
    """Returns float32 draws from U(0, 1), both ends excluded.

    They use 23 bits, so that adding 0.5 to them is exact in float32.
    """
    return (ops.cast(ops.right_shift(bits, 9), "float32") + 0.5) * 2.0**-23


def standard_normal(bits: Tensor) -> Tensor:
    """Returns float32 draws from N(0, 1) by the inverse distribution function; none is beyond 5.3."""
    return math.sqrt(2.0) * ops.erfinv(2.0 * uniform(bits) - 1.0)


def positions(size: int | Tensor) -> Tensor:
    """Returns the numbers from 0 to `size - 1`, a uint32 tensor `(size,)`."""
    return ops.cast(ops.arange(size, dtype="int32"), "uint32")
