"""Surgery on models with code of their own: what can be changed, and what the code hides is named."""

import keras
import numpy as np
import pytest

from _foreign import (
    same,
    standing,
)
from dropzoo import layers, models

K = keras.layers


class Stepping(keras.Model):
    """A Functional model with a training step of its own."""

    def train_step(self, data):
        return {"mine": 1.0}


class Closed(keras.Model):
    """The same with a constructor that takes something else."""

    def __init__(self, units):
        inputs = keras.Input((4,))
        super().__init__(inputs, K.Dense(units, name="dense")(inputs))

    def train_step(self, data):
        return {"mine": 1.0}


class Backbone(keras.Model):
    """As those of KerasHub: a graph of its own making, and no step."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((4,))
        super().__init__(inputs, K.Dense(units, name="dense")(inputs), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


class Code(keras.Model):
    def call(self, inputs):
        return inputs


def test_subclasses(recwarn):
    inputs = keras.Input((4,))
    x = K.Dense(3, name="hidden")(inputs)
    new = models.retrofit(Stepping(inputs, K.Dense(2, name="logits")(x)), {"hidden": 0.1})
    assert isinstance(new, Stepping) and new.train_step(None) == {"mine": 1.0}
    for use in (lambda m: models.retrofit(m, {}), models.strip_dropout, models.list_sites, models.dropout_report):
        with pytest.raises(ValueError, match=r"keras.Model\(inputs, model.call\(inputs\)\)"):
            use(Code())
        with pytest.raises(ValueError, match="must be built"):
            use(keras.Sequential([K.Dense(2)]))
    with pytest.raises(ValueError, match="Closed overrides train_step"):
        models.retrofit(Closed(3), {})
    plain = models.retrofit(Backbone(3, name="back"), {"before:dense": 0.1})
    assert type(plain) is type(keras.Model(plain.inputs, plain.outputs))
    outer = keras.Sequential([keras.Input((4,)), Backbone(3, name="back"), K.Dense(2)])
    assert standing(models.retrofit(outer, {"dense": 0.1})) == ["back/dense"]
    assert any("'back' is no longer a Backbone" in str(w.message) for w in recwarn)


class Tower(keras.Model):
    """A subclassed model of layers, a nested model and operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.head = K.Conv2D(3, 3, name="conv"), K.Dense(2, name="head")
        self.block = keras.Sequential(
            [keras.Input((6, 6, 3)), K.Conv2D(4, 3, name="deep"), K.ReLU()], name="block"
        )

    def call(self, inputs, training=False):
        x = self.block(self.conv(inputs), training=training)
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def test_the_advice_for_a_subclassed_model_works():
    model, x = Tower(), np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    expected = model(x)
    with pytest.raises(ValueError, match="must be Functional or Sequential"):
        models.retrofit(model, {"conv": 0.1})
    inputs = keras.Input((8, 8, 3))
    new = models.retrofit(keras.Model(inputs, model.call(inputs)), {"after:Conv2D": 0.1})
    assert standing(new) == ["conv", "block/deep"] and same(new(x), expected)


class OfKeras2:
    """A stand-in that looks like a model of Keras 2 from outside."""


OfKeras2.__module__ = "tf_keras.src.engine.sequential"


@pytest.mark.parametrize(
    "model", [OfKeras2(), keras.Model, "model.keras", None], ids=["keras 2", "class", "path", "None"]
)
def test_what_is_no_model_of_keras_3(model):
    uses = (
        lambda: models.retrofit(model, {}),
        lambda: models.strip_dropout(model),
        lambda: models.dropout_report(model),
        lambda: models.match_sites(model, ["*"]),
        lambda: models.list_sites(model) if not isinstance(model, str) else models.strip_dropout(model),
    )
    message = (
        r"Keras 2 \(tf_keras\).*load_model\('model.h5'" if isinstance(model, OfKeras2) else "must be a keras.Model"
    )
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use()


class Secret(K.Layer):
    """Has dropout where no graph shows it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = K.Dropout(0.5, name="inner")

    def call(self, inputs, training=False):
        return self.inner(inputs, training=training)


@pytest.mark.parametrize("key", ["inner", "secret/inner", "after:Dropout", "in*r", "after:inner"])
def test_what_the_code_of_a_layer_hides_is_named(key):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Dense(2)(Secret(name="secret")(inputs)))
    with pytest.raises(
        ValueError, match="'inner', which the code of layer 'secret' .a Secret. calls.*at 'secret'"
    ):
        models.retrofit(model, {key: 0.1})


def test_strip_says_what_it_cannot_take(recwarn):
    inputs = keras.Input((4,))
    x = Secret(name="secret")(layers.DropConnectDense(3, 0.5, name="connect")(inputs))
    models.strip_dropout(keras.Model(inputs, x))
    left = (
        "'connect' (drop_connect_dense:rate=0.5), 'secret/inner' (dropout:0.5). If such a layer has a `rate`, set"
    )
    assert any(left in str(w.message) for w in recwarn)


def test_a_stateful_layer_goes_on_where_it_was():
    """Keras does not list the states of a recurrent layer as variables; the copy has them all the same."""
    inputs = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(inputs, K.Dense(2)(K.Dropout(0.4)(K.LSTM(3, stateful=True)(inputs))))
    x = np.random.default_rng(0).random((2, 3, 4), "float32")
    model(x)
    new = models.strip_dropout(model)
    np.testing.assert_array_equal(new(x), model(x))
