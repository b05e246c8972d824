"""The site layers whose formula is more than a mask, against the formula written down in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.layers.draws import Draw


class Recorder(Draw):
    """The bits of NumPy's generator; keeps its uniform draws."""

    def __init__(self):
        self.generator, self.draws = np.random.default_rng(3), []

    def bits(self, shape):
        return tf.constant(self.generator.integers(0, 2**32, [int(n) for n in shape], dtype="uint32"))

    def uniform(self, shape):
        self.draws.append(super().uniform(shape).numpy())
        return tf.constant(self.draws[-1])


def recorded(layer, x):
    """The layer's output and the uniform draws behind it."""
    draw = Recorder()
    return layer.drop(tf.constant(x), tf.constant(layer.rate, tf.float32), draw).numpy(), draw.draws


def maps(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_weighted_channel_dropout_keeps_the_largest_keys():
    x = np.maximum(maps((5, 4, 3, 8)), 0)
    y, (chance, rounding) = recorded(layers.WeightedChannelDropout(0.3), x)
    for n in range(5):
        key = np.log(chance[n]) / np.maximum(x[n].mean((0, 1)), 1e-12)
        count = int(0.7 * 8 + rounding[n, 0])
        kept = np.argsort(-key)[:count]
        assert count in (5, 6)
        np.testing.assert_allclose(y[n][..., kept], x[n][..., kept] / 0.7, rtol=1e-6)
        assert (np.delete(y[n], kept, -1) == 0).all()


def test_weighted_channel_dropout_keeps_one_channel_in_proportion_to_its_score():
    """With one to keep, weighted selection is the lottery of the scores; negative scores have no ticket."""
    scores = np.array([4.0, 2.0, 1.0, 1.0, 0.0, -3.0, 0.0, 0.0], "float32")
    x = np.broadcast_to(scores, (20_000, 2, 3, 8)).astype("float32")
    y = layers.WeightedChannelDropout(7 / 8, seed=1)(x + 0 * x, training=True).numpy()
    won = (y[:, 0, 0, :4] != 0).mean(0)
    expected = scores[:4] / 8
    assert (abs(won - expected) < 5 * np.sqrt(expected * (1 - expected) / len(x))).all()
    assert (y[..., 4:] == 0).all()


def test_max_dropout_drops_the_top_of_the_range():
    x = maps((6, 4, 3, 5))
    y, (chance,) = recorded(layers.MaxDropout(0.6), x)
    for n in range(6):
        place = (x[n] - x[n].min()) / (x[n].max() - x[n].min())
        np.testing.assert_array_equal(y[n], np.where(place > 1 - 0.6 * chance[n], 0, x[n]))
        assert (y[n] == 0).any()


def test_max_dropout_leaves_constant_samples():
    x = np.full((2, 3, 4, 1), 2.5, "float32")
    np.testing.assert_array_equal(layers.MaxDropout(0.9)(x, training=True), x)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_targeted_dropout_drops_among_the_weakest_channels(fraction):
    x = maps((400, 4, 3, 10)) * np.linspace(0.1, 3, 10, dtype="float32")[::-1]
    y = layers.TargetedDropout(0.7, fraction, seed=2)(x, training=True).numpy()
    order = abs(x).mean((1, 2)).argsort(1)
    count = int(fraction * 10)
    by_rank = np.take_along_axis((y == 0).all((1, 2)), order, 1)  # (sample, rank), the weakest first
    assert not by_rank[:, count:].any()
    if count:
        assert abs(by_rank[:, :count].mean() - 0.7) < 5 * np.sqrt(0.21 / (400 * count))
    np.testing.assert_array_equal(y[y != 0], x[y != 0])


def test_targeted_dropout_ranks_the_units_of_a_dense_layer():
    x = maps((50, 6))
    y = layers.TargetedDropout(0.999, 0.5, seed=2)(x, training=True).numpy()
    for before, after in zip(x, y, strict=True):
        np.testing.assert_array_equal(np.sort(abs(after))[3:], np.sort(abs(before))[3:])


def test_uout_noise_is_uniform():
    y = layers.UOut(0.3, seed=0)(tf.ones((1000, 1000)), training=True).numpy()
    assert abs(y.mean() - 1) < 5 * 0.3 / np.sqrt(3e6) and 0.7 <= y.min() and y.max() <= 1.3
    assert y.var() == pytest.approx(0.3**2 / 3, rel=0.01)


@pytest.mark.parametrize("size", [(24, 8), (3, 3), (1, 7), (40, 31)])
def test_cutout_drops_one_rectangle_as_often_at_the_border(size):
    rate, samples = 0.2, 40_000
    y = layers.CutoutDropout(rate, seed=0)(tf.ones((samples, *size, 1)), training=True).numpy()[..., 0]
    by_pixel = (y == 0).mean(0)
    assert abs(by_pixel - rate).max() < 5 * np.sqrt(rate * (1 - rate) / samples)
    for sample in y[:200] == 0:
        rows, columns = sample.any(1), sample.any(0)
        np.testing.assert_array_equal(sample, rows[:, None] & columns[None])
        assert (np.diff(rows.astype(int)) == 1).sum() <= 1 and (np.diff(columns.astype(int)) == 1).sum() <= 1


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("size", [(3, 3), (7, 7), (14, 14), (24, 8), (28, 28), (56, 56), (112, 112)], ids=str)
def test_drop_block_drops_the_rate_on_maps_of_every_size(size):
    """Maps are independent, the units of one are not: the standard error is that of the maps' fractions."""
    layer, maps = layers.DropBlock2D(0.1, seed=0), max(400, 1_000_000 // (size[0] * size[1]))
    dropped = np.mean(layer(tf.ones((maps, *size, 1)), training=True) == 0, axis=(1, 2, 3))
    assert abs(dropped.mean() - 0.1) < 4 * dropped.std() / np.sqrt(maps)


def test_drop_path_drops_whole_samples():
    y = layers.DropPath(0.4, seed=0)(tf.ones((64, 3, 5, 2)), training=True).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / np.float32(0.6))}
    assert (y.min((1, 2, 3)) == y.max((1, 2, 3))).all()


