"""The one place that draws random bits for masks.

A mask is a pure function of (seed, replica, index of the element): an integer hash of a counter, not a stream.
So one seed gives one mask whether it is drawn eagerly, in a graph or under XLA, and two replicas never share
one. The hash is lowbias32 (C. Wellons, hash-prospector, 2018), applied twice with 32 bits of key each: with a
single key added to the counter, all masks would be windows of one and the same sequence.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

# Beyond this many elements the hash is worth compiling: fused by XLA it costs a tenth of the same ops one by one.
_COMPILE_FROM = 1 << 16


def random_bits(shape: Sequence[Any], seed: Any) -> Any:
    """32 uniform random bits for each element.

    Args:
        shape: the shape to draw; entries may be scalar tensors where a dimension is dynamic.
        seed: two integers, as `keras.random.SeedGenerator.next()` gives them.

    Returns:
        A uint32 tensor.
    """
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_bits(shape, seed)
    return _hash(tuple(shape), derive_key(seed))


def sample_bits(
    shape: Sequence[Any],
    key: Any,
    rows: Any,
    sample: Any,
    num_samples: int,
    *,
    balanced: bool,
    plain: bool = False,
) -> Any:
    """Random bits for one of several samples of the same inputs, on TensorFlow.

    A row's bits depend on its own key alone, not on the batch it is in. Balanced bits are stratified over the
    samples (a Latin hypercube): in `num_samples` samples each unit draws once from each of `num_samples` equal
    intervals, in an order of its own, so that each sample alone is uniform and together they are even.

    Args:
        shape: the shape to draw, rows first.
        key: uint32 tensor of 2, of the seed and the site.
        rows: uint32 tensor `(rows,)`, a key for each row.
        sample: int scalar tensor in [0, num_samples).
        num_samples: Int.
        balanced: Bool.
        plain: Bool; only operations that every TensorFlow runtime has, and no compilation by XLA.

    Returns:
        A uint32 tensor.
    """
    import tensorflow as tf

    draw = _sample_hash if plain else _compile(_sample_hash)
    bits = draw(tf.stack(shape), key, rows, tf.cast(sample, tf.uint32), num_samples, balanced)
    return tf.ensure_shape(bits, [n if isinstance(n, int) else None for n in shape])


def content_keys(images: Any) -> Any:
    """A uint32 key for each image of a float32 batch, from its pixels."""
    import tensorflow as tf

    words = tf.bitcast(tf.reshape(images, [tf.shape(images)[0], -1]), tf.uint32)  # (batch, pixels)
    place = _mix(tf.cast(tf.range(tf.shape(words)[1]), tf.uint32))
    mixed = tf.bitcast(_mix(_mix(words) + place), tf.int32)
    return tf.bitcast(tf.reduce_sum(mixed, 1), tf.uint32)  # wraps around; int32, which every kernel adds


def keep_mask(bits: Any, rate: Any) -> Any:
    """True with probability `1 - rate`, to within 2**-32."""
    return ops.greater_equal(bits, ops.cast(ops.cast(rate, "float32") * 4294967296.0, "uint32"))


def standard_normal(bits: Any) -> Any:
    """Float32 draws of N(0, 1) by the inverse of the distribution function, cut at 5.3 standard deviations."""
    centred = (ops.cast(ops.right_shift(bits, _u32(8)), "float32") + 0.5) * 2.0**-23 - 1.0  # in (-1, 1)
    return math.sqrt(2.0) * ops.erfinv(centred)


def _u32(value: int) -> Any:
    return ops.convert_to_tensor(value, dtype="uint32")


def _u64(value: int) -> Any:
    return ops.convert_to_tensor(value, dtype="uint64")


def _mix(h: Any) -> Any:
    h = ops.bitwise_xor(h, ops.right_shift(h, _u32(16))) * _u32(0x7FEB352D)
    h = ops.bitwise_xor(h, ops.right_shift(h, _u32(15))) * _u32(0x846CA68B)
    return ops.bitwise_xor(h, ops.right_shift(h, _u32(16)))


def derive_key(seed: Any, replica: Any = 0) -> Any:
    """(seed, counter, replica) as 64 well mixed bits; replica 0 draws what a single device draws."""
    seed = ops.cast(seed, "uint32")
    first = _mix(_mix(ops.bitwise_xor(seed[0], _u32(0x9E3779B9))) + seed[1])
    second = _mix(_mix(ops.bitwise_xor(seed[1], _u32(0x85EBCA6B))) + seed[0])
    return ops.stack([first, ops.bitwise_xor(second, _mix(ops.cast(replica, "uint32")))])


def _hash(shape: Any, key: Any) -> Any:
    index = ops.cast(ops.arange(ops.prod(shape), dtype="int32"), "uint32")
    return ops.reshape(_mix(ops.bitwise_xor(_mix(index + key[0]), key[1])), shape)


def _tensorflow_bits(shape: Sequence[Any], seed: Any) -> Any:
    import tensorflow as tf  # the fast path: layers need no TensorFlow otherwise

    context = tf.distribute.get_replica_context()
    key = derive_key(seed, context.replica_id_in_sync_group if context else 0)
    static = [n if isinstance(n, int) else None for n in shape]
    small = None not in static and math.prod(static) < _COMPILE_FROM  # type: ignore[arg-type]
    # Outside XLA a GPU has no uint32 arithmetic, and would send the mask through the host.
    draw = _hash if small and not tf.config.list_physical_devices("GPU") else _compile(_hash)
    return tf.ensure_shape(draw(tf.stack(shape), key), static)


def _sample_hash(shape: Any, key: Any, rows: Any, sample: Any, num_samples: int, balanced: bool) -> Any:
    index = ops.cast(ops.arange(ops.prod(shape[1:]), dtype="int32"), "uint32")[None]  # (1, units)
    first, second = _mix(rows + key[0])[:, None], _mix(ops.bitwise_xor(rows, key[1]))[:, None]  # (rows, 1)
    unit = _mix(ops.bitwise_xor(_mix(index + first), second))  # (rows, units): the same for all samples
    bits = _mix(ops.bitwise_xor(_mix(unit + _mix(sample + _u32(1))), second + index))
    if balanced and num_samples > 1:
        stratum = _shuffle(sample, unit, num_samples)
        # In 64 bits: where T does not divide 2**32, strata of equal whole widths would leave a gap at the top.
        wide = ops.cast(stratum, "uint64") * _u64(2**32) + ops.cast(bits, "uint64")
        bits = ops.cast(wide // _u64(num_samples), "uint32")
    return ops.reshape(bits, shape)


def _shuffle(sample: Any, unit: Any, count: int) -> Any:
    """Where a random permutation of [0, count), one for each unit, puts `sample`.

    A random rotation, then rounds of the swap-or-not shuffle (Hoang, Morris and Rogaway, 2012): each pairs up
    the numbers at random and swaps the pairs whose coin says so. A round halves what is left of the order; after
    ten, no pair of samples can be told from a true permutation's in 200,000 units.
    """
    place = (sample % _u32(count) + unit % _u32(count)) % _u32(count)
    for turn in range(1, 11):
        unit = _mix(unit + _u32(0x9E3779B9 * turn & 0xFFFFFFFF))
        partner = (unit % _u32(count) + _u32(count) - place) % _u32(count)
        coin = _mix(ops.bitwise_xor(unit, ops.maximum(place, partner) * _u32(0x85EBCA6B)))
        place = ops.where(ops.right_shift(coin, _u32(31)) == _u32(1), partner, place)
    return place


def _compile(function: Callable[..., Any]) -> Any:
    """The function compiled by XLA, one `tf.function` for all who call it."""
    import tensorflow as tf

    if function not in _COMPILED:
        _COMPILED[function] = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)
    return _COMPILED[function]


_COMPILED: dict[Callable[..., Any], Any] = {}
