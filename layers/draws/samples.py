"""Random bits for Monte-Carlo samples: keyed by the row, and stratified over the samples."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from dropzoo.layers.draws.plain import derive_key, drop_and_scale, keep_mask, mix, u32
from dropzoo.layers.draws.xla import _gate, compiled

_ORDERS = 1024  # a power of 2


class SampleDraw:
    """The source of one site's random bits in one sample, or in several at once; another stream at each call.

    Args:
        stream: The site's name.
        seed: Int scalar.
        group: Int scalar; the samples of another group have other bits.
        rows: See `sample_bits`, and so for the rest.
    """

    def __init__(
        self,
        stream: str,
        seed: Any,
        group: Any,
        rows: Any,
        sample: Any,
        num_samples: int,
        balanced: bool,
        plain: bool,
    ) -> None:
        self._stream, self._seed, self._group = stream, seed, group
        self._rows, self._sample = rows, sample
        self._options: dict[str, Any] = {"num_samples": num_samples, "balanced": balanced, "plain": plain}
        self._calls = 0

    def __call__(self, shape: Sequence[Any]) -> Any:
        rows = self._rows_of(shape)
        return sample_bits(shape, self._next_key(), rows, self._sample, **self._options)

    def drop_units(self, inputs: Any, mask_shape: Sequence[Any], rate: Any) -> Any:
        """`_masks.drop_units`, where it can be compiled in one pass over the inputs."""
        if self._options["plain"]:
            return drop_and_scale(inputs, keep_mask(self(mask_shape), rate), rate)
        shared = tuple(isinstance(n, int) and n == 1 for n in mask_shape)
        count = self._options["num_samples"] if self._options["balanced"] else 1
        rows, sample = self._rows_of(mask_shape), tf.cast(self._sample, tf.uint32)
        key = self._next_key()

        @tf.custom_gradient
        def drop(x: Any) -> Any:
            return compiled(_drop)(x, shared, key, rows, sample, count, rate), drop

        return tf.ensure_shape(drop(inputs), inputs.shape)

    def _next_key(self) -> Any:
        name = zlib.crc32(f"{self._stream} {self._calls}".encode()) & 0x7FFFFFFF
        self._calls += 1
        word = ops.bitwise_xor(u32(name), mix(tf.cast(self._group, tf.uint32)))
        return derive_key(tf.stack([tf.cast(self._seed, tf.uint32), word]))

    def _rows_of(self, shape: Sequence[Any]) -> Any:
        if not (isinstance(shape[0], int) and shape[0] == 1):
            return self._rows
        if self._sample.shape.rank:
            raise SharedMaskError(self._stream)
        return tf.zeros([1], tf.uint32)


class SharedMaskError(Exception):
    """A layer has one mask for all rows, so that several samples cannot be one batch."""


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
    """Random bits for one of several samples of the same inputs, or for several samples at once.

    A row's bits depend on its own key and sample alone, not on the batch it is in. Balanced bits are
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
        num_samples: Int, T.
        balanced: Bool.
        plain: Bool; only operations that every TensorFlow runtime has, and no compilation by XLA.

    Returns:
        A uint32 tensor.
    """
    draw = _bits if plain else compiled(_bits)
    bits = draw(tf.stack(shape), key, rows, tf.cast(sample, tf.uint32), num_samples if balanced else 1)
    return tf.ensure_shape(bits, [n if isinstance(n, int) else None for n in shape])


def content_keys(images: Any, plain: bool = True) -> Any:
    """A uint32 key for each image of a float32 batch, from its pixels; compiled unless `plain`."""
    return tf.ensure_shape((_content_keys if plain else compiled(_content_keys))(images), [images.shape[0]])


def _content_keys(images: Any) -> Any:
    words = tf.bitcast(tf.reshape(images, [tf.shape(images)[0], -1]), tf.uint32)  # (batch, pixels)
    place = mix(tf.cast(tf.range(tf.shape(words)[1]), tf.uint32))
    mixed = tf.bitcast(mix(mix(words) + place), tf.int32)
    return tf.bitcast(tf.reduce_sum(mixed, 1), tf.uint32)  # wraps around; int32, which every kernel adds


def _bits(shape: Any, key: Any, rows: Any, sample: Any, count: int) -> Any:
    index = ops.cast(ops.arange(ops.prod(shape[1:]), dtype="int32"), "uint32")[None]  # (1, units)
    first, second = mix(rows + key[0])[:, None], mix(ops.bitwise_xor(rows, key[1]))[:, None]  # (rows, 1)
    unit = mix(ops.bitwise_xor(mix(index + first), second))  # (rows, units): the same for all samples
    bits = mix(ops.bitwise_xor(mix(unit + mix(sample + u32(1))), second + index))
    if count > 1:
        # In 64 bits: where T does not divide 2**32, strata of equal whole widths would leave a gap at the top.
        wide = ops.cast(_stratum(sample, unit, count), "uint64") * tf.constant(2**32, tf.uint64)
        bits = ops.cast((wide + ops.cast(bits, "uint64")) // tf.constant(count, tf.uint64), "uint32")
    return ops.reshape(bits, shape)


def _drop(x: Any, shared: tuple[bool, ...], key: Any, rows: Any, sample: Any, count: int, rate: Any) -> Any:
    shape = [1 if one else n for one, n in zip(shared, tf.unstack(tf.shape(x)), strict=True)]
    return _gate(x, keep_mask(_bits(tf.stack(shape), key, rows, sample, count), rate), rate)


def _stratum(sample: Any, unit: Any, count: int) -> Any:
    """Where each unit's own permutation of the samples puts `sample`."""
    table = tf.constant(_orders(count).ravel())
    one = ops.bitwise_and(unit, u32(_ORDERS - 1))
    other = ops.bitwise_and(ops.right_shift(unit, u32(10)), u32(_ORDERS - 1))
    turn = ops.cast(unit, "uint64") * tf.constant(count, tf.uint64) // tf.constant(2**32, tf.uint64)

    def look_up(place: Any, order: Any) -> Any:
        return ops.cast(tf.gather(table, ops.cast(place * u32(_ORDERS) + order, "int32")), "uint32")

    place = look_up(sample, one) + ops.cast(turn, "uint32")
    return look_up(ops.where(place >= u32(count), place - u32(count), place), other)


