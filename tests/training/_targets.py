"""Targets and small models that the tests of losses share."""

import keras
import numpy as np
from keras import layers, ops

RNG = np.random.default_rng(0)
ROWS = 12
LABELS = np.arange(ROWS) % 3
ONE_HOT = np.eye(3)[LABELS]
MULTI_HOT = np.concatenate([np.ones((1, 3)), (RNG.random((ROWS - 1, 3)) > 0.5).astype(float)])
HEIGHTS = RNG.normal(180.0, 10.0, ROWS)
MASKS = RNG.integers(0, 3, (ROWS, 4, 4))


def flat(outputs=3, end=None):
    """A model of four numbers."""
    inputs = keras.Input((4,))
    out = layers.Dense(outputs, activation=end if isinstance(end, str) else None)(inputs)
    return keras.Model(inputs, end(out) if callable(end) else out)


def dense(outputs=3, end=None):
    """A model of images of 4 x 4 pixels that gives a vector for each pixel."""
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(outputs, 1, activation=end)])


def inputs_of(model):
    return RNG.normal(size=(ROWS, *model.input_shape[1:])).astype("float32")


def contrastive(identity, embedding):
    """A loss of metric learning, whose targets are identities."""
    z = embedding / ops.sqrt(ops.sum(embedding**2, -1, keepdims=True) + 1e-6)
    identity = ops.reshape(identity, (-1, 1))
    same = ops.cast(ops.equal(identity, ops.transpose(identity)), z.dtype)
    likeness = ops.matmul(z, ops.transpose(z))
    return ops.mean(same * (1 - likeness) + (1 - same) * ops.relu(likeness - 0.2), -1)
