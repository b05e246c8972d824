"""Batch normalization as one operation gives what Keras gives, wherever it takes the place of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import models, serving
from dropzoo.common.keras_internals import put_mask
from dropzoo.models.graph.unroll import Unrolled
from dropzoo.serving.montecarlo.normalize import Normalization, at_once

kl = keras.layers
IMAGE, SEQUENCE, VOLUME = (6, 5, 3), (6, 3), (4, 6, 5, 3)


class Own(kl.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return -super().call(inputs, training=training, mask=mask)


def _compared(model, shape, dtype="float32") -> bool:
    """Compares the steps of a model, in a graph, with the model; returns whether any step is one operation."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    graph = Unrolled(model, model.input, model.outputs)
    graph.steps = at_once(graph)

    @tf.function
    def run(x):
        values = {graph.inputs[0]: x}
        for step in graph.steps:
            step.run(values)
        return values[graph.outputs[0]]

    x = random.normal(0.3, 0.5, (2, *shape)).astype(dtype)
    found, expected = run(tf.constant(x)), model(x, training=False)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return any(isinstance(step, Normalization) for step in graph.steps)


@pytest.mark.parametrize(
    ("layer", "shape", "replaced"),
    [
        (kl.BatchNormalization, IMAGE, True),
        (lambda: kl.BatchNormalization(axis=3, epsilon=0.1, renorm=True), IMAGE, True),
        (lambda: kl.BatchNormalization(scale=False), IMAGE, True),
        (lambda: kl.BatchNormalization(center=False), IMAGE, True),
        (lambda: kl.BatchNormalization(axis=1), IMAGE, False),
        (lambda: kl.BatchNormalization(epsilon=1e-6), IMAGE, False),
        (lambda: kl.BatchNormalization(dtype="mixed_float16"), IMAGE, False),
        (lambda: kl.BatchNormalization(dtype="float64"), IMAGE, False),
        (kl.BatchNormalization, SEQUENCE, False),
        (kl.BatchNormalization, VOLUME, False),
        (kl.LayerNormalization, IMAGE, False),
        (Own, IMAGE, False),
    ],
)
def test_which_normalizations_are_replaced(layer, shape, replaced):
    inputs = keras.Input(shape)
    assert _compared(keras.Model(inputs, kl.ReLU()(layer()(inputs))), shape) == replaced


def _joined(join):
    return lambda x, inputs: join()([x, kl.Conv2D(4, 3)(inputs)])


ACTIVATIONS = sorted(
    {name for name in vars(keras.activations) if name.islower() and callable(getattr(keras.activations, name))}
    - {"deserialize", "get", "serialize", "glu", "threshold"}
)
READERS = {
    "relu layer": lambda x, _: kl.ReLU()(x),
    "add": _joined(kl.Add),
    "concatenate": _joined(kl.Concatenate),
    "convolution": lambda x, _: kl.Conv2D(2, 3)(x),
    "largest": lambda x, _: kl.MaxPooling2D()(x),
    "mean": lambda x, _: kl.AveragePooling2D(2)(x),
    "mean of all": lambda x, _: kl.GlobalAveragePooling2D()(x),
    "two relus": lambda x, _: kl.Add()([kl.ReLU()(x), kl.Activation("relu")(x)]),
}
OTHERS = {
    "end": lambda x, _: x,
    "other relu": lambda x, _: kl.ReLU(6.0)(x),
    "two": lambda x, _: kl.Add()([kl.ReLU()(x), kl.Activation("tanh")(x)]),
    "dropout": lambda x, _: kl.Activation("tanh")(kl.Dropout(0.5)(x)),
    "operation": lambda x, _: x * 2.0,
} | {name: lambda x, _, name=name: kl.Activation(name)(x) for name in ACTIVATIONS if name != "relu"}


@pytest.mark.parametrize("reader", [*READERS, *OTHERS])
def test_the_layer_behind_a_convolution_and_a_normalization(reader):
    """TensorFlow joins the three, and cannot run what comes out with tanh and mish."""
    inputs = keras.Input((9, 8, 3))
    x = kl.BatchNormalization()(kl.Conv2D(4, 3, use_bias=False)(inputs))
    model = keras.Model(inputs, (READERS | OTHERS)[reader](x, inputs))
    assert _compared(model, (9, 8, 3)) == (reader in READERS)


@pytest.mark.parametrize("options", [{"activation": "mish"}, {"activation": "tanh"}, {}], ids=str)
def test_networks_of_any_activation_are_sampled(options):
    model = models.build_model(
        "unet", input_shape=(16, 16, 1), num_classes=2, depth=1, filters=4, dropout={"*": 0.1}, **options
    )
    mc = serving.MonteCarlo(model, num_samples=2)
    assert np.isfinite(mc(np.ones((1, 16, 16, 1), np.float32))["mean"]).all()


def test_samples_follow_the_weights_of_the_model():
    """The operation reads the variables at each call; nothing is copied when the sampler is made."""
    layer = kl.BatchNormalization()
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, kl.ReLU()(layer(kl.Dropout(0.5)(inputs))))
    mc = serving.MonteCarlo(model, num_samples=2, task="regression")
    x = np.ones((1, *IMAGE), np.float32)
    before = np.asarray(mc(x)["mean"])
    layer.gamma.assign(2 * layer.gamma)
    layer.beta.assign(layer.beta + 1)
    np.testing.assert_allclose(mc(x)["mean"], 2 * before + 1, rtol=1e-5)


def test_training_mode_patched_calls_and_masks_keep_the_code_of_keras(monkeypatch):
    layer = kl.BatchNormalization()
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, kl.ReLU()(layer(inputs)))
    graph = Unrolled(model, model.input, model.outputs)
    number = next(i for i, step in enumerate(graph.steps) if step.operation is layer)
    x = tf.ones((1, *IMAGE))
    put_mask(x, tf.ones((1, 6, 5), tf.bool))
    values = {graph.steps[number].reads[0]: x}
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", None)
    at_once(graph)[number].run(values)
    np.testing.assert_allclose(values[graph.steps[number].writes[0]], x, rtol=1e-3)
    object.__setattr__(graph.steps[number], "training", True)
    assert at_once(graph)[number] is graph.steps[number]
    object.__setattr__(graph.steps[number], "training", False)
    layer.call = layer.call
    assert at_once(graph)[number] is graph.steps[number]
