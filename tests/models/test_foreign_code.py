"""Surgery on models with code of somebody's own in them, registered nowhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _foreign import same, standing
from dropzoo import models

K = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """Has no name that Keras knows."""

    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start * 0.5 ** keras.ops.cast(step, "float32")

    def get_config(self):
        return {"start": self.start}


class Configless(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


class Undescribed(keras.metrics.Mean):
    def __init__(self, name="undescribed"):
        super().__init__(name=name)


def bias(y, predicted):
    return tf.reduce_mean(predicted - y)


def small(**compiled):
    model = keras.Sequential([keras.Input((4,)), K.Dense(3, name="hidden"), K.Dense(1, name="out")])
    model.compile(loss="mse", jit_compile=False, **compiled)
    return model


@pytest.mark.costly(keep=0)
@pytest.mark.covering("rate", "share_weights")
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("rate", [Halving(0.1), lambda: 0.1], ids=["schedule", "callable"])
def test_learning_rates_of_ones_own(rate, share_weights, recwarn):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(rate))
    for optimizer in (keras.optimizers.SGD(rate), scaled):
        model = small(optimizer=optimizer, metrics=[bias])
        model.fit(X, X[:, :1], verbose=0)
        new = models.retrofit(model, {"hidden": 0.5}, share_weights=share_weights)
        new.fit(X, X[:, :1], verbose=0)
        assert int(new.optimizer.iterations) == 2 and int(optimizer.iterations) == 1
        assert getattr(new.optimizer, "inner_optimizer", new.optimizer)._learning_rate is rate
    assert not [w for w in recwarn if "lambda" in str(w.message)]


@pytest.mark.covering("name", "share_weights")
@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        ("SGD 'sgd", lambda: {"optimizer": keras.optimizers.SGD(Configless())}),
        ("Undescribed 'undescribed'", lambda: {"optimizer": "sgd", "metrics": [Undescribed()]}),
        (
            "MeanMetricWrapper 'bias'",
            lambda: {"weighted_metrics": [keras.metrics.MeanMetricWrapper(bias, "bias")]},
        ),
    ],
)
@pytest.mark.parametrize("share_weights", [False, True])
def test_what_cannot_be_compiled_alike_is_said(name, compiled, share_weights, recwarn):
    model = small(**compiled())
    new = models.retrofit(model, {"hidden": 0.5}, share_weights=share_weights)
    assert not new.compiled and standing(new) == ["hidden"] and same(new(X), model(X))
    models.strip_dropout(model)
    said = [w for w in recwarn if "compile the copy yourself" in str(w.message)]
    assert len(said) == 2 and all(
        w.filename == __file__ and f"not compiled, because the {name}".lower() in str(w.message).lower()
        for w in said
    )


def test_weight_decay_stays_off_where_it_is():
    model = small(optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5))
    kernel = model.layers[1].kernel
    model.optimizer.exclude_from_weight_decay(var_list=[kernel], var_names=["bias"])
    model.fit(X, X[:, :1], verbose=0)
    for share_weights in (False, True):
        new = models.retrofit(model, {"hidden": 0.5}, share_weights=share_weights)
        decays = [new.optimizer._use_weight_decay(v) for v in new.trainable_variables]
        assert decays == [True, False, False, False]


def wave(x):
    return tf.sin(x) + 1


def test_lambdas_and_activations_run_where_they_were_written():
    factor = 3.0

    def scaled(x, by):
        return tf.nn.relu(x) * factor * by

    inputs = keras.Input((4,))
    x = K.Dense(4, activation=wave, name="wave")(inputs)
    x = K.Dense(4, activation=lambda x: tf.nn.elu(x), name="elu")(x)
    x = K.Lambda(lambda x: tf.nn.relu(x) * factor, name="relu")(x)
    x = K.Lambda(scaled, output_shape=(4,), arguments={"by": 2.0}, name="scaled")(x)
    x = K.LSTM(3, activation=tf.tanh, name="lstm")(K.Reshape((2, 2))(x))
    model = keras.Model(inputs, K.Dense(2, name="out")(x))
    sites = ["wave", "elu", "relu", "scaled"]
    new = models.retrofit(model, dict.fromkeys(sites, 0.5))
    assert standing(new) == sites and same(new(X), model(X))
    split = models.retrofit(model, {"before_activation:wave": 0.5})
    assert standing(split) == ["wave_dense"] and same(split(X), model(X))


class Unwilling(K.Layer):
    def call(self, inputs):
        return inputs

    def get_config(self):
        raise NotImplementedError


def test_a_layer_without_a_config_is_named():
    model = keras.Sequential([keras.Input((4,)), Unwilling(name="odd"), K.Dense(1, name="out")])
    with pytest.raises(ValueError, match="Cannot copy layer 'odd'.*NotImplementedError.*share_weights=True"):
        models.retrofit(model, {"before:out": 0.5})
