"""What draws at random in a model: the one answer that all parts use.

The rule: our layers and Keras' dropout are known by class, and Keras' recurrent and attention layers by their
arguments. Any other layer is under suspicion if it holds a seed generator, or if it has a rate above 0 and asks
whether it trains, and no layer inside it explains that. Augmentation of images is not dropout. Each layer has the
path by which all parts print it.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers
from dropzoo.models.graph.random import augmentations, random_layers

K = keras.layers


class PathDrop(K.Layer):
    """A drop path as people write it, with a seed generator."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.draws = rate, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if not training:
            return x
        keep = keras.random.uniform((1,), seed=self.draws) >= self.rate
        return x * keras.ops.cast(keep, x.dtype)


class SurvivalDrop(K.Layer):
    """One by TensorFlow's functions, with the probability to keep and no generator."""

    def __init__(self, survival_probability, **kwargs):
        super().__init__(**kwargs)
        self.survival_probability = survival_probability

    def call(self, x, training=None):
        return tf.nn.dropout(x, 1 - self.survival_probability) if training else x


class Variable(K.Layer):
    """One whose rate is a variable."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._drop_prob = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.25), trainable=False)

    def call(self, x, training=False):
        return tf.nn.dropout(x, self._drop_prob) if training else x


class Generated(K.Layer):
    """Noise from a generator of TensorFlow."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.source = tf.random.Generator.from_seed(1)

    def call(self, x):
        return x + self.source.normal(tf.shape(x))


class Block(K.Layer):
    """A block that hands its rate on to a layer."""

    def __init__(self, dropout, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.dropout = dropout
        self.parts = [K.Dense(4), inner or K.Dropout(dropout, name="drop")]

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x


class Pool(K.Layer):
    """A rate and `training` that are no dropout's: generalised mean pooling."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.p, self.rate = 3.0, 2

    def call(self, x, training=False):
        return x


class Own(keras.Model):
    """A subclassed model that drops by a function."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.drop_rate = K.Dense(2), 0.4

    def call(self, x, training=False):
        return tf.nn.dropout(self.dense(x), self.drop_rate) if training else self.dense(x)


def cnn(*extra, name="cnn"):
    return keras.Sequential([keras.Input((6, 6, 1)), K.Conv2D(2, 3, name="conv"), *extra, K.Flatten()], name=name)


def around(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs), name="outer")


CASES = {
    "ours": (lambda: around(layers.DropPath(0.1, name="a"), (4,)), [("a", "dropout", 0.1)]),
    "keras": (lambda: around(K.SpatialDropout1D(0.1, name="a"), (4, 2)), [("a", "dropout", 0.1)]),
    "no rate": (lambda: around(layers.StochasticPooling2D(name="a"), (4, 4, 1)), [("a", "dropout", None)]),
    "generator": (lambda: around(PathDrop(0.5, name="a"), (4,)), [("a", "suspected", 0.5)]),
    "rate 0": (lambda: around(PathDrop(0.0, name="a"), (4,)), []),
    "survival": (lambda: around(SurvivalDrop(0.75, name="a"), (4,)), [("a", "suspected", 0.25)]),
    "variable": (lambda: around(Variable(name="a"), (4,)), [("a", "suspected", 0.25)]),
    "tf generator": (lambda: around(Generated(name="a"), (4,)), [("a", "suspected", None)]),
    "noise": (lambda: around(K.GaussianNoise(0.2, name="a"), (4,)), [("a", "suspected", None)]),
    "block": (lambda: around(Block(0.5, name="b"), (4,)), [("b/drop", "dropout", 0.5)]),
    "block of own": (
        lambda: around(Block(0.5, PathDrop(0.5, name="p"), name="b"), (4,)),
        [("b/p", "suspected", 0.5)],
    ),
    "pool": (lambda: around(Pool(name="a"), (4,)), []),
    "norm": (lambda: around(K.BatchNormalization(name="a"), (4,)), []),
    "lstm": (lambda: around(K.LSTM(2, dropout=0.3, name="m"), (4, 3)), [("m/dropout", "inside", 0.3)]),
    "gru": (
        lambda: around(K.GRU(2, dropout=0.1, recurrent_dropout=0.3, name="m"), (4, 3)),
        [("m/dropout", "inside", 0.3)],
    ),
    "rnn 0": (lambda: around(K.SimpleRNN(2, name="m"), (4, 3)), []),
    "bidirectional": (
        lambda: around(K.Bidirectional(K.LSTM(2, dropout=0.3, name="m"), name="both"), (4, 3)),
        [("both/forward_m/dropout", "inside", 0.3), ("both/backward_m/dropout", "inside", 0.3)],
    ),
    "stacked": (
        lambda: around(
            K.RNN(
                K.StackedRNNCells([K.LSTMCell(2, name="one"), K.GRUCell(2, dropout=0.2, name="two")], name="s"),
                name="r",
            ),
            (4, 3),
        ),
        [("r/s/two/dropout", "inside", 0.2)],
    ),
    "conv lstm": (
        lambda: around(K.ConvLSTM2D(2, 3, recurrent_dropout=0.2, name="m"), (2, 6, 6, 1)),
        [("m/dropout", "inside", 0.2)],
    ),
    "attention": (
        lambda: (lambda x: keras.Model(x, K.MultiHeadAttention(1, 2, dropout=0.2, name="m")(x, x)))(
            keras.Input((4, 3))
        ),
        [("m/dropout", "dropout", 0.2)],
    ),
    "attention 0": (
        lambda: (lambda x: keras.Model(x, K.MultiHeadAttention(1, 2, name="m")(x, x)))(keras.Input((4, 3))),
        [],
    ),
    "old attention": (
        lambda: (lambda x: keras.Model(x, K.Attention(dropout=0.2, name="m")([x, x])))(keras.Input((4, 3))),
        [("m/dropout", "inside", 0.2)],
    ),
    "frames": (
        lambda: around(K.TimeDistributed(cnn(K.Dropout(0.1, name="d")), name="each"), (3, 6, 6, 1)),
        [("each/d", "dropout", 0.1)],
    ),
    "wrapped": (
        lambda: around(K.TimeDistributed(K.Dropout(0.1, name="d"), name="each"), (3, 4)),
        [("each/d", "dropout", 0.1)],
    ),
    "nested": (
        lambda: around(cnn(K.Dropout(0.1, name="d"), cnn2(), name="inner"), (6, 6, 1)),
        [("inner/d", "dropout", 0.1), ("inner/deep/e", "dropout", 0.2)],
    ),
    "subclass": (lambda: Own(name="own"), [("own", "suspected", 0.4)]),
    "augmentation": (lambda: around(K.RandomFlip(name="a"), (4, 4, 1)), []),
    "augmentations": (lambda: around(K.RandAugment(name="a"), (4, 4, 3)), []),
    "resizing": (lambda: around(K.Resizing(2, 2, name="a"), (4, 4, 1)), []),
}


