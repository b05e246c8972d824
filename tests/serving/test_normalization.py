"""Batch normalization as one operation gives what Keras gives, wherever it takes the place of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import serving
from dropzoo.models.graph.unroll import Unrolled
from dropzoo.serving.montecarlo.normalize import Normalization, at_once

IMAGE, SEQUENCE, VOLUME = (6, 5, 3), (6, 3), (4, 6, 5, 3)


def _with_statistics(layer, shape):
    """Returns a model of one layer, whose weights and moving statistics are random."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    random = np.random.default_rng(0)
    layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return model


class Own(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return -super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    ("layer", "shape", "replaced"),
    [
        (keras.layers.BatchNormalization, IMAGE, True),
        (lambda: keras.layers.BatchNormalization(axis=3, epsilon=0.1, renorm=True), IMAGE, True),
        (lambda: keras.layers.BatchNormalization(scale=False), IMAGE, True),
        (lambda: keras.layers.BatchNormalization(center=False), IMAGE, True),
        (lambda: keras.layers.BatchNormalization(axis=1), IMAGE, False),
        (lambda: keras.layers.BatchNormalization(epsilon=1e-6), IMAGE, False),
        (lambda: keras.layers.BatchNormalization(dtype="mixed_float16"), IMAGE, False),
        (lambda: keras.layers.BatchNormalization(dtype="float64"), IMAGE, False),
        (keras.layers.BatchNormalization, SEQUENCE, False),
        (keras.layers.BatchNormalization, VOLUME, False),
        (keras.layers.LayerNormalization, IMAGE, False),
        (Own, IMAGE, False),
    ],
)
def test_equals_keras(layer, shape, replaced):
    model = _with_statistics(layer(), shape)
    graph = Unrolled(model, model.input, model.outputs)
    graph.steps = [at_once(step) for step in graph.steps]
    assert any(isinstance(step, Normalization) for step in graph.steps) == replaced
    x = np.random.default_rng(1).normal(3, 5, (2, *shape)).astype("float32")
    values = {graph.inputs[0]: tf.constant(x)}
    for step in graph.steps:
        step.run(values)
    found, expected = values[graph.outputs[0]], model(x, training=False)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_samples_follow_the_weights_of_the_model():
    """The operation reads the variables at each call; nothing is copied when the sampler is made."""
    layer = keras.layers.BatchNormalization()
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, layer(keras.layers.Dropout(0.5)(inputs)))
    mc = serving.MonteCarlo(model, num_samples=2, task="regression")
    x = np.ones((1, *IMAGE), np.float32)
    before = np.asarray(mc(x)["mean"])
    layer.gamma.assign(2 * layer.gamma)
    layer.beta.assign(layer.beta + 1)
    np.testing.assert_allclose(mc(x)["mean"], 2 * before + 1, rtol=1e-5)


def test_layers_in_training_mode_keep_their_own_code():
    layer = keras.layers.BatchNormalization()
    model = _with_statistics(layer, IMAGE)
    graph = Unrolled(model, model.input, model.outputs)
    step = next(step for step in graph.steps if step.operation is layer)
    object.__setattr__(step, "training", True)
    assert at_once(step) is step
