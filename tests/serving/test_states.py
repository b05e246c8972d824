"""Each sample begins with the states that stateful layers have, as a single pass would, and leaves them alone.

The rule: at rate 0, every sample is a plain pass from the same states; the states of the model do not change; and
the same call twice gives the same answer, in Python and in an export.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from dropzoo import serving
from dropzoo.serving.montecarlo.states import States

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")


def memory(make, before=0.0, after=0.0):
    inputs = keras.Input(batch_shape=(2, 3, 4))
    x = make()(kl.Dropout(before)(inputs))
    return keras.Model(inputs, kl.Dense(2)(kl.Dropout(after)(x)))


KINDS = {
    "before": lambda: memory(lambda: kl.LSTM(3, stateful=True), before=0.5),
    "after": lambda: memory(lambda: kl.GRU(16, stateful=True), after=0.5),  # masks of 3 units may be the same
    "inside": lambda: memory(lambda: kl.LSTM(3, stateful=True, dropout=0.4), after=0.1),
    "both ways": lambda: memory(lambda: kl.Bidirectional(kl.SimpleRNN(3, stateful=True)), before=0.5),
    "nested": lambda: memory(lambda: memory(lambda: kl.RNN(kl.GRUCell(3), stateful=True), 0.3), after=0.2),
}


known_batches = pytest.mark.skipif(
    keras.__version__.startswith("3.12."),
    reason="Keras 3.12 cannot run stateful layers in a graph with batches of any size",
)


@pytest.mark.costly(keep=3)
@known_batches
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_samples_begin_with_the_same_states(make):
    model = make()
    model(X)  # the states are not zero
    states = States(model)
    before = [x.numpy() for x in states.read()]
    assert before and all(x.any() for x in before)
    mc = serving.MonteCarlo(model, 3, task="regression", return_samples=True)
    one, two = mc(X)["samples"].numpy(), mc(X)["samples"].numpy()
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one[0, :, 0])) == 3
    off = serving.MonteCarlo(model, 3, sites={"*dropout*": 0.0}, task="regression", return_samples=True)
    samples = off(X)["samples"].numpy()
    for now, then in zip(states.read(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    expected = model(X, training=False).numpy()
    np.testing.assert_allclose(samples, np.stack([expected] * 3, 1), atol=1e-6)


@pytest.mark.costly(keep=0)
@known_batches
def test_attributions_and_exports_begin_with_the_same_states(tmp_path):
    model = KINDS["before"]()
    model(X)
    states = States(model)
    before = [x.numpy() for x in states.read()]
    mc = serving.MonteCarlo(model, 8, task="regression", sampling="fixed", seed=3)
    first, second = mc.attribute(X).total, mc.attribute(X).total
    np.testing.assert_array_equal(first, second)
    path = serving.export_model(model, tmp_path / "m" / "1", 8, task="regression", seed=3)
    run = tf.saved_model.load(str(path)).signatures["predict_mc"]
    (name,) = run.structured_input_signature[1]
    for _ in range(2):
        np.testing.assert_allclose(run(**{name: tf.constant(X)})["mean"], mc(X)["mean"], atol=1e-5)
    for now, then in zip(states.read(), before, strict=True):
        np.testing.assert_array_equal(now, then)
