"""The formulas of the layers on weights, in pooling and with a learned rate, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers
from dropzoo.layers.draws import Draw

SHAPE = (6, 9, 5, 4)  # height != width


def data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Not negative, as after a ReLU, and without ties."""
    return np.random.default_rng(seed).random(shape, "float32")


class GivenBits(Draw):
    """The bits of NumPy's generator, the same at each call."""

    def bits(self, shape):
        return tf.constant(np.random.default_rng(5).integers(0, 2**32, [int(n) for n in shape], dtype="uint32"))


def test_drop_connect_is_a_masked_product():
    x, layer = data((6, 7)), layers.DropConnectDense(3, rate=0.5, use_bias=False)
    layer(x)
    y = layer.drop(tf.constant(x), tf.constant(0.5), GivenBits())
    keep = GivenBits().bits((1, 7, 3))[0].numpy() >= 2**31
    np.testing.assert_allclose(y, x @ (layer.get_weights()[0] * keep * 2), rtol=1e-5, atol=1e-6)


def windows(x, pool, strides, padding):
    """Each window's units, by plain loops."""
    height, width = x.shape[1:3]
    out, offset = [], (0, 0)
    counts = [(n - p) // s + 1 for n, p, s in zip((height, width), pool, strides, strict=True)]
    if padding == "same":
        counts = [-(-n // s) for n, s in zip((height, width), strides, strict=True)]
        missing = [
            max((c - 1) * s + p - n, 0) for c, s, p, n in zip(counts, strides, pool, (height, width), strict=True)
        ]
        offset = (missing[0] // 2, missing[1] // 2)
    for i in range(counts[0]):
        for j in range(counts[1]):
            top, left = i * strides[0] - offset[0], j * strides[1] - offset[1]
            rows, columns = slice(max(top, 0), top + pool[0]), slice(max(left, 0), left + pool[1])
            out.append(x[:, rows, columns].reshape(len(x), -1, x.shape[-1]))
    return counts, out


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pooling_in_inference_is_the_expectation(padding, data_format):
    x, pool, strides, rate = data(SHAPE) - 0.3, (3, 2), (2, 1), 0.4
    counts, expected = windows(x, pool, strides, padding)
    falling = [-np.sort(-units, 1) for units in expected]
    weighted = [sum(u[:, i] * 0.6 * rate**i for i in range(u.shape[1])) for u in falling]
    positive = [np.maximum(u, 0) for u in expected]
    stochastic = [(u**2).sum(1) / np.maximum(u.sum(1), 1e-20) for u in positive]
    for layer, values in (
        (layers.MaxPoolDropout2D(rate, pool, strides, padding, data_format), weighted),
        (layers.StochasticPooling2D(pool, strides, padding, data_format), stochastic),
    ):
        last = data_format == "channels_last"
        y = layer(x if last else x.transpose(0, 3, 1, 2)).numpy()
        y = y if last else y.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(y, np.stack(values, 1).reshape(6, *counts, 4), rtol=1e-5, atol=1e-6)


def test_stochastic_pooling_picks_a_unit_in_proportion():
    x = np.tile(np.array([3.0, 1.0, 0.0, -2.0], "float32").reshape(1, 2, 2, 1), (20_000, 1, 1, 1))
    y = layers.StochasticPooling2D(seed=1)(x, training=True).numpy().ravel()
    assert set(np.unique(y)) == {1.0, 3.0}
    assert abs((y == 3).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)
    np.testing.assert_array_equal(
        layers.StochasticPooling2D()(-abs(x), training=True), np.zeros((20_000, 1, 1, 1))
    )


def test_concrete_dropout_is_relaxed_dropout_with_its_regulariser():
    x, layer = data(SHAPE), layers.ConcreteDropout(keras.layers.Conv2D(3, 3), data_size=100, rate=0.2)
    layer(x)
    y = layer.drop(tf.constant(x), tf.constant(0.2), GivenBits())
    chance = GivenBits().uniform((6, 1, 1, 4)).numpy().astype("float64")
    z = 1 / (1 + np.exp(-(np.log(0.2 / 0.8) + np.log(chance / (1 - chance))) / 0.1))
    np.testing.assert_allclose(y, layer.layer(x * (1 - z) / 0.8), rtol=1e-3, atol=1e-4)
    layer(x, training=True)
    kernel = layer.layer.kernel.numpy()
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    expected = (0.01**2 / 2 * (kernel**2).sum() / 0.8 - 4 * entropy) / 100
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.costly(keep=0)
def test_concrete_dropout_learns_lower_rates_from_more_data():
    """The same weak slope in noise, from 20 and from 2000 samples: what is left of the doubt is less."""
    rates = []
    for size in (20, 2000):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(size, 8)).astype("float32")
        y = (x @ np.full(8, 0.1) + rng.normal(size=size)).astype("float32")[:, None]
        layer = layers.ConcreteDropout(keras.layers.Dense(1), data_size=size, rate=0.3, length_scale=0.1)
        model = keras.Sequential([keras.Input((8,)), layer])
        model.compile(
            keras.optimizers.Adam(0.05), lambda a, b: tf.reduce_mean((a - b) ** 2) / 2, jit_compile=False
        )
        model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(500), verbose=0, shuffle=False)
        rates.append(layer.rate)
    assert rates[0] > 0.1 and rates[1] < rates[0] / 4, rates