def cnn2():
    return keras.Sequential([keras.Input((4, 4, 2)), K.Conv2D(2, 3), K.Dropout(0.2, name="e")], name="deep")


@pytest.mark.parametrize("name", CASES)
def test_what_draws(name):
    make, expected = CASES[name]
    found = random_layers(make())
    assert [
        (each.path, each.kind, None if each.rate is None else round(each.rate, 6)) for each in found
    ] == expected
    assert all(each.path == each.paths[0] for each in found)


def test_keras_own_stochastic_depth():
    found = random_layers(
        keras.Sequential(
            [keras.Input((4, 4, 2)), *(type_of_stochastic_depth()(0.3, name=f"d{i}") for i in range(2))]
        )
    )
    assert [(each.path, each.kind, each.rate) for each in found] == [
        ("d0", "suspected", 0.3),
        ("d1", "suspected", 0.3),
    ]


def type_of_stochastic_depth():
    from keras.src.applications.convnext import StochasticDepth

    return StochasticDepth


def test_a_layer_in_two_models_has_two_paths():
    drop = K.Dropout(0.5, name="drop")
    inputs = keras.Input((4,))
    one, two = (keras.Sequential([keras.Input((4,)), drop], name=name) for name in ("one", "two"))
    (found,) = random_layers(keras.Model(inputs, two(one(inputs))))
    assert (found.path, found.paths) == ("one/drop", ("one/drop", "two/drop"))


def test_augmentations():
    model = keras.Sequential([keras.Input((8, 8, 3)), K.RandomFlip(name="flip"), K.Resizing(4, 4), K.Dropout(0.5)])
    assert [layer.name for layer in augmentations(around(model, (8, 8, 3)))] == ["flip"]
    assert np.shape(model(np.zeros((1, 8, 8, 3)))) == (1, 4, 4, 3)


class SoftmaxAttention(K.Layer):
    """Attention with a dropout layer, whose code has both `nn` and `dropout` in it, but not together."""

    def __init__(self, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dropout = K.Dropout(rate, name="dropout")

    def call(self, x):
        return self.dropout(keras.ops.nn.softmax(x))


class FunctionDrop(K.Layer):
    """Dropout by a function, with a rate that no attribute shows."""

    def call(self, x, training=None):
        return tf.nn.softmax(tf.nn.dropout(x, 0.5)) if training else x


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (SoftmaxAttention, [("attention/dropout", "dropout", 0.0)]),
        (lambda name: SoftmaxAttention(0.2, name=name), [("attention/dropout", "dropout", 0.2)]),
        (FunctionDrop, [("attention", "suspected", None)]),
        (lambda name: K.Lambda(lambda x: tf.nn.dropout(x, 0.5), name=name), [("attention", "suspected", None)]),
        (lambda name: K.Lambda(lambda x: tf.nn.softmax(x), name=name), []),
    ],
    ids=["attention", "attention that drops", "function", "lambda", "softmax"],
)
def test_the_name_of_a_function_is_read_as_a_whole(make, expected):
    """`nn.softmax(self.dropout(x))` is no `nn.dropout`: the layer inside it draws, not the code."""
    model = keras.Sequential([keras.Input((3,)), make(name="attention")])
    assert [(each.path, each.kind, each.rate) for each in random_layers(model)] == expected
