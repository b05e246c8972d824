"""What draws at random in a model is seen by all parts alike, and a name that one part prints is taken by all.

The rule: `list_sites`, `dropout_report`, `strip_dropout`, `match_sites` and `RateSchedule` know the same layers.
What cannot be taken away, measured or scheduled is named, with what to do. Each name of `list_sites` with dropout,
of a row of the report and of a layer is taken by `match_sites`.
"""

import warnings

import keras
import pytest
import tensorflow as tf
from test_random import Block, PathDrop, SurvivalDrop

from dropzoo import layers, models, training
from dropzoo.models.graph.random import random_layers

K = keras.layers


def cnn(name="cnn", inside=()):
    return keras.Sequential([keras.Input((6, 6, 1)), K.Conv2D(2, 3, name="conv"), *inside, K.Flatten()], name=name)


def stack(*parts, shape=(6, 3)):
    return keras.Sequential([keras.Input(shape), *parts, K.Dense(1, name="end")])


def streams():
    image = keras.Input((12, 12, 3))

    def stream(name):
        parts = [
            K.Conv2D(2, 3, name="conv1"),
            layers.Dropout(0.1, name="conv1_dropout"),
            K.Conv2D(2, 3, name="conv2"),
        ]
        return keras.Sequential([keras.Input((12, 12, 3)), *parts], name=name)

    both = K.Concatenate()([stream("rgb")(image), stream("flow")(image)])
    return keras.Model(image, K.Dense(2)(K.GlobalAveragePooling2D()(both)))


def transformer():
    x = inputs = keras.Input((4, 8))
    x = K.Add(name="add")([x, K.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(x, x)])
    x = layers.DropPath(0.2, name="mlp_dropout")(K.Dense(8, name="mlp")(x))
    return keras.Model(inputs, K.Dense(1)(K.Flatten()(x)))


MODELS = {
    "own drop path": lambda: stack(K.Dense(4, name="dense"), PathDrop(0.5, name="own")),
    "by function": lambda: stack(SurvivalDrop(0.8, name="own")),
    "block": lambda: stack(Block(0.5, name="block")),
    "noise": lambda: stack(K.GaussianNoise(0.1, name="noise")),
    "lambda": lambda: stack(K.Lambda(lambda x: tf.nn.dropout(x, 0.5), name="permanent")),
    "lstm": lambda: stack(K.LSTM(2, dropout=0.3, name="memory"), layers.Dropout(0.1, name="memory_dropout")),
    "gru": lambda: stack(K.GRU(2, recurrent_dropout=0.3, name="memory")),
    "bidirectional": lambda: stack(K.Bidirectional(K.LSTM(2, dropout=0.3, name="memory"), name="both")),
    "cells": lambda: stack(
        K.RNN(K.StackedRNNCells([K.LSTMCell(2, dropout=0.2, name="cell")], name="cells"), name="rnn")
    ),
    "conv lstm": lambda: stack(K.ConvLSTM1D(2, 2, dropout=0.3, name="memory"), shape=(3, 6, 2)),
    "frames": lambda: stack(
        K.TimeDistributed(cnn(inside=[layers.Dropout(0.1, name="conv_dropout")]), name="each"), shape=(3, 6, 6, 1)
    ),
    "frame": lambda: stack(K.TimeDistributed(K.Dropout(0.1, name="drop"), name="each")),
    "attention": transformer,
    "streams": streams,
    "nested": lambda: stack(
        K.Reshape((6, 6, 1)), cnn("inner", [PathDrop(0.5, name="own"), K.LayerNormalization()]), shape=(36,)
    ),
}
TAKEN_AWAY = {"own drop path", "by function", "streams", "frames", "nested"}  # without a word


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MODELS)
def test_all_parts_see_the_same(name):
    model = MODELS[name]()
    drawing = random_layers(model)
    assert drawing
    rows = models.dropout_report(model, masks=1)
    assert len(rows) == len(drawing) and {row.kind for row in rows} == {each.kind for each in drawing}
    listed = [site for site in models.list_sites(model) if site.spec or site.inside]
    assert listed
    names = [
        *(row.site for row in rows),
        *(site.name for site in listed),
        *(path for d in drawing for path in d.paths),
    ]
    for printed in names:
        assert models.match_sites(model, [printed])[printed], printed
    every = models.match_sites(model, ["*"])["*"]
    assert {id(layer) for layer in every} == {id(each.layer) for each in drawing}
    for each in drawing:
        assert each.layer in models.match_sites(model, [each.path])[each.path]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MODELS)
