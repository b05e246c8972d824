"""Several inputs and outputs: each output has its own loss, metrics, weights and task, as in `fit`.

The rule: losses, loss weights, metrics, tasks, targets and sample weights are given by name or in the order of the
outputs. An output whose loss nobody has said gets the default for its targets. The history has the keys of `fit`.
Replicas take the step of one device.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dropzoo.common.keras_versions import setting_of_loss
from dropzoo.training.trainer import Trainer

ROWS, SIZE = 20, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
SIDE = RNG.normal(size=(ROWS, 2)).astype("float32")
KINDS, HEIGHTS = RNG.integers(0, 3, ROWS), RNG.normal(170, 10, ROWS).astype("float32")
SICK = RNG.integers(0, 2, ROWS)
WEIGHTS = RNG.random(ROWS).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build(as_dict=False, end=None):
    keras.utils.set_random_seed(3)
    x, side = keras.Input((4,), name="x"), keras.Input((2,), name="side")
    hidden = layers.Dense(6, activation="tanh")(layers.Concatenate()([x, side]))
    outputs = {
        "kind": layers.Dense(3, activation=end, name="kind")(hidden),
        "height": layers.Dense(1, name="height")(hidden),
        "sick": layers.Dense(1, activation="sigmoid" if end else None, name="sick")(hidden),
    }
    return keras.Model([x, side], outputs if as_dict else list(outputs.values()))


BY_NAME = {"kind": KINDS, "height": HEIGHTS, "sick": SICK}
TARGETS = {"in order": [KINDS, HEIGHTS, SICK], "by name": BY_NAME}


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("targets", TARGETS)
def test_each_output_gets_the_default_for_its_targets(as_dict, targets, capsys):
    if as_dict and targets == "in order":
        pytest.skip("outputs by name need targets by name")
    model = build(as_dict)
    trainer = Trainer(model)
    history = trainer.fit(((X, SIDE), TARGETS[targets]), batch_size=SIZE, verbose=2).history
    assert set(history) == {
        "loss",
        *("kind_loss", "height_loss", "sick_loss"),
        *("kind_accuracy", "height_mean_absolute_error", "sick_accuracy"),
    }
    losses = model.loss if as_dict else dict(zip(BY_NAME, model.loss, strict=True))
    assert [losses[name].name for name in BY_NAME] == [
        "sparse_categorical_crossentropy",
        "mean_squared_error",
        "binary_crossentropy",
    ]
    said = capsys.readouterr().out
    for words in (
        "the loss of output 'kind' is sparse_",
        "output 'height' is mean_squared_error",
        "output 'sick'",
    ):
        assert words in said
    assert trainer.evaluate(((X, SIDE), TARGETS[targets]))["kind_accuracy"] <= 1


def test_an_end_of_its_own_for_each_output():
    model = build(end="softmax")
    Trainer(model).fit(((X, SIDE), BY_NAME), verbose=0)
    assert [setting_of_loss(loss, "from_logits") for loss in model.loss] == [False, None, False]


@pytest.mark.parametrize(
    "task", [{"kind": "multi_class", "sick": "regression"}, ["multi_class", None, "regression"]]
)
def test_a_task_for_each_output(task):
    model = build()
    Trainer(model, task=task).fit(((X, SIDE), BY_NAME), verbose=0)
    assert [loss.name for loss in model.loss][1:] == ["mean_squared_error"] * 2
    with pytest.raises(ValueError, match="Unknown output 'kin'. Did you mean 'kind'"):
        Trainer(build(), task={"kin": "multi_class"}).fit(((X, SIDE), BY_NAME), verbose=0)


def test_targets_that_fit_no_outputs_are_an_error():
    for as_dict, targets, received in [
        (False, [KINDS, HEIGHTS], "2 targets"),
        (True, {"kind": KINDS, "height": HEIGHTS}, r"\['height', 'kind'\]"),
        (True, {"kinds": KINDS, "height": HEIGHTS, "sick": SICK}, r"\['height', 'kinds', 'sick'\]"),
    ]:
        with pytest.raises(ValueError, match=f"a target for each of the 3 outputs.*To train some.*{received}"):
            Trainer(build(as_dict)).fit(((X, SIDE), targets), verbose=0)


SAID = {
    "by name": (
        {"kind": CROSS_ENTROPY, "height": "mse", "sick": "binary_crossentropy"},
        {"kind": 1.0, "height": 0.01, "sick": 0.5},
        {"kind": ["accuracy"], "height": ["mae"]},
    ),
    "in order": ([CROSS_ENTROPY, "mse", "binary_crossentropy"], [1.0, 0.01, 0.5], [["accuracy"], ["mae"], []]),
}


@pytest.mark.costly(keep=1)
@pytest.mark.covering("how", "compiled")
@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:The loss has from_logits")
def test_losses_weights_and_metrics_are_those_of_fit(how, compiled):
    loss, loss_weights, metrics = SAID[how]
    first, second = build(how == "by name"), build(how == "by name")
    said = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics}
    first.compile(keras.optimizers.SGD(0.01), **said, jit_compile=False)
    if compiled:
        second.compile(keras.optimizers.SGD(0.01), **said)
    weights = {"kind": WEIGHTS, "height": 1 - WEIGHTS, "sick": WEIGHTS} if how == "by name" else None
    data = {"x": [X, SIDE], "y": BY_NAME if how == "by name" else list(BY_NAME.values()), "sample_weight": weights}
    fit = {"batch_size": SIZE, "epochs": 2, "shuffle": False, "verbose": 0}
    expected = first.fit(**data, **fit).history
    trainer = Trainer(second) if compiled else Trainer(second, keras.optimizers.SGD(0.01), **said)
    found = trainer.fit(**data, **fit).history
    assert list(found) == sorted(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=2e-4, err_msg=key)


def test_the_labels_of_each_output_are_checked_for_themselves():
    wrong = {**BY_NAME, "kind": KINDS + 5}
    with pytest.raises(ValueError, match="labels up to 7 but the model has 3 outputs"):
        Trainer(build()).fit(((X, SIDE), wrong), verbose=0)
    own = {"kind": lambda y, z: keras.ops.mean(z, -1), "height": "mse", "sick": "mse"}
    Trainer(build(True), loss=own).fit(((X, SIDE), wrong), verbose=0)


@pytest.mark.costly(keep=0)
def test_replicas_take_the_steps_of_one_device(two_devices):
    """The last batch, of 4 of 20 rows, is uneven beside the others, and 7 rows a replica are not the same."""
    losses = {"kind": CROSS_ENTROPY, "height": "mse", "sick": keras.losses.BinaryCrossentropy(from_logits=True)}
    options = {"loss_weights": {"kind": 1.0, "height": 0.01, "sick": 0.5}, "weighted_metrics": {"height": ["mae"]}}
    data = ([X, SIDE], BY_NAME, {"kind": WEIGHTS, "height": 1 - WEIGHTS, "sick": WEIGHTS})
    runs = []
    for each in (None, two_devices):
        with each.scope() if each else tf.init_scope():
            model = build(True)
        trainer = Trainer(model, keras.optimizers.SGD(0.01), losses, [], each, **options)
        history = trainer.fit(data, batch_size=7, epochs=2, shuffle=False, verbose=0).history
        runs.append((model, history, trainer.evaluate(data, batch_size=7)))
    (one, expected, scores), (two, found, others) = runs
    for variable, value in zip(two.weights, one.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), atol=1e-5)
    assert set(found) == set(expected)
    for key in ("loss", "height_mae"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, err_msg=key)
        assert others[key] == pytest.approx(scores[key], rel=1e-4)
