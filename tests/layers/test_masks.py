"""The statistics of the masks: one battery for our generator, for Keras' as a control, and for bad ones.

Each test of the battery gives a z-score: how many standard errors from what independent draws would give.
"""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dropzoo import layers
from dropzoo.layers.draws import Draw, own_draw
from dropzoo.layers.draws.hash import mix, mix_twice, standard_normal, uniform

SHAPE = (16, 32, 48, 16)  # 393,216 units
Source = Callable[[float, int, int], Iterator[np.ndarray]]
"""`source(rate, seed, steps)` gives the mask of each step, True where dropped."""


class Once:
    """In place of a seed generator: one seed and counter, always."""

    def __init__(self, seed: tf.Tensor) -> None:
        self.seed = seed

    def next(self) -> tf.Tensor:
        return self.seed


def draw_of(seed: tf.Tensor) -> Draw:
    return own_draw(Once(seed))


def from_layer(make: Callable[[float, int], keras.Layer]) -> Source:
    def masks(rate: float, seed: int, steps: int) -> Iterator[np.ndarray]:
        layer, ones = make(rate, seed), tf.ones(SHAPE)
        run = tf.function(lambda: layer(ones, training=True) == 0)
        return (run().numpy() for _ in range(steps))

    return masks


def from_bits(bits: Callable[[np.ndarray, int, int], np.ndarray]) -> Source:
    """A generator by its hash of (index, seed, step), to be caught."""

    def masks(rate: float, seed: int, steps: int) -> Iterator[np.ndarray]:
        index = np.arange(np.prod(SHAPE), dtype="uint32")
        return ((bits(index, seed, t) < rate * 2**32).reshape(SHAPE) for t in range(1, steps + 1))

    return masks


def lowbias32(h: np.ndarray) -> np.ndarray:
    h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * np.uint32(0x846CA68B)
    return h ^ (h >> 16)


def key(seed: int, step: int) -> np.uint32:
    return lowbias32(lowbias32(np.array([seed], "uint32")) + np.uint32(step))[0]


