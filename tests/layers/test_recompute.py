"""Recomputed activations: the gradient of a block that is computed again belongs to the masks of its forward pass.

The rule: under `tf.recompute_grad`, `keras.remat` and `keras.RematScope` the seeds of each call are kept with the
call, so the second run of a block draws as the first one did: eagerly, in graphs and under XLA, in any order of
calls, nested, and for calls without a gradient in between. Outside nothing changes.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers
from dropzoo.layers.draws import recompute

MODES = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


def mismatches(run, x):
    """The share of units of which the output is dropped and the gradient is not, or the other way round."""
    y, gradient = run(x)
    assert 0 < np.mean(np.asarray(y) == 0) < 1
    return float(np.mean((np.asarray(y) == 0) != (np.asarray(gradient) == 0)))


def with_gradient(function):
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x)

    return both


SPECS = [
    "dropout:0.5",
    "spatial_dropout2d:0.5",
    "drop_path:0.5",
    "drop_block2d:0.3,block_size=3",
    "max_dropout:0.5",
]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("spec", "mode"), [*((spec, "eager") for spec in SPECS), (SPECS[0], "graph"), (SPECS[3], "xla")]
)
def test_a_layer(spec, mode):
    drop = layers.get(spec)
    run = MODES[mode](with_gradient(tf.recompute_grad(lambda t: drop(t, training=True))))
    x = 1.0 + tf.random.uniform([16, 6, 6, 8])
    assert all(mismatches(run, x) == 0 for _ in range(3))
    first, second = run(x)[0], run(x)[0]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("size", "mode"), [(8, "eager"), (8, "xla"), (128, "graph")])  # large masks are compiled
def test_several_calls_of_one_layer(mode, size):
    """Blocks are computed again in the opposite order, and one of the calls has no gradient."""
    drop = layers.Dropout(0.5)
    block = tf.recompute_grad(lambda t: drop(drop(t, training=True) * 2.0, training=True))

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            a, b = block(x), block(x)
            block(x)
            y = tf.concat([a, b * 3.0], 0)
        return y, tape.gradient(y, x), a, b

    y, gradient, a, b = MODES[mode](run)(tf.ones([size, 6, 6, 4]))
    np.testing.assert_allclose(gradient, a + 3 * b, rtol=1e-6)  # linear: the slope is the output at 1


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_blocks_in_blocks(mode):
    drop, other = layers.Dropout(0.5), layers.SpatialDropout2D(0.3)
    inner = tf.recompute_grad(lambda t: drop(t, training=True))
    outer = tf.recompute_grad(lambda t: inner(other(inner(t), training=True)))
    assert mismatches(MODES[mode](with_gradient(outer)), tf.ones([8, 6, 6, 4])) == 0


def test_a_gradient_that_is_taken_twice():
    drop = layers.Dropout(0.5)
    block, x = tf.recompute_grad(lambda t: drop(t, training=True)), tf.Variable(tf.ones([4, 32]))
    with tf.GradientTape(persistent=True) as tape:
        y = block(x)
    assert all(np.array_equal(tape.gradient(y, x), y) for _ in range(3))


class Block(keras.layers.Layer):
    """A block that is computed again, by Keras' function."""

    def __init__(self, again):
        super().__init__()
        self.again, self.dense, self.drop = again, keras.layers.Dense(32), layers.Dropout(0.5, seed=3)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=False):
        def block(t):
            return self.drop(self.dense(t), training=training)

        return (keras.remat(block) if self.again else block)(x)


def test_keras_scope():
    """Keras' scope works eagerly only: TensorFlow passes no keywords, such as `training`, in graphs."""
    with keras.RematScope(mode="full"):
        drop = layers.Dropout(0.5)
    assert mismatches(with_gradient(lambda x: drop(x, training=True)), tf.ones([8, 32])) == 0


@pytest.mark.costly(keep=0)
def test_fit():
    """The weights move as without recomputation."""
    ends = []
    for again in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((16,)), Block(again), keras.layers.Dense(4)])
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        model.fit(np.ones((8, 16), "float32"), np.zeros((8, 4)), epochs=2, verbose=0)
        ends.append(model.get_weights())
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_calls_that_are_too_old_are_an_error(monkeypatch):
    monkeypatch.setattr(recompute, "_KEPT", 2)
    drop = layers.Dropout(0.5)
    block, x = tf.recompute_grad(lambda t: drop(t, training=True)), tf.ones([4, 8])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = [block(x) for _ in range(3)]
    with pytest.raises(RuntimeError, match="the last 2 calls under tf.recompute_grad"):
        tape.gradient(y, x)
