"""The one place that draws random bits for masks.

A mask is a pure function of (seed, replica, index of the element): an integer hash of a counter, not a stream.
So one seed gives one mask whether it is drawn eagerly, in a graph or under XLA, and two replicas never share
one. The hash is lowbias32 (C. Wellons, hash-prospector, 2018), applied twice with 32 bits of key each: with a
single key added to the counter, all masks would be windows of one and the same sequence.
"""

import math
from collections.abc import Sequence
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
    return _hash(tuple(shape), _key(seed))


def keep_mask(bits: Any, rate: Any) -> Any:
    """True with probability `1 - rate`, to within 2**-32."""
    return ops.greater_equal(bits, ops.cast(ops.cast(rate, "float32") * 4294967296.0, "uint32"))


def standard_normal(bits: Any) -> Any:
    """Float32 draws of N(0, 1) by the inverse of the distribution function, cut at 5.3 standard deviations."""
    centred = (ops.cast(ops.right_shift(bits, _u32(8)), "float32") + 0.5) * 2.0**-23 - 1.0  # in (-1, 1)
    return math.sqrt(2.0) * ops.erfinv(centred)


def _u32(value: int) -> Any:
    return ops.convert_to_tensor(value, dtype="uint32")


def _mix(h: Any) -> Any:
    h = ops.bitwise_xor(h, ops.right_shift(h, _u32(16))) * _u32(0x7FEB352D)
    h = ops.bitwise_xor(h, ops.right_shift(h, _u32(15))) * _u32(0x846CA68B)
    return ops.bitwise_xor(h, ops.right_shift(h, _u32(16)))


def _key(seed: Any, replica: Any = 0) -> Any:
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
    key = _key(seed, context.replica_id_in_sync_group if context else 0)
    static = [n if isinstance(n, int) else None for n in shape]
    small = None not in static and math.prod(static) < _COMPILE_FROM  # type: ignore[arg-type]
    # Outside XLA a GPU has no uint32 arithmetic, and would send the mask through the host.
    draw = _hash if small and not tf.config.list_physical_devices("GPU") else _compiled_hash()
    return tf.ensure_shape(draw(tf.stack(shape), key), static)


def _compiled_hash() -> Any:
    global _COMPILED
    if _COMPILED is None:
        import tensorflow as tf

        _COMPILED = tf.function(_hash, jit_compile=True, autograph=False, reduce_retracing=True)
    return _COMPILED


_COMPILED: Any = None