OURS = from_layer(lambda rate, seed: layers.Dropout(rate, seed=seed))
KERAS = from_layer(lambda rate, seed: keras.layers.Dropout(rate, seed=seed))
BAD = {
    "an LCG of the index": from_bits(lambda i, seed, t: i * np.uint32(1664525) + key(seed, t)),
    "one multiplication": from_bits(lambda i, seed, t: (i ^ key(seed, t)) * np.uint32(0x9E3779B1)),
    "one round, by strides": from_bits(lambda i, seed, t: lowbias32(i * np.uint32(65537) + key(seed, t))),
    "windows of one sequence": from_bits(lambda i, seed, t: lowbias32(i + key(seed, t) % np.uint32(1 << 16))),
    "steps that repeat": from_bits(lambda i, seed, t: lowbias32(lowbias32(i + key(seed, t // 2)))),
    "seeds that repeat": from_bits(lambda i, seed, t: lowbias32(lowbias32(i + key(seed // 2, t)))),
    "a mask for all channels": from_bits(lambda i, seed, t: lowbias32(lowbias32(i // 16 + key(seed, t)))),
    "a period in the batch": from_bits(lambda i, seed, t: lowbias32(lowbias32(i % 2**17 + key(seed, t)))),
    "rates in 256 steps": from_bits(lambda i, seed, t: lowbias32(lowbias32(i + key(seed, t))) & 0xFF000000),
}


def battery(source: Source, rate: float = 0.3) -> dict[str, float]:
    """The largest z-score of each test."""
    steps = 24
    masks = list(source(rate, 5, steps))
    draws = [(mask - rate) / np.sqrt(rate * (1 - rate)) for mask in masks[:2]]  # mean 0, variance 1
    draws += [(m - rate) / np.sqrt(rate * (1 - rate)) for m in source(rate, 4, 1)]
    first, flat, size = draws[0], draws[0].ravel(), draws[0].size
    z: dict[str, list[float]] = {}
    z["rate"] = [(np.mean(masks) - rate) * np.sqrt(size * steps / (rate * (1 - rate)))]
    for axis, n in enumerate(SHAPE):
        for lag in (1, 2, 3, 4, 7, 8):
            products = np.take(first, range(lag, n), axis) * np.take(first, range(n - lag), axis)
            z.setdefault("lag along an axis", []).append(products.sum() / np.sqrt(products.size))
    z["lag in memory"] = [flat[lag:] @ flat[:-lag] / np.sqrt(size - lag) for lag in 2 ** np.arange(18)]
    # Neighbours in memory that differ: their number is binomial, neighbouring pairs are dependent but little.
    change = 2 * rate * (1 - rate)
    spread = size * change * (1 - change) + 2 * size * (rate * (1 - rate) - change**2)
    z["runs"] = [((flat[1:] != flat[:-1]).sum() - (size - 1) * change) / np.sqrt(spread)]
    # Patterns of eight neighbours, along the channels and along the batch.
    ones = np.array([bin(i).count("1") for i in range(256)])
    expected = rate**ones * (1 - rate) ** (8 - ones)
    for axis in (0, 3):
        byte = np.packbits(np.moveaxis(masks[0], axis, -1).reshape(-1, 8), axis=1).ravel()
        counts, means = np.bincount(byte, minlength=256), expected * byte.size
        rare = means < 5  # together in one bin, as chi-square wants
        pooled = [np.append(v[~rare], v[rare].sum()) for v in (counts, means)]
        p = stats.chisquare(*(pooled if rare.any() else (counts, means))).pvalue
        z.setdefault("patterns of eight", []).append(stats.norm.isf(p))
    # The sums over all but one axis scatter as they should, neither more nor less.
    for axis in range(4):
        sums = first.sum(tuple(a for a in range(4) if a != axis)) / np.sqrt(size / SHAPE[axis])
        both = stats.chi2.cdf((sums**2).sum(), SHAPE[axis])
        z.setdefault("sums", []).append(stats.norm.isf(min(both, 1 - both)))
    z["neighbouring steps and seeds"] = [
        np.vdot(a, b) / np.sqrt(size) for a, b in [(first, draws[1]), (first, draws[2]), (draws[1], draws[2])]
    ]
    # Correlation at every shift at once, with itself too: it finds masks that are windows of one sequence. The
    # largest of `size` normal draws is about 5, so 2 is taken off.
    for other in draws:
        spectrum = np.fft.rfft(flat) * np.conj(np.fft.rfft(other.ravel()))
        peak = abs(np.fft.irfft(spectrum)[1:]).max() / np.sqrt(size)
        z.setdefault("at any shift", []).append(peak - 2)
    z["over steps"] = [  # each unit's sequence of masks: how often it changes from one step to the next
        (np.mean([a != b for a, b in zip(masks, masks[1:], strict=False)]) - change)
        * np.sqrt(size * (steps - 1) / (change * (1 - change)))
    ]
    return {name: float(np.max(np.abs(values))) for name, values in z.items()}


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.05])
def test_our_masks_pass(rate):
    assert {k: v for k, v in battery(OURS, rate).items() if not v < 4.5} == {}


def test_keras_masks_pass():
    """The control: were the battery too strict, a Philox generator would fail it too."""
    assert {k: v for k, v in battery(KERAS).items() if not v < 4.5} == {}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", BAD)
def test_bad_masks_are_caught(name):
    assert any(z > 8 for rate in (0.3, 0.05) for z in battery(BAD[name], rate).values())


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_the_rate_is_exact(rate):
    """Over 1e8 draws, within 5 standard errors."""
    count, calls = 10_000_000, 10
    run = tf.function(lambda seed: tf.math.count_nonzero(~draw_of(seed).keep((count,), rate)))
    dropped = sum(int(run(tf.constant([3, call]))) for call in range(calls)) / (count * calls)
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / (count * calls))


def bits(seed: int, counter: int, size: int = 1 << 21) -> np.ndarray:
    return draw_of(tf.constant([seed, counter])).bits((size,)).numpy()


def test_bytes_and_pairs_of_bytes_are_uniform():
    drawn = bits(1, 5)
    for shift in (0, 8, 16, 24):
        counts = np.bincount((drawn >> shift) & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
        pairs = (drawn[::2] >> shift & 255) << 8 | (drawn[1::2] >> shift & 255)
        assert stats.chisquare(np.bincount(pairs, minlength=65536)).pvalue > 1e-4


def test_every_bit_of_seed_and_counter_changes_half_of_the_bits():
    size = 1 << 14
    base = bits(123, 456, size)
    for place in range(31):
        for seed in ((123 ^ 1 << place, 456), (123, 456 ^ 1 << place)):
            flipped = np.unpackbits((base ^ bits(*seed, size)).view("uint8")).reshape(size, 32).mean(0)
            assert abs(flipped - 0.5).max() < 5.5 * 0.5 / np.sqrt(size)


def test_neighbouring_indices_change_half_of_the_bits():
    drawn = bits(9, 1)
    for lag in (1, 2, 16, 1024, 65536):
        different = np.unpackbits((drawn[lag:] ^ drawn[:-lag]).view("uint8")).reshape(-1, 32).mean(0)
        assert abs(different - 0.5).max() < 5.5 * 0.5 / np.sqrt(drawn.size - lag)


def test_bits_are_not_linear():
    """The ranks of random 32x32 matrices over GF(2): 0.289 of full rank, 0.578 one less."""
    matrices = bits(2, 2, 32 * 4000).reshape(4000, 32)
    ranks = np.array([binary_rank(list(map(int, rows))) for rows in matrices])
    counts = [(ranks == 32).sum(), (ranks == 31).sum(), (ranks < 31).sum()]
    assert stats.chisquare(counts, np.array([0.288788, 0.577576, 0.133636]) * 4000).pvalue > 1e-4


def binary_rank(rows: list[int]) -> int:
    rank = 0
    while rows:
        pivot = rows.pop()
        if pivot:
            rank += 1
            low = pivot & -pivot
            rows = [row ^ pivot if row & low else row for row in rows]
    return rank


def test_a_double_hash_is_two_hashes():
    h, between = (np.random.default_rng(seed).integers(0, 2**32, 10_000, "uint32") for seed in (0, 1))
    wanted = lowbias32(lowbias32(h) ^ between)
    np.testing.assert_array_equal(mix_twice(tf.constant(h), tf.constant(between)), wanted)
    np.testing.assert_array_equal(mix(mix(tf.constant(h)) ^ tf.constant(between)), wanted)


def test_the_extreme_bits_stay_inside_the_ends():
    """One in 16 million draws was 1, and infinite as a normal one: every few steps in a large feature map."""
    bits = tf.constant([0, 2**31 - 1, 2**31, 2**32 - 1], "uint32")
    draws = uniform(bits).numpy()
    np.testing.assert_array_equal(draws, [2**-24, 0.5 - 2**-24, 0.5 + 2**-24, 1 - 2**-24])
    np.testing.assert_array_equal(draws + draws[::-1], 1)
    np.testing.assert_allclose(standard_normal(bits).numpy()[[0, 3]], [-5.3, 5.3], atol=0.01)


def test_standard_normal():
    draws = draw_of(tf.constant([0, 0])).normal((1 << 20,)).numpy()
    assert stats.kstest(draws[:100_000], "norm").pvalue > 1e-3
    assert np.isfinite(draws).all() and 4.5 < abs(draws).max() < 5.5


@pytest.mark.parametrize("size", [1 << 10, 1 << 17], ids=["plain", "compiled"])
def test_bits_do_not_depend_on_how_they_are_computed(size):
    seed = tf.constant([4, 2])
    eager = draw_of(seed).bits((size,)).numpy()
    for jit_compile in (False, True):
        run = tf.function(lambda s: draw_of(s).bits((size,)), jit_compile=jit_compile)
        np.testing.assert_array_equal(run(seed), eager)
    dynamic = tf.function(lambda n, s: draw_of(s).bits((n,)))
    np.testing.assert_array_equal(dynamic(tf.constant(size), seed), eager)


def test_the_gradient_has_a_gradient():
    """The compiled gradient draws its mask anew, and so does the gradient of that."""
    layer, x = layers.Dropout(0.5, seed=1), tf.ones(1 << 15)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        slope = inner.gradient(loss, x)
    np.testing.assert_allclose(slope, 3 * 2 * y**2, rtol=1e-6)
    np.testing.assert_allclose(outer.gradient(slope, x), 6 * 4 * y, rtol=1e-6)
