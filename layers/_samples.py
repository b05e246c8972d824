"""Random bits for Monte-Carlo samples: keyed by the row, and stratified over the samples. TensorFlow only."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from dropzoo.layers._masks import mix, u32
from dropzoo.layers._xla import compiled


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
    draw = _sample_hash if plain else compiled(_sample_hash)
    bits = draw(tf.stack(shape), key, rows, tf.cast(sample, tf.uint32), num_samples, balanced)
    return tf.ensure_shape(bits, [n if isinstance(n, int) else None for n in shape])


def content_keys(images: Any) -> Any:
    """A uint32 key for each image of a float32 batch, from its pixels."""
    words = tf.bitcast(tf.reshape(images, [tf.shape(images)[0], -1]), tf.uint32)  # (batch, pixels)
    place = mix(tf.cast(tf.range(tf.shape(words)[1]), tf.uint32))
    mixed = tf.bitcast(mix(mix(words) + place), tf.int32)
    return tf.bitcast(tf.reduce_sum(mixed, 1), tf.uint32)  # wraps around; int32, which every kernel adds


def _sample_hash(shape: Any, key: Any, rows: Any, sample: Any, num_samples: int, balanced: bool) -> Any:
    index = ops.cast(ops.arange(ops.prod(shape[1:]), dtype="int32"), "uint32")[None]  # (1, units)
    first, second = mix(rows + key[0])[:, None], mix(ops.bitwise_xor(rows, key[1]))[:, None]  # (rows, 1)
    unit = mix(ops.bitwise_xor(mix(index + first), second))  # (rows, units): the same for all samples
    bits = mix(ops.bitwise_xor(mix(unit + mix(sample + u32(1))), second + index))
    if balanced and num_samples > 1:
        stratum = _shuffle(sample, unit, num_samples)
        # In 64 bits: where T does not divide 2**32, strata of equal whole widths would leave a gap at the top.
        wide = ops.cast(stratum, "uint64") * tf.constant(2**32, tf.uint64) + ops.cast(bits, "uint64")
        bits = ops.cast(wide // tf.constant(num_samples, tf.uint64), "uint32")
    return ops.reshape(bits, shape)


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