def test_strip_takes_away_or_names(name):
    model = MODELS[name]()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        new = models.strip_dropout(model)
    left = [each for each in random_layers(new) if each.rate != 0]
    text = " ".join(str(warning.message) for warning in said if warning.category is UserWarning)
    assert all(each.path in text for each in left)
    assert bool(text) == (name not in TAKEN_AWAY), text
    stays = {each.path for each in random_layers(model) if each.kind == "inside"}
    assert all(path in text for path in stays)
    assert bool(left) == (name in ("block", "noise", "lambda"))


@pytest.mark.parametrize("name", MODELS)
def test_a_schedule_sets_or_says_why_not(name):
    model = MODELS[name]()
    for each in random_layers(model):
        schedule = training.RateSchedule({each.path: 0.2})
        if layers.has_live_rate(each.layer) and each.kind == "dropout":
            assert schedule.match(model) == {each.path: [each.layer]}
        else:
            with pytest.raises(ValueError, match=f"'{each.layer.name}'.*exclude this one with a later pattern"):
                schedule.match(model)


def test_the_site_is_meant_before_the_layer_that_makes_it():
    """`memory` is dropout behind the LSTM; the dropout inside the LSTM has a name of its own."""
    model = MODELS["lstm"]()
    found = models.match_sites(model, ["memory", "memory/dropout", "memory_dropout"])
    assert [[layer.name for layer in those] for those in found.values()] == [
        ["memory_dropout"],
        ["memory"],
        ["memory_dropout"],
    ]
    assert [(s.spec, s.inside) for s in models.list_sites(model)] == [("dropout:0.1", "lstm, dropout inside: 0.3")]
    (layer,) = models.match_sites(MODELS["gru"](), ["memory"])["memory"]
    assert isinstance(layer, K.GRU)


def test_schedules_move_dropout_in_frames():
    model = MODELS["frames"]()
    model.compile("sgd", "mse", jit_compile=False)
    x = tf.ones([2, 3, 6, 6, 1])
    model.fit(x, tf.zeros([2, 3, 1]), verbose=0, callbacks=[training.RateSchedule({"each/conv": 0.4})])
    assert layers.dropouts(model)[0].rate == 0.4


def test_keras_own_stochastic_depth_is_taken_away():
    from keras.src.applications.convnext import StochasticDepth

    model = stack(K.Dense(3), StochasticDepth(0.4, name="depth"))
    assert [row.kind for row in models.dropout_report(model)] == ["suspected"]
    assert random_layers(models.strip_dropout(model)) == []


def test_a_drop_layer_that_does_more_is_left_and_named():
    class DropAndScale(PathDrop):
        def call(self, x, training=False):
            return 2.0 * super().call(x, training=training)

        def get_config(self):
            return {**super().get_config(), "rate": self.rate}

    model = stack(DropAndScale(0.5, name="own"))
    with pytest.warns(UserWarning, match=r"still draw random numbers.*'own' \(drop_and_scale:0.5\)"):
        models.strip_dropout(model)


def test_a_lambda_that_hides_its_function_is_found_by_trying():
    def hidden(x):
        return draw(x)

    model = stack(K.Lambda(hidden, name="permanent"))
    assert random_layers(model) == []
    (row,) = models.dropout_report(model)
    assert (row.site, row.kind, row.notes) == (
        "permanent",
        "suspected",
        ("draws random numbers in inference too, in its own code: not measured",),
    )
    with pytest.warns(UserWarning, match="'permanent' .draws in inference too"):
        models.strip_dropout(model)


def draw(x):
    return tf.nn.dropout(x, 0.5)
