"""Sampling at its edges: attention without dropout, a single row where the length is open, wide outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.serving.montecarlo.active import NothingDraws
from dropzoo.serving.montecarlo.attribution import _numbers
from dropzoo.serving.montecarlo.outputs import Output

kl = keras.layers
X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")


def of_sequences(head=True, attention=0.0, grouped=False, length=6):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, 4))
    if grouped:
        attend = kl.GroupQueryAttention(2, 2, 1, dropout=attention, name="attend")
    else:
        attend = kl.MultiHeadAttention(2, 2, dropout=attention, name="attend")
    x = kl.GlobalAveragePooling1D(name="pooled")(attend(inputs, inputs))
    x = layers.Dropout(0.5, name="head_dropout")(x) if head else x
    return keras.Model(inputs, kl.Dense(3)(x))


@pytest.mark.parametrize("grouped", [False, True])
def test_attention_without_dropout_draws_nothing(grouped):
    with pytest.raises(NothingDraws):
        serving.MonteCarlo(of_sequences(head=False, grouped=grouped), 4)
    mc = serving.MonteCarlo(of_sequences(grouped=grouped), 4)
    assert mc.cut().frontier == ("pooled",) and [each.stream for each in mc.stage.active] == ["head"]
    both = serving.MonteCarlo(of_sequences(attention=0.3, grouped=grouped), 4)
    assert len(both.stage.active) == 2 and both.cut().f == 0


def test_the_cheapest_sites_of_a_network_with_attention():
    images, labels = np.concatenate([X] * 8), np.arange(24) % 3
    assert serving.cheapest_sites(serving.MonteCarlo(of_sequences(), 4), images, labels).sites == {"head": 0.5}


def of_frames():
    """The length of the sequences is open, so each length has a trace of its own."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 4))
    x = kl.GlobalAveragePooling1D()(kl.TimeDistributed(kl.Dense(3))(inputs))
    return keras.Model(inputs, kl.Dense(3)(layers.Dropout(0.5, name="head_dropout")(x)))


@pytest.mark.parametrize("options", [{"fold": 1}, {"num_samples": 1}, {"num_samples": "auto", "max_samples": 16}])
def test_a_single_row_has_its_own_masks(options):
    mc = serving.MonteCarlo(of_frames(), **{"num_samples": 3, **options})
    for x in (X, X[:, :5]):
        whole = mc(x)
        for i in range(3):
            np.testing.assert_allclose(mc(x[i : i + 1])["mean"][0], whole["mean"][i], atol=1e-6)


@pytest.mark.costly(keep=0)
def test_a_single_row_in_a_graph_of_the_user():
    x = keras.Input((4,))
    mc = serving.MonteCarlo(keras.Model(x, kl.Dense(3)(layers.Dropout(0.5, name="d_dropout")(x))), 3, fold=1)
    rows = X[:, 0]
    run = tf.function(lambda images: mc.sample(images, tf.constant(0, tf.int64))["mean"])
    whole = mc(rows)["mean"]
    for i in range(3):
        np.testing.assert_allclose(run(tf.constant(rows[i : i + 1]))[0], whole[i], atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "output", "numbers"),
    [
        ([(8, 8, 1)], (None, 10), 64),
        ([(8, 8, 1)], (None, None, None, 21), 64 * 21),
        ([(8, 8, 1)], (None, 16, 16, 2), 512),
        ([(4,), (8, 8, 3)], (None, None, None, 2), 196),
    ],
)
def test_a_batch_of_an_attribution_is_as_large_as_its_samples_allow(inputs, output, numbers):
    flat = [tf.zeros([1, *shape]) for shape in inputs]
    assert _numbers(flat, Output("y", output, "multi_class")) == numbers
