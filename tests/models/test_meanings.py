"""What an output means is read off the graph, also through the code of lambdas, layers and models.

Rule: the meaning of an output is "softmax" (the last axis sums to 1), "sigmoid" (each value lies in [0, 1]),
"logits" (nothing bounds it), or None, if no graph shows it; nothing is guessed from a name or a shape.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from dropzoo.models.graph.endings import output_activation, output_meanings


class Coin(kl.Layer):
    def call(self, x):
        return ops.sigmoid(x)


class Head(keras.Model):
    """A subclassed head; its graph is that of its code alone."""

    def __init__(self):
        super().__init__()
        self.dense = kl.Dense(3)

    def call(self, x):
        return ops.softmax(self.dense(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


def conv(units, activation=None):
    return kl.Conv2D(units, 1, activation=activation)


def normalised(x):
    positive = ops.relu(x)
    return positive / (ops.sum(positive, -1, keepdims=True) + 1e-7)


ENDINGS = {
    "softmax": {
        "a resize": lambda h: ops.image.resize(kl.Softmax()(h), (16, 16), interpolation="bicubic"),
        "a mean": lambda h: (kl.Softmax()(h) + kl.Softmax()(conv(3)(h))) / 2,
        "a stacked mean": lambda h: ops.mean(ops.stack([kl.Softmax()(h), kl.Softmax()(conv(3)(h))]), 0),
        "a weighted mean": lambda h: 0.3 * kl.Softmax()(h) + 0.7 * kl.Softmax()(conv(3)(h)),
        "a permutation": lambda h: kl.Permute((2, 1, 3))(kl.Softmax()(h)),
        "a lambda": lambda h: kl.Lambda(lambda x: tf.nn.softmax(x / 2))(h),
        "a temperature": lambda h: ops.softmax(h / 3.0),
        "a model": lambda h: Head()(h),
        "normalised by hand": lambda h: kl.Lambda(normalised)(h),
        "log-probabilities, exponentiated": lambda h: ops.exp(ops.log_softmax(h)),
        "some rows": lambda h: kl.Softmax()(h)[:, 2:5],
        "half precision": lambda h: kl.Activation("softmax", dtype="float16")(h),
        "a ReLU that changes nothing": lambda h: kl.Activation(kl.ReLU())(kl.Softmax()(h)),
    },
    "sigmoid": {
        "a resize": lambda h: ops.image.resize(ops.sigmoid(conv(1)(h)), (16, 16)),
        "a layer": lambda h: Coin()(h),
        "the other class": lambda h: 1 - ops.sigmoid(conv(1)(h)),
        "a product": lambda h: ops.sigmoid(h) * conv(1, "sigmoid")(h),
        "a concatenation": lambda h: kl.Concatenate()([conv(1, "sigmoid")(h), conv(1, "sigmoid")(h)]),
        "larger": lambda h: kl.UpSampling2D(interpolation="bilinear")(Coin()(h)),
        "one class": lambda h: ops.take(kl.Softmax()(h), [1], axis=-1),
        "a tanh moved": lambda h: (ops.tanh(h) + 1) / 2,
        "clipped": lambda h: ops.clip(h, 0, 1),
        "classes on another axis": lambda h: kl.Permute((3, 1, 2))(kl.Softmax()(h)),
        "without its axis": lambda h: ops.squeeze(conv(1, "sigmoid")(h), -1),
        "a choice": lambda h: ops.where(h > 0, ops.sigmoid(h), 1 - ops.sigmoid(h)),
    },
    "logits": {
        "a convolution": conv(3),
        "a sum": lambda h: conv(3)(h) + 0.5 * conv(3)(h),
        "normalised": kl.BatchNormalization(),
        "a mean and dropout": lambda h: kl.GlobalAveragePooling2D()(kl.Dropout(0.1)(h)),
        "log-probabilities": ops.log_softmax,
        "a GELU": lambda h: ops.gelu(h),
        "scaled": lambda h: 0.1 * h,
    },
    None: {
        "a tanh": lambda h: ops.tanh(h),
        "a state": lambda h: kl.LSTM(3)(kl.Reshape((64, 3))(h)),
        "a sum of probabilities": lambda h: kl.Softmax()(h) + Coin()(h),
        "a ReLU": lambda h: ops.relu(h),
        "a percentage": lambda h: kl.Rescaling(100.0)(kl.Softmax()(h)),
        "never negative": lambda h: conv(1, "relu")(h),
        "a share": lambda h: (lambda e: e / ops.sum(e, -1)[..., None])(ops.exp(h)),
        "an exponential": lambda h: ops.exp(h - ops.logsumexp(h, (-1,), keepdims=True)),
    },
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("meaning", "name"), [(m, name) for m, those in ENDINGS.items() for name in those])
def test_meaning(meaning, name):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, ENDINGS[meaning][name](conv(3)(image)))
    assert output_meanings(model) == [meaning]
    assert output_activation(model) == (meaning if meaning != "logits" else None)
    values = model(np.random.default_rng(0).normal(0, 30, (2, 8, 8, 3))).numpy().astype("float64")
    if meaning in ("softmax", "sigmoid") and name != "a resize":  # bicubic interpolation overshoots
        assert values.min() >= 0 and values.max() <= 1 + 1e-6
    if meaning == "softmax":
        dead = (values.sum(-1) == 0) & (name == "normalised by hand")  # where no ReLU is positive
        np.testing.assert_allclose(values.sum(-1)[~dead], 1, atol=2e-3)


def test_several_outputs():
    image = keras.Input((8, 8, 3))
    outputs = {"prob": Coin()(conv(1)(image)), "dist": conv(4)(image), "kind": conv(3, "softmax")(image)}
    model = keras.Model(image, outputs)
    assert dict(zip(model.output_names, output_meanings(model), strict=True)).keys() == set(model.output_names)
    order = [next(name for name, tensor in outputs.items() if tensor is each) for each in model.outputs]
    assert dict(zip(order, output_meanings(model), strict=True)) == {
        "prob": "sigmoid",
        "dist": "logits",
        "kind": "softmax",
    }
    assert output_activation(model) is None
    assert output_meanings(Head()) == []