@functools.cache
def _orders(count: int) -> np.ndarray:
    """Random permutations of [0, count), always the same: uint16 or uint32 `(count, 1024)`."""
    with tf.init_scope():
        unit = mix(tf.cast(tf.range(_ORDERS), tf.uint32))[None]  # (1, orders)
        sample = tf.cast(tf.range(count), tf.uint32)[:, None]  # (count, 1)
        place = _shuffle(sample, unit, count).numpy()
    return place.astype("uint16" if count <= 1 << 16 else "uint32")


def _shuffle(sample: Any, unit: Any, count: int) -> Any:
    """Where a random permutation of [0, count), one for each unit, puts `sample`.

    A random rotation, then rounds of the swap-or-not shuffle (Hoang, Morris and Rogaway, 2012): each pairs up
    the numbers at random and swaps the pairs whose coin says so. A round halves what is left of the order; after
    ten, no pair of samples can be told from a true permutation's in 200,000 units.
    """
    place = (sample % u32(count) + unit % u32(count)) % u32(count)
    for turn in range(1, 11):
        unit = mix(unit + u32(0x9E3779B9 * turn & 0xFFFFFFFF))
        partner = (unit % u32(count) + u32(count) - place) % u32(count)
        coin = mix(ops.bitwise_xor(unit, ops.maximum(place, partner) * u32(0x85EBCA6B)))
        place = ops.where(ops.right_shift(coin, u32(31)) == u32(1), partner, place)
    return place
