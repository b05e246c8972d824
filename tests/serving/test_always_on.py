"""Dropout that is on in inference too, by a subclass of Keras' Dropout that ignores `training`.

Rule: surgery works on such a model as on any other; a calibration leaves its rate as it is; and the deterministic
answer of an export, which it makes random, is said to be so.
"""

import functools

import keras
import numpy as np
import pytest

from dropzoo import models, serving

kl = keras.layers


class AlwaysDropout(kl.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AlwaysNoise(kl.Layer):
    """Noise that no seed of Keras repeats."""

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs))


def model_with(layer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = kl.Dense(6, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, kl.Dense(3, activation="softmax", name="end")(layer(hidden)))


X = np.random.default_rng(0).random((24, 4), "float32")


DROP = kl.Dropout(0.5)  # no model lists the layers and generators that a function has from outside


@pytest.mark.parametrize(
    "function",
    [lambda x: DROP(x, training=True), functools.partial(keras.random.dropout, rate=0.5)],
    ids=["a layer from outside", "a random function"],
)
def test_what_draws_by_a_function_is_reported(function):
    model = model_with(kl.Lambda(function, name="always"))
    assert [row.site for row in models.dropout_report(model)] == ["always"]
    with pytest.warns(UserWarning, match="'always'"):
        models.strip_dropout(model)


def test_surgery():
    model = model_with(AlwaysDropout(0.5, name="always"))
    new = models.retrofit(model, {"hidden": 0.2})
    assert any(layer.name == "hidden_dropout" for layer in new.layers)
    stripped = models.strip_dropout(model)
    np.testing.assert_array_equal(stripped(X), stripped(X))
    plain = model_with(kl.Identity())
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(stripped(X), plain(X), atol=1e-6)


def test_a_calibration_leaves_the_rate_as_it_is():
    mc = serving.MonteCarlo(model_with(AlwaysDropout(0.5, name="always")), 4)
    cal = serving.calibrate(mc, X, np.arange(24) % 3, verbose=0)
    assert cal.sites == {"always": True}
    assert serving.MonteCarlo(mc.model, calibration=cal)(X)["mean"].shape == (24, 3)


@pytest.mark.parametrize("layer", [AlwaysDropout(0.5, name="always"), AlwaysNoise(name="always")])
def test_an_export_says_that_its_answer_is_random(layer, tmp_path, recwarn):
    path = serving.export_model(model_with(layer), tmp_path / "1", 0)
    said = [str(each.message) for each in recwarn]
    assert any("`serving_default` is not deterministic: always draws random numbers" in each for each in said)
    assert "always draws random numbers" in (path / "assets.extra" / "model_card.md").read_text("utf-8")
