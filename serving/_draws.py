"""Random bits for Monte-Carlo samples: keyed by the row, and stratified over the samples."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from dropzoo.layers import _samples
from dropzoo.layers._masks import mix, u32
from dropzoo.layers._xla import compiled

_ORDERS = 1024  # a power of 2


def orders(num_samples: int, key: Any, *, plain: bool = False) -> Any:
    """Random permutations of the samples, for `sample_bits`: uint16 or uint32 `(num_samples, 1024)`.

    Args:
        num_samples: Int.
        key: uint32 scalar tensor, of the seed.
        plain: Bool; only operations that every TensorFlow runtime has.
    """
    draw = _orders if plain else compiled(_orders)
    return tf.ensure_shape(draw(key, num_samples), [num_samples, _ORDERS])


def sample_bits(
    shape: Sequence[Any], key: Any, rows: Any, sample: Any, strata: Any = None, *, plain: bool = False
) -> Any:
    """Random bits for one of several samples of the same inputs, or for several samples at once.

    A row's bits depend on its own key and sample alone, not on the batch it is in. With `strata` they are
    stratified over the samples (a Latin hypercube): in T samples each unit draws once from each of T equal
    intervals, in an order of its own, so that each sample alone is uniform and together they are even.

    The order is one of 1024 random permutations, a rotation, and another of the 1024, all three picked by the
    unit's hash: about 2**20 T orders. It costs a quarter of shuffling anew for each unit, which is what makes
    balanced masks pay on small networks.

    Args:
        shape: the shape to draw, rows first.
        key: uint32 tensor of 2, of the seed and the site.
        rows: uint32 tensor `(rows,)`, a key for each row.
        sample: int tensor in [0, T), a scalar, or `(rows, 1)`: one for each row.
        strata: what `orders` gives, for balanced draws.
        plain: Bool; only operations that every TensorFlow runtime has, and no compilation by XLA.

    Returns:
        A uint32 tensor.
    """
    draw = _bits if plain else compiled(_bits)
    count = 1 if strata is None else strata.shape[0]  # a number: a compiled function may forget the shape
    bits = draw(tf.stack(shape), key, rows, tf.cast(sample, tf.uint32), strata, count)
    return tf.ensure_shape(bits, [n if isinstance(n, int) else None for n in shape])


def _orders(key: Any, count: int) -> Any:
    unit = mix(ops.cast(ops.arange(_ORDERS, dtype="int32"), "uint32") + mix(key))[None]  # (1, orders)
    sample = ops.cast(ops.arange(count, dtype="int32"), "uint32")[:, None]  # (count, 1)
    return ops.cast(_samples._shuffle(sample, unit, count), "uint16" if count <= 1 << 16 else "uint32")


def _bits(shape: Any, key: Any, rows: Any, sample: Any, strata: Any, count: int) -> Any:
    index = ops.cast(ops.arange(ops.prod(shape[1:]), dtype="int32"), "uint32")[None]  # (1, units)
    first, second = mix(rows + key[0])[:, None], mix(ops.bitwise_xor(rows, key[1]))[:, None]  # (rows, 1)
    unit = mix(ops.bitwise_xor(mix(index + first), second))  # (rows, units): the same for all samples
    bits = mix(ops.bitwise_xor(mix(unit + mix(sample + u32(1))), second + index))
    if count > 1:
        # In 64 bits: where T does not divide 2**32, strata of equal whole widths would leave a gap at the top.
        wide = ops.cast(_stratum(sample, unit, strata, count), "uint64") * tf.constant(2**32, tf.uint64)
        bits = ops.cast((wide + ops.cast(bits, "uint64")) // tf.constant(count, tf.uint64), "uint32")
    return ops.reshape(bits, shape)


def _stratum(sample: Any, unit: Any, strata: Any, count: int) -> Any:
    """Where each unit's own permutation of the samples puts `sample`."""
    table = ops.reshape(strata, [-1])
    one = ops.bitwise_and(unit, u32(_ORDERS - 1))
    other = ops.bitwise_and(ops.right_shift(unit, u32(10)), u32(_ORDERS - 1))
    turn = ops.cast(unit, "uint64") * tf.constant(count, tf.uint64) // tf.constant(2**32, tf.uint64)

    def look_up(place: Any, order: Any) -> Any:
        return ops.cast(tf.gather(table, ops.cast(place * u32(_ORDERS) + order, "int32")), "uint32")

    place = look_up(sample, one) + ops.cast(turn, "uint32")
    return look_up(ops.where(place >= u32(count), place - u32(count), place), other)
