"""Layers and models of somebody's own that draw at random in every way, for the tests of plain passes."""

import keras
import tensorflow as tf
from keras import layers as kl
from keras import ops


class SeededPath(kl.Layer):
    """A drop path that follows Keras' guide."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.draws = rate, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if not training:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        keep = keras.random.uniform(shape, seed=self.draws) >= self.rate
        return x * ops.cast(keep, x.dtype) / (1 - self.rate)


class LoosePath(kl.Layer):
    """A drop path of TensorFlow's own draws, as in many repositories."""

    def __init__(self, drop_prob, **kwargs):
        super().__init__(**kwargs)
        self.drop_prob = drop_prob

    def call(self, x, training=None):
        if not training:
            return x
        keep = 1 - self.drop_prob
        return x / keep * tf.floor(keep + tf.random.uniform([tf.shape(x)[0]] + [1] * (len(x.shape) - 1)))


class GlobalSeed(kl.Layer):
    """Dropout by Keras' function, without a generator of its own and without a rate."""

    def call(self, x, training=None):
        return keras.random.dropout(x, 0.5) if training else x


class OneCoin(kl.Layer):
    """One draw for the whole batch, as in the paper of stochastic depth."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.draws = keras.random.SeedGenerator(3)

    def call(self, x, training=None):
        return x * 2 * ops.cast(keras.random.uniform((), seed=self.draws) > 0.5, x.dtype) if training else x


class OnlyInTraining(kl.Layer):
    """Calls its dropout only in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = kl.Dropout(0.5)

    def call(self, x, training=None):
        return self.inner(x) if training else x


class Tripled(kl.Dropout):
    """Does more than dropping."""

    def call(self, x, training=False):
        return 3 * super().call(x, training=training)


class OwnGenerator(kl.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.draws = tf.random.Generator.from_seed(3)

    def call(self, x, training=None):
        return x * 2 * tf.cast(self.draws.uniform(tf.shape(x)) > 0.5, x.dtype) if training else x


class Cell(kl.Layer):
    """A recurrent cell that draws at each step."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.dense, self.draws = kl.Dense(units), keras.random.SeedGenerator(5)

    def build(self, shape):
        self.dense.build((shape[0], shape[-1] + self.units))

    def call(self, x, states, training=False):
        h = self.dense(ops.concatenate([x, states[0]], -1))
        h = keras.random.dropout(h, 0.3, seed=self.draws) if training else h
        return h, [h]


class DroppingCell(kl.Layer):
    """A recurrent cell with a dropout layer of Keras."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.dense, self.drop = kl.Dense(units), kl.Dropout(0.4)

    def build(self, shape):
        self.dense.build((shape[0], shape[-1] + self.units))

    def call(self, x, states, training=False):
        h = self.drop(self.dense(ops.concatenate([x, states[0]], -1)), training=training)
        return h, [h]


class Scanned(kl.Layer):
    """Calls its dropout in a loop over the steps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = kl.Dropout(0.4)

    def call(self, x, training=None):
        def step(carry, inputs):
            carry = 0.5 * carry + self.drop(inputs, training=training)
            return carry, carry

        steps = ops.transpose(x, (1, 0, 2))
        return ops.scan(step, ops.zeros_like(steps[0]), steps)[0]

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])


class Block(kl.Layer):
    """A block with batch normalisation, dropout of Keras, an augmentation and a drop path."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.norm = kl.Conv2D(4, 1), kl.BatchNormalization(momentum=0.5)
        self.drop, self.drop_path, self.flip = kl.Dropout(0.3), SeededPath(0.5, name="path"), kl.RandomFlip()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, x, training=None):
        y = self.norm(self.conv(self.flip(x, training=training)), training=training)
        return self.drop_path(self.drop(y), training=training)


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, path=True):
        super().__init__()
        self.block, self.flatten = Block() if path else kl.Conv2D(4, 1), kl.Flatten()
        self.drop, self.dense = kl.Dropout(0.5), kl.Dense(2)

    def call(self, x, training=None):
        h = self.flatten(self.block(x))
        if training:
            h = self.drop(h, training=training)
        return self.dense(h)


def of_images(body, size=6):
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3))
    return keras.Model(image, kl.Dense(2)(kl.Flatten()(body(image))))


def of_sequences(body, length=5):
    keras.utils.set_random_seed(0)
    series = keras.Input((length, 4))
    h = body(series)
    return keras.Model(series, kl.Dense(2)(kl.GlobalAveragePooling1D()(h) if len(h.shape) == 3 else h))


def of_frames(body):
    keras.utils.set_random_seed(0)
    frames = keras.Input((3, 5, 5, 2))
    return keras.Model(frames, kl.Dense(2)(kl.Flatten()(body(frames))))


def frozen_norms(model):
    """Makes Keras' own batch normalisation stay in inference mode in `model(x, training=True)`."""
    for layer in model._flatten_layers():
        if isinstance(layer, kl.BatchNormalization):
            layer.trainable = False
    return model
