"""Sites inside code that runs in training mode: a layer that `sites` does not name stays off, whatever is on."""

import itertools

import keras
import numpy as np
import pytest

from _drawing import SeededPath
from dropzoo import serving

kl = keras.layers
X = np.random.default_rng(0).integers(1, 9, (4, 6))


class Net(keras.Model):
    """A recurrent layer, a drop path and a dropout layer in the code of one model."""

    def __init__(self):
        super().__init__()
        self.words, self.memory = kl.Embedding(9, 4, mask_zero=True), kl.LSTM(4, dropout=0.6, name="memory")
        self.loose, self.known, self.end = SeededPath(0.5, name="path"), kl.Dropout(0.5, name="known"), kl.Dense(2)

    def call(self, x, training=None, mask=None):
        x = self.memory(self.words(x), training=training)
        return self.end(self.known(self.loose(x, training=training), training=training))


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    model = Net()
    model(X)
    return model


OFF = {"memory/dropout": 0.0, "path": 0.0, "known": 0.0}


def test_nothing_drops_if_all_sites_are_off(net):
    """No warning says that a recurrent layer draws in inference: its masks are made there, but not used."""
    out = serving.MonteCarlo(net, 2, sites=OFF, task="regression")(X)
    np.testing.assert_allclose(out["mean"], net(X), atol=1e-6)
    assert out["variance"].numpy().max() < 1e-12


@pytest.mark.parametrize("name", OFF)
def test_a_named_site_drops_alone(net, name):
    mc = serving.MonteCarlo(net, 3, sites={name: True}, task="regression", return_samples=True)
    samples = mc(X)["samples"].numpy()
    assert samples.var(1).max() > 1e-6
    if name == "memory/dropout":
        return
    h = net.memory(net.words(X)).numpy()
    masks = [[0] * 4, [2] * 4] if name == "path" else list(itertools.product([0, 2], repeat=4))
    possible = np.stack([net.end(h * np.array(mask, "float32")).numpy() for mask in masks], 1)
    errors = np.abs(samples[:, :, None] - possible[:, None]).max(-1).min(-1)
    assert errors.max() < 1e-5