def test_a_layer_of_ones_own_may_call_the_draw():
    class Own(layers.BaseDropout):
        def drop(self, inputs, rate, draw):
            return tf.where(draw(keras.ops.shape(inputs)) < tf.constant(1 << 31, tf.uint32), inputs, 0.0)

    x = tf.ones((100, 100))
    assert abs(float(tf.reduce_mean(Own(0.5, seed=1)(x, training=True))) - 0.5) < 0.05
    inputs = keras.Input((100,))
    model = keras.Model(inputs, Own(0.5)(inputs))
    assert 0.4 < float(tf.reduce_mean(serving.MonteCarlo(model, 2, task="regression")(x)["mean"])) < 0.6


@pytest.mark.costly(keep=0)
def test_the_two_scalings_agree_in_expectation():
    """The mean over many masks is what inference gives: with "standard" too, which scales there."""
    x, rate, repeats = maps((8, 5, 3)), 0.3, 4000
    for scaling in ("inverted", "standard"):
        layer = layers.Dropout(rate, seed=1, scaling=scaling)
        run = tf.function(lambda f=layer: f(x, training=True))
        draws = np.stack([run() for _ in range(repeats)])
        error = draws.std(0, ddof=1) / np.sqrt(repeats)
        assert (abs(draws.mean(0) - layer(x).numpy()) < 5 * error).all()
        kept = draws[0] != 0
        np.testing.assert_allclose(draws[0][kept], x[kept] / (0.7 if scaling == "inverted" else 1), rtol=1e-6)
    layer.rate = 0.6
    np.testing.assert_allclose(layer(x), 0.4 * x, rtol=1e-6)  # live in inference too


def test_shake_drop_has_one_factor_forward_and_another_backward():
    layer, x = layers.ShakeDrop(0.5, seed=4), tf.ones((4000, 2, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    forward, backward = y.numpy()[:, 0, 0, 0], tape.gradient(y, x).numpy()[:, 0, 0, 0]
    kept = forward == 1
    assert abs(kept.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000) and (backward[kept] == 1).all()
    alpha, beta = forward[~kept], backward[~kept]
    assert -1 < alpha.min() < -0.98 and 0.98 < alpha.max() < 1 and abs(alpha.mean()) < 5 / np.sqrt(3 * len(alpha))
    assert 0 < beta.min() < 0.02 and 0.98 < beta.max() < 1
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 5 / np.sqrt(len(alpha))
    run = tf.function(lambda: layer(x[:50], training=True))
    draws = np.stack([run() for _ in range(2000)])
    error = draws.std(0, ddof=1) / np.sqrt(2000)
    assert (abs(draws.mean(0) - layer(x[:50]).numpy()) < 5 * error).all()
