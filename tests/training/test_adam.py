"""Adam's update as one operation, against Keras' own in `fit`."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from _trainer_runs import dataset, plain_model
from dropzoo.common.keras_internals import adam_slots
from dropzoo.training.loop import adam as _adam
from dropzoo.training.trainer import Trainer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Adam, AdamW = keras.optimizers.Adam, keras.optimizers.AdamW


def embedding_model():
    """Whose gradient is sparse."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(dataset().element_spec[0].shape[1:])
    x = keras.ops.cast(keras.layers.Flatten()(inputs) * 7, "int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(8, 3)(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


@pytest.fixture(autouse=True)
def every_variable_counts_as_large(monkeypatch):
    monkeypatch.setattr(_adam, "SMALL", 0)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("build", "make", "options"),
    [
        (plain_model, Adam, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
        (plain_model, Adam, {"amsgrad": True}),
        (plain_model, Adam, {"clipnorm": 0.01}),
        (plain_model, Adam, {"gradient_accumulation_steps": 3}),
        (plain_model, Adam, {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}),
        (plain_model, AdamW, {"weight_decay": 0.1}),
        # Options that read the gradient itself, which is sparse here.
        (embedding_model, Adam, {}),
        (embedding_model, Adam, {"clipnorm": 0.01}),
        (embedding_model, Adam, {"gradient_accumulation_steps": 3}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_it_is_that_of_fit(build, make, options, monkeypatch):
    update, updated = tf.raw_ops.ResourceApplyAdam, []
    monkeypatch.setattr(tf.raw_ops, "ResourceApplyAdam", lambda **given: updated.append(given) or update(**given))
    expected, model = build(), build()
    expected.compile(make(1e-2, **options), LOSS, run_eagerly=True)
    expected.fit(dataset(), epochs=3, shuffle=False, verbose=0)
    trainer = Trainer(model, make(1e-2, **options), LOSS, ["accuracy"], steps_per_execution=3)
    trainer.fit(dataset(), epochs=3, verbose=0)
    variables = [*expected.weights, *expected.optimizer.variables]
    for variable, value in zip([*model.weights, *model.optimizer.variables], variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), rtol=1e-3, atol=2e-5, err_msg=variable.path)
    assert bool(updated) != ("amsgrad" in options)
    assert "update_step" not in vars(model.optimizer)  # Keras' own again


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_other_dtypes(dtype):
    keras.config.set_dtype_policy(dtype)
    history = Trainer(plain_model(), Adam(1e-2), LOSS, ["accuracy"]).fit(dataset(), epochs=3, verbose=0).history
    assert history["loss"][2] < history["loss"][0]


def test_it_is_closer_to_the_formula():
    gradients = np.random.default_rng(0).normal(size=(200, 50)).astype("float32")
    rate, beta_1, beta_2, epsilon = 1e-2, 0.9, 0.99999, 1e-7
    x, m, v = np.zeros((3, 50))
    for step, g in enumerate(gradients.astype("float64"), start=1):
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
        x = x - rate * m / (1 - beta_1**step) / (np.sqrt(v / (1 - beta_2**step)) + epsilon)

    def error(context):
        variable, optimizer = keras.Variable(np.zeros(50, "float32")), Adam(rate, beta_1, beta_2, epsilon)
        optimizer.build([variable])

        @tf.function
        def update(gradient):
            with context(optimizer):
                optimizer.apply_gradients([(gradient, variable)])

        for gradient in gradients:
            update(tf.constant(gradient))
        return np.abs(variable.numpy() - x).max()

    own = error(lambda optimizer: contextlib.nullcontext())
    assert error(_adam.fused) < own


def test_without_the_private_names_the_update_is_that_of_keras():
    assert adam_slots(keras.optimizers.SGD(), keras.Variable(1.0)) is None

    class Renamed(Adam):
        """Adam as another Keras may write it: the slots have other names."""

        def __getattribute__(self, name):
            return super().__getattribute__({"_momentums": "_renamed"}.get(name, name))

    assert adam_slots(Renamed(), keras.Variable(1.0)) is None


def test_large_variables_without_slots_are_left_to_keras(monkeypatch):
    def train():
        variable, optimizer = keras.Variable(np.ones(50, "float32")), Adam(0.1)
        optimizer.build([variable])
        with _adam.fused(optimizer):
            optimizer.apply_gradients([(tf.ones(50), variable)])
        return variable.numpy()

    monkeypatch.setattr(tf.raw_ops, "ResourceApplyAdam", None)  # a call would fail
    monkeypatch.setattr(_adam, "adam_slots", lambda optimizer, variable: None)
    np.testing.assert_allclose(train(), np.full(50, 0.9), rtol=1e-5)


def test_it_is_one_operation_for_each_variable(monkeypatch):
    def operations(optimizer):
        variables = [keras.Variable(np.ones(3, "float32")) for _ in range(4)]
        optimizer.build(variables)

        @tf.function
        def step():
            with _adam.fused(optimizer):
                optimizer.apply_gradients([(tf.ones(3), variable) for variable in variables])

        return sum(op.type == "ResourceApplyAdam" for op in step.get_concrete_function().graph.get_operations())

    monkeypatch.setattr(_adam, "SMALL", 4)
    assert operations(Adam()) == 0
    monkeypatch.setattr(_adam, "SMALL", 3)
    assert [operations(o) for o in (Adam(), AdamW(), Adam(amsgrad=True), keras.optimizers.Nadam())] == [4, 4, 0, 0]
