"""Random draws for Monte-Carlo samples on TensorFlow: each row has a key, and samples can be stratified."""

import functools
import math
import zlib
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, derive_key, keep_mask, mix, mix_twice, positions, row_bits, u32
from dropzoo.layers.draws.xla import compiled, gate, shape_of_mask

# Factors of the inverse of the error function near the middle, and in the tails, for every runtime; from Giles,
# "Approximating the erfinv function", 2011.
MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
TAILS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
_ORDERS = 1024  # random permutations of the samples; a power of 2, since 10 bits of a hash choose one


class SampleDraw(Draw):
    """The draws of one site in one sample, or in several samples at once.

    Args:
        stream: Str, the site's name.
        seed: Int scalar.
        group: Int scalar. Each group of samples has its own bits.
        rows: uint32 tensor `(rows,)`, a key for each row. `sample_bits` says more on this and the next arguments.
        sample: Int tensor in [0, num_samples), a scalar or `(rows, 1)`: the number of the sample.
        num_samples: Positive int, the number of samples.
        balanced: Bool. Whether to stratify the bits over the samples.
        plain: Bool. Whether to use only operations that every runtime has, and no XLA.
    """

    def __init__(
        self,
        stream: str,
        seed: tf.Tensor,
        group: int | tf.Tensor,
        rows: tf.Tensor,
        sample: tf.Tensor,
        num_samples: int,
        balanced: bool,
        plain: bool,
    ) -> None:
        self._stream, self._seed, self._group = stream, seed, group
        self._rows, self._sample = rows, sample
        self._num_samples, self._balanced, self._plain = num_samples, balanced, plain
        self._calls = 0

    def bits(self, shape: Shape) -> tf.Tensor:
        rows = self._rows_of(shape)
        return sample_bits(
            shape,
            self._next_key(),
            rows,
            self._sample,
            self._num_samples,
            balanced=self._balanced,
            plain=self._plain,
        )

    def keep(self, shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        if not self._plain:
            return super().keep(shape, rate)
        # Not every runtime compares unsigned integers: both sides are moved by half of the range.
        limit = tf.cast(tf.cast(rate, tf.float32) * 4294967296.0, tf.uint32)
        return _signed(self.bits(shape)) >= _signed(limit)

    def normal(self, shape: Shape) -> tf.Tensor:
        return standard_normal_plainly(self.uniform(shape)) if self._plain else super().normal(shape)

    def drop_units(self, inputs: tf.Tensor, mask_shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        if self._plain:
            return super().drop_units(inputs, mask_shape, rate)
        shared = tuple(isinstance(n, int) and n == 1 for n in mask_shape)
        count = self._num_samples if self._balanced else 1
        rows, sample = self._rows_of(mask_shape), tf.cast(self._sample, tf.uint32)
        key = self._next_key()

        @tf.custom_gradient
        def drop(x: tf.Tensor) -> Any:  # the same mask drops the gradient
            return compiled(_drop)(x, shared, key, rows, sample, count, rate), drop

        return tf.ensure_shape(drop(inputs), inputs.shape)

    def _next_key(self) -> tf.Tensor:
        name = zlib.crc32(f"{self._stream} {self._calls}".encode()) & 0x7FFFFFFF
        self._calls += 1
        word = u32(name) ^ mix(tf.cast(self._group, tf.uint32))
        return derive_key(tf.stack([tf.cast(self._seed, tf.uint32), word]))

    def _rows_of(self, shape: Shape) -> tf.Tensor:
        if not (isinstance(shape[0], int) and shape[0] == 1):
            return self._rows
        if self._sample.shape.rank:
            raise SharedMaskError(self._stream)
        return tf.zeros([1], tf.uint32)


class SharedMaskError(Exception):
    """Raised if several samples make one batch and a layer has only one mask for the whole batch."""


def sample_bits(
    shape: Shape,
    key: tf.Tensor,
    rows: tf.Tensor,
    sample: tf.Tensor,
    num_samples: int,
    *,
    balanced: bool,
    plain: bool = False,
) -> tf.Tensor:
    """Returns random bits for one of several samples of the same inputs, or for several samples at once.

    The bits of a row depend only on its key and its sample, not on the batch that the row is in. Balanced bits are
    stratified over the samples (a Latin hypercube): in T samples each unit draws once from each of T equal
    intervals, in an order of its own. So each single sample is uniform, and all samples together are even.

    The order is one of 1024 random permutations, followed by a rotation and by another one of the 1024
    permutations. The hash of the unit chooses all three, which gives about `2**20 * T` orders. This takes a
    small part of the time of a new shuffle for each unit, which makes balanced masks worthwhile on small networks.

    Args:
        shape: Shape to draw, rows first.
        key: uint32 tensor `(2,)`, derived from the seed and the site.
        rows: uint32 tensor `(rows,)`, a key for each row. If `shape` has a multiple of these rows, each key is for
            several consecutive rows.
        sample: Int tensor in [0, T): a scalar, or `(rows, 1)`, one for each row.
        num_samples: Positive int, the number of samples T.
        balanced: Bool. Whether to stratify the bits over the samples.
        plain: Bool. Whether to use only operations that every TensorFlow runtime has, and no compilation by XLA.

    Returns:
        A uint32 tensor of `shape`.
    """
    draw = _plain_bits if plain else compiled(_bits)
    bits = draw(tf.stack(shape), key, rows, tf.cast(sample, tf.uint32), num_samples if balanced else 1)
    known = [n if isinstance(n, int) else None for n in shape]
    if not plain:
        return tf.ensure_shape(bits, known)
    bits.set_shape(known)  # without an operation, for runtimes that have none for it
    return bits


def content_keys(images: tf.Tensor, plain: bool = True) -> tf.Tensor:
    """Returns a key for each image, computed from its pixels.

    Args:
        images: Float32 tensor `(batch, ...)`.
        plain: Bool. Whether to leave XLA out; see `sample_bits`.

    Returns:
        A uint32 tensor `(batch,)`.
    """
    return tf.ensure_shape((_content_keys if plain else compiled(_content_keys))(images), [images.shape[0]])


def _content_keys(images: tf.Tensor) -> tf.Tensor:
    words = tf.bitcast(tf.reshape(images, [tf.shape(images)[0], -1]), tf.uint32)  # (batch, pixels)
    place = mix(positions(tf.shape(words)[1]))
    mixed = tf.bitcast(mix(mix(words) + place), tf.int32)
    return tf.bitcast(tf.reduce_sum(mixed, 1), tf.uint32)  # it wraps around; every runtime can add int32


def _bits(shape: tf.Tensor, key: tf.Tensor, rows: tf.Tensor, sample: tf.Tensor, count: int) -> tf.Tensor:
    unit, sample, bits = _unit_and_bits(shape, key, rows, sample)
    if count > 1:
        # In 64 bits: where T does not divide 2**32, strata of equal whole widths would leave a gap at the top.
        wide = ops.cast(_stratum(sample, unit, count), "uint64") * tf.constant(2**32, tf.uint64)
        bits = ops.cast((wide + ops.cast(bits, "uint64")) // tf.constant(count, tf.uint64), "uint32")
    return ops.reshape(bits, shape)


def _plain_bits(shape: tf.Tensor, key: tf.Tensor, rows: tf.Tensor, sample: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the same as `_bits`, in 32 bits, without the operations on unsigned numbers that some runtimes lack.

    These are subtraction and bitwise "and".
    """
    if not 1 < count < _ORDERS * 16:
        return _bits(shape, key, rows, sample, count)
    unit, sample, bits = _unit_and_bits(shape, key, rows, sample)
    stratum = plain_stratum(tf.cast(sample, tf.int32), unit, _orders(count))
    whole, rest = divmod(2**32, count)
    half = tf.cast(tf.bitwise.right_shift(bits, 1), tf.int32)
    last = tf.cast(bits + tf.cast(half, tf.uint32) * _minus(2), tf.int32)
    times = half // count
    more = (2 * (half - times * count) + last + stratum * rest) // count
    bits = tf.cast(2 * times + more, tf.uint32) + tf.cast(stratum, tf.uint32) * u32(whole)
    return ops.reshape(bits, shape)


def _unit_and_bits(
    shape: tf.Tensor, key: tf.Tensor, rows: tf.Tensor, sample: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bits of each unit, the sample of each row, and independent bits for each unit and sample."""
    size = ops.prod(shape[1:])
    rows, sample = _spread(shape[0], rows, sample)
    first, second = rows + key[0], rows ^ key[1]
    unit = row_bits(first, second, size)  # (rows, units): the same for all samples
    place = mix(second)[:, None] + positions(size)
    return unit, sample, mix_twice(unit + mix(sample + u32(1)), place)


def _spread(length: tf.Tensor, rows: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the keys and samples for a first axis whose length is not that of the batch.

    It is longer if windows, patches or frames are folded into the batch. Each image then has the same number of
    consecutive rows, and the key of a row depends on the key of its image and on its place in the image.
    """
    images = tf.maximum(tf.shape(rows)[0], 1)
    each = tf.maximum((length + images - 1) // images, 1)
    index = tf.range(length)
    image = tf.minimum(index // each, images - 1)
    place = mix(tf.cast(index - image * each, tf.uint32))  # 0 for the first row, whose key is that of the image
    keys = tf.bitcast(tf.gather(tf.bitcast(rows, tf.int32), image), tf.uint32)
    several = tf.bitcast(tf.reshape(sample, [-1, 1]), tf.int32)  # one for all rows, or one for each image
    chosen = tf.gather(several, tf.minimum(image, tf.shape(several)[0] - 1))
    return keys ^ place, tf.bitcast(chosen, tf.uint32)


def _drop(
    x: tf.Tensor,
    shared: tuple[bool, ...],
    key: tf.Tensor,
    rows: tf.Tensor,
    sample: tf.Tensor,
    count: int,
    rate: tf.Tensor,
) -> tf.Tensor:
    return gate(x, keep_mask(_bits(shape_of_mask(x, shared), key, rows, sample, count), rate), rate)


def _stratum(sample: tf.Tensor, unit: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the place of `sample` in each unit's own permutation of the samples."""
    table = tf.constant(_orders(count).ravel())
    one = unit & u32(_ORDERS - 1)
    other = tf.bitwise.right_shift(unit, 10) & u32(_ORDERS - 1)
    turn = ops.cast(unit, "uint64") * tf.constant(count, tf.uint64) // tf.constant(2**32, tf.uint64)

    def look_up(place: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        return ops.cast(tf.gather(table, ops.cast(place * u32(_ORDERS) + order, "int32")), "uint32")

    place = look_up(sample, one) + ops.cast(turn, "uint32")
    return look_up(ops.where(place >= u32(count), place - u32(count), place), other)


def plain_stratum(sample: tf.Tensor, unit: tf.Tensor, orders: np.ndarray) -> tf.Tensor:
    """Returns the same as `_stratum`, int32, by numbers of 32 bits."""
    count = orders.shape[0]
    table = tf.constant(orders.astype("int32").ravel())
    high, low = tf.bitwise.right_shift(unit, 10), tf.bitwise.right_shift(unit, 20)
    one, other = unit + high * _minus(_ORDERS), high + low * _minus(_ORDERS)
    # The upper half of a product of 64 bits, from two halves of 16 bits.
    upper = tf.bitwise.right_shift(unit, 16)
    lower = tf.bitwise.right_shift((unit + upper * _minus(1 << 16)) * u32(count), 16)
    turn = tf.bitwise.right_shift(upper * u32(count) + lower, 16)

    def look_up(place: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        return tf.gather(table, place * _ORDERS + tf.cast(order, tf.int32))

    place = look_up(sample, one) + tf.cast(turn, tf.int32)
    return look_up(place - count * tf.cast(place >= count, tf.int32), other)


def _minus(value: int) -> tf.Tensor:
    """A factor whose product, modulo 2**32, is that of the negative number."""
    return u32(2**32 - value)


def _signed(bits: tf.Tensor) -> tf.Tensor:
    """Unsigned numbers as signed ones in the same order."""
    return tf.cast(bits + u32(1 << 31), tf.int32)


def standard_normal_plainly(uniform: tf.Tensor) -> tf.Tensor:
    """Returns the same as `standard_normal` from draws of U(0, 1), by a polynomial that every runtime computes.

    Args:
        uniform: Float32 tensor.

    Reference:
        Giles, "Approximating the erfinv function", 2011.
    """
    x = 2.0 * uniform - 1.0
    w = -tf.math.log((1.0 - x) * (1.0 + x))

    def polynomial(at: tf.Tensor, factors: tuple[float, ...]) -> tf.Tensor:
        return functools.reduce(lambda total, factor: total * at + factor, factors[1:], tf.constant(factors[0]))

    middle, tails = polynomial(w - 2.5, MIDDLE), polynomial(tf.sqrt(w) - 3.0, TAILS)
    return math.sqrt(2.0) * tf.where(w < 5.0, middle, tails) * x


@functools.cache
def _orders(count: int) -> np.ndarray:
    """Returns random permutations of [0, count), the same in each process: uint16 or uint32 `(count, 1024)`."""
    with tf.init_scope():
        unit = mix(positions(_ORDERS))[None]  # (1, orders)
        sample = positions(count)[:, None]  # (count, 1)
        place = _shuffle(sample, unit, count).numpy()
    return place.astype("uint16" if count <= 1 << 16 else "uint32")


def _shuffle(sample: tf.Tensor, unit: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the place of `sample` in a random permutation of [0, count), one permutation for each unit.

    The permutation is a random rotation, then ten rounds of the swap-or-not shuffle (Hoang, Morris and Rogaway,
    2012). Each round pairs up the numbers at random, and swaps a pair if its coin says so. Each round halves what
    is left of the original order. After ten rounds, 200,000 units are too few to distinguish the places of any two
    samples from those in true random permutations.
    """
    place = (sample % u32(count) + unit % u32(count)) % u32(count)
    for turn in range(1, 11):
        unit = mix(unit + u32(0x9E3779B9 * turn & 0xFFFFFFFF))
        partner = (unit % u32(count) + u32(count) - place) % u32(count)
        coin = mix(unit ^ (ops.maximum(place, partner) * u32(0x85EBCA6B)))
        place = ops.where(tf.bitwise.right_shift(coin, 31) == u32(1), partner, place)
    return place
