"""Where only gradients of weights are asked for, a ReLU and the dropout behind it are one operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, training
from dropzoo.layers.draws.xla import _weights_only, gradients_of_weights_only

LAYERS = [layers.Dropout, layers.SpatialDropout2D, layers.DropBlock2D, layers.DropPath]


def step(layer, jit_compile=False):
    """The layer's output behind a ReLU and the gradients before and of it; the sum makes each unit count."""

    def run(z, weights):
        with tf.GradientTape() as tape:
            tape.watch(z)
            x = tf.nn.relu(z)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * weights) + tf.reduce_sum(tf.sin(y))
        return y, *tape.gradient(loss, [z, x], unconnected_gradients="zero")

    return tf.function(run, jit_compile=jit_compile)


def inputs(dtype, height=24, width=20):
    z, weights = np.random.default_rng(0).normal(size=(2, 4, height, width, 16))
    z[0, :2] = 0.0  # units at the kink have no gradient before it, kept or not
    return tf.constant(z, dtype), tf.constant(weights, dtype)


@pytest.mark.covering("layer", "rate", "dtype")
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS)
def test_pair_is_the_two(layer, dtype, rate):
    z, weights = inputs(dtype)
    two = step(layer(rate, seed=1, dtype=dtype))
    pair = step(layer(rate, seed=1, dtype=dtype))
    y, before, of_relu = two(z, weights)
    with gradients_of_weights_only():
        y_pair, before_pair, of_relu_pair = pair(z, weights)
    np.testing.assert_array_equal(y, y_pair)
    np.testing.assert_array_equal(before, before_pair)
    assert not np.any(of_relu_pair)  # the pair is one operation: nothing flows between its halves
    assert np.count_nonzero(of_relu) > np.count_nonzero(before) > 0  # outside, zeros that are kept have a gradient


def test_pair_under_xla_and_in_a_batch_of_unknown_size():
    z, weights = inputs("float32")
    y, before, _ = step(layers.Dropout(0.4, seed=2))(z, weights)
    with gradients_of_weights_only():
        compiled = step(layers.Dropout(0.4, seed=2), jit_compile=True)(z, weights)
        unknown = step(layers.Dropout(0.4, seed=2))
        dynamic = tf.TensorSpec([None, None, None, 16])
        traced = unknown.get_concrete_function(dynamic, dynamic)(z, weights)
    for found in (compiled, traced):
        np.testing.assert_array_equal(y, found[0])
        np.testing.assert_allclose(before, found[1], rtol=1e-4, atol=1e-6)


def test_other_activations_and_eager_calls_keep_their_gradient():
    z, weights = inputs("float32")
    layer = layers.Dropout(0.5, seed=3)
    with gradients_of_weights_only(), tf.GradientTape() as tape:
        x = tf.nn.relu(z)
        tape.watch(x)
        y = layer(x, training=True)
    kept = tape.gradient(y, x)
    np.testing.assert_array_equal(np.unique(kept), [0, 2])
    np.testing.assert_array_equal((y != 0) & (kept == 0), False)
    assert np.any((x == 0) & (kept == 2))


def test_the_trainer_asks_for_pairs_in_its_steps_alone():
    seen = []

    class Probe(keras.layers.Layer):
        def call(self, x, training=False):
            seen.append((bool(training), _weights_only.get()))
            return x

    model = keras.Sequential([keras.Input((4,)), Probe(), keras.layers.Dense(2)])
    data = tf.data.Dataset.from_tensors((np.zeros((3, 4), "float32"), np.zeros(3, "int32")))
    training.Trainer(model, "sgd").fit(data, validation_data=data, verbose=0)
    assert (True, True) in seen and (False, True) not in seen
    seen.clear()
    model.fit(data, shuffle=False, verbose=0)
    assert seen and not any(asked for _, asked in seen)
