"""Losses of a user's own, and losses that a model was compiled with, train as in `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from _targets import HEIGHTS, LABELS, MASKS, RNG, ROWS, contrastive, dense, flat, inputs_of
from dropzoo import models
from dropzoo.training.trainer import Trainer


def of_known_labels(labels, logits):
    known = ops.cast(labels >= 0, "float32")
    each = ops.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)
    return ops.sum(each * known) / ops.maximum(ops.sum(known), 1)


class Padded(keras.losses.Loss):
    """The entropy of the words of sequences; 0 pads."""

    def call(self, words, logits):
        each = ops.sparse_categorical_crossentropy(ops.maximum(words - 1, 0), logits, from_logits=True)
        return each * ops.cast(words > 0, each.dtype)


def quantiles(y, predicted):
    gap = ops.expand_dims(ops.cast(y, "float32"), -1) - predicted
    return ops.mean(ops.maximum(0.1 * gap, -0.9 * gap))


OWN = {
    "identities": (lambda: flat(8), LABELS * 300 + 101, contrastive),
    "void pixels of -1": (dense, np.where(MASKS == 2, -1, MASKS), of_known_labels),
    "void pixels of 255": (
        dense,
        np.where(MASKS == 2, 255, MASKS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
    ),
    "padded sequences": (
        lambda: keras.Sequential([keras.Input((4, 2)), layers.Dense(5)]),
        RNG.integers(0, 6, (ROWS, 4)),
        Padded(),
    ),
    "quantiles of integers": (flat, LABELS * 30, quantiles),
    "signs": (lambda: flat(1), LABELS % 2 * 2 - 1, "hinge"),
    "counts": (lambda: flat(1, "softplus"), LABELS * 4, "poisson"),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", OWN)
def test_targets_of_a_loss_of_ones_own_train_as_in_fit(name):
    build, targets, loss = OWN[name]
    first, second = build(), build()
    second.set_weights(first.get_weights())
    data = (inputs_of(first), targets)
    first.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    expected = first.fit(*data, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    trainer = Trainer(second, keras.optimizers.SGD(0.01), loss, [])
    found = trainer.fit(data, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    without = Trainer(build(), "sgd", loss)  # the metrics of a loss of one's own are none, as in `fit`
    assert bool(without._settled.metrics) == (name == "void pixels of 255")


COMPILED = {
    "a name": lambda: {"loss": "mse", "metrics": ["mae"]},
    "weights": lambda: {"loss": ["mae"], "loss_weights": [0.3], "metrics": []},
    "weighted metrics": lambda: {"loss": "huber", "weighted_metrics": [keras.metrics.MeanSquaredError("squared")]},
}


@pytest.mark.covering("name", "copied")
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("copied", [False, True])
def test_what_was_compiled_is_trained_as_in_fit(name, copied, capsys):
    models_of = [flat(1), flat(1)]
    models_of[1].set_weights(models_of[0].get_weights())
    for model, eagerly in zip(models_of, (True, False), strict=True):
        model.compile(keras.optimizers.SGD(1e-5, momentum=0.5), **COMPILED[name](), run_eagerly=eagerly)
    first, second = models_of
    if copied:
        second = models.retrofit(second, {})
    x = inputs_of(first)
    weights = RNG.random(ROWS)
    options = {"batch_size": 5, "epochs": 2, "shuffle": False}
    expected = first.fit(x, HEIGHTS, sample_weight=weights, **options, verbose=0).history
    found = Trainer(second).fit(x=x, y=HEIGHTS, sample_weight=weights, **options, verbose=2).history
    assert list(found) == list(expected) and float(second.optimizer.learning_rate) == np.float32(1e-5)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5)
    said = capsys.readouterr().out
    assert said.count("Trainer: the loss is the one that the model was compiled with") == 1


def test_each_argument_takes_the_place_of_one_of_compile():
    def compiled():
        model = flat(1)
        model.compile(keras.optimizers.SGD(0.5), "mse", metrics=["mae"], loss_weights=[2.0])
        return model

    model = compiled()
    optimizer = model.optimizer
    assert Trainer(model, metrics=[]).model.loss == "mse" and model.optimizer is optimizer
    model = compiled()
    Trainer(model, "adam")
    assert model.loss == "mse" and isinstance(model.optimizer, keras.optimizers.Adam)
    model = compiled()
    Trainer(model, loss="mae")
    assert model.loss == "mae" and model.get_compile_config()["loss_weights"] is None
    model = compiled()
    Trainer(model, task="binary").fit((inputs_of(model), LABELS % 2), verbose=0)
    assert model.loss.name == "binary_crossentropy"


class TwoPlayers(keras.Model):
    """Trains two parts by optimizers of its own, with a `compile` and a `train_step` of its own and no `call`."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.Sequential([keras.Input((4,)), layers.Dense(1)]) for _ in range(2)]

    def compile(self, first, second):
        super().compile()
        self.first, self.second = first, second

    def train_step(self, x):
        losses = []
        for part, optimizer in zip(self.parts, (self.first, self.second), strict=True):
            with tf.GradientTape() as tape:
                losses.append(ops.mean((part(x) - 1) ** 2))
            gradients = tape.gradient(losses[-1], part.trainable_variables)
            optimizer.apply_gradients(zip(gradients, part.trainable_variables, strict=True))
        return {"first_loss": losses[0], "second_loss": losses[1]}


def test_a_model_that_compiles_and_trains_itself_is_left_as_it_is(tmp_path):
    histories = []
    for trained_by in ("fit", "trainer"):
        keras.utils.set_random_seed(1)
        model = TwoPlayers()
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2))
        data = tf.data.Dataset.from_tensor_slices(np.ones((8, 4), "float32")).batch(4)
        fit = model.fit if trained_by == "fit" else Trainer(model).fit
        histories.append(fit(data, epochs=2, shuffle=False, verbose=0).history)
    assert set(histories[0]) == set(histories[1])
    for key, values in histories[0].items():
        np.testing.assert_allclose(histories[1][key], values, rtol=1e-5)
    with pytest.raises(
        ValueError, match="TwoPlayers has its own `compile` method, with the arguments first, second"
    ):
        Trainer(model, "adam").fit(data, verbose=0)
    with pytest.warns(UserWarning, match="`compile` only, not of first, second"):
        Trainer(model).fit(data, checkpoint_dir=tmp_path, verbose=0)
