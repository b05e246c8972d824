"""The trainer against Keras' `fit`, against itself stopped and resumed, and against bad input.

Run as a script (`test_trainer.py DIRECTORY`) it is the other process of the resume test.
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow.python.framework.config import disable_op_determinism

from dropzoo.training.losses import DiceCrossEntropy
from dropzoo.training.metrics import ExpectedCalibrationError, MeanIoU
from dropzoo.training.trainer import Trainer

EPOCHS, STEPS = 3, 4


@pytest.fixture
def deterministic():
    yield
    disable_op_determinism()


@pytest.fixture(scope="module")
def whole():
    """The model and the history of a run that nothing stops."""
    run = _train()
    disable_op_determinism()
    return run


class Shuffled:
    """48 digits in an order that is a function of the epoch."""

    def at_epoch(self, epoch):
        images, labels = _digits(48)
        order = np.random.default_rng(epoch).permutation(len(images))
        return tf.data.Dataset.from_tensor_slices((images[order], labels[order])).batch(12)


@keras.saving.register_keras_serializable(package="tests")
class LiveScale(keras.layers.Layer):
    """A layer with a live rate, as dropout layers have: a property outside the layer's weights."""

    _rate = 0.0

    @property
    def rate(self):
        return self._rate

    @rate.setter
    def rate(self, value):
        self._rate = value

    def call(self, inputs):
        return inputs


class StopAt(keras.callbacks.Callback):
    """Stops, or is interrupted, after one step of the whole run."""

    def __init__(self, step, interrupt=False):
        super().__init__()
        self.steps, self.interrupt = step, interrupt

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            if self.interrupt:
                raise KeyboardInterrupt
            self.model.stop_training = True


def _digits(count):
    images, labels = load_digits(return_X_y=True)
    return images[:count].reshape(-1, 8, 8, 1).astype("float32") / 16.0, labels[:count].astype("int32")


def _dataset(count=48, batch_size=12):
    return tf.data.Dataset.from_tensor_slices(_digits(count)).batch(batch_size)


def _dropout_model(units=10):
    """Random draws, running statistics and a live rate, some of them in a nested model."""
    keras.utils.set_random_seed(3)
    block = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.Dropout(0.3), LiveScale()])
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(block(inputs))
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(units)(keras.layers.Dropout(0.5)(x)))


def _plain_model(outputs=10):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(outputs),
        ]
    )


def _linear():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def _train(directory=None, callbacks=None, epochs=EPOCHS, **options):
    model = _dropout_model()
    trainer = Trainer(model, keras.optimizers.Adam(0.01), deterministic=True)
    fit = {"epochs": epochs, "callbacks": callbacks, "checkpoint_dir": directory, "verbose": 0, **options}
    return model, trainer.fit(Shuffled(), validation_data=_dataset(24), **fit)


def _assert_same_run(run, other):
    (model, history), (other_model, other_history) = run, other
    for variable, value in zip(model.variables, other_model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)
    for variable, value in zip(model.optimizer.variables, other_model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)
    assert history.history == other_history.history
    assert history.epoch == other_history.epoch


def test_learns_digits():
    images, labels = _digits(1797)
    train = tf.data.Dataset.from_tensor_slices((images[:1400], labels[:1400])).shuffle(1400, seed=0).batch(50)
    test = tf.data.Dataset.from_tensor_slices((images[1400:], labels[1400:])).batch(100)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10),
        ]
    )
    trainer = Trainer(model, keras.optimizers.Adam(0.01), metrics=["accuracy", ExpectedCalibrationError()])
    history = trainer.fit(train, validation_data=test, epochs=5, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.9
    assert set(history) == {
        prefix + name for prefix in ("", "val_") for name in ("loss", "accuracy", "expected_calibration_error")
    }
    assert trainer.evaluate(test)["accuracy"] == pytest.approx(history["val_accuracy"][-1])


@pytest.mark.parametrize("weighting", [None, "sample", "class"])
def test_history_is_that_of_keras_fit(weighting):
    data, validation = _dataset(50), _dataset(20)  # the last batch is short
    class_weight = {0: 2.0, 3: 0.5, 9: 0.0} if weighting == "class" else None
    if weighting == "sample":
        data = data.map(lambda x, y: (x, y, tf.where(y < 5, 0.2, 1.0)))
    loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]

    expected_model = _plain_model()
    expected_model.compile(keras.optimizers.Adam(0.01), loss, metrics=metrics, jit_compile=False)
    fit = {"validation_data": validation, "epochs": 2, "class_weight": class_weight, "verbose": 0}
    expected = expected_model.fit(data, **fit, shuffle=False)
    model = _plain_model()
    trainer = Trainer(model, keras.optimizers.Adam(0.01), loss, metrics)
    found = trainer.fit(data, **fit)

    assert list(found.history) == list(expected.history)
    assert found.epoch == expected.epoch
    assert found.params == expected.params
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, atol=1e-5, err_msg=name)
    for variable, value in zip(model.weights, expected_model.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), atol=1e-5)
    expected_logs = expected_model.evaluate(validation, return_dict=True, verbose=0)
    assert trainer.evaluate(validation) == pytest.approx(expected_logs, abs=1e-5)


def test_output_is_that_of_keras_fit(capsys):
    trainer = Trainer(_plain_model(), "sgd")
    trainer.fit(_dataset(), epochs=2, verbose=2)
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed and "4/4 - " in printed and "accuracy: " in printed


def test_resumes_at_the_end_of_an_epoch_and_within_one(tmp_path, deterministic, whole):
    _train(tmp_path / "epoch", epochs=1)
    _assert_same_run(whole, _train(tmp_path / "epoch"))
    _assert_same_run(whole, _train(tmp_path / "epoch"))  # a finished run has nothing left to do

    within = tmp_path / "within"
    _train(within, [StopAt(STEPS + 2)])
    assert [path.name for path in sorted(within.iterdir())][-1] == "epoch00001_step0000002.npz"
    _assert_same_run(whole, _train(within))


def test_resumes_in_another_process(tmp_path, deterministic, whole):
    whole_model, whole_history = whole
    _train(tmp_path, [StopAt(STEPS + 1)])
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, capture_output=True)
    with np.load(tmp_path / "result.npz") as result:
        assert len(result) == len(whole_model.variables) + 1
        for index, variable in enumerate(whole_model.variables):
            np.testing.assert_array_equal(result[f"arr_{index + 1}"], variable.numpy(), err_msg=variable.path)
        np.testing.assert_array_equal(result["arr_0"], whole_history.history["val_loss"])


@pytest.mark.parametrize("where", ["step", "validation", "epoch end"])
def test_interrupt_saves_and_goes_on(tmp_path, deterministic, whole, capsys, where):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    callback = {
        "step": StopAt(STEPS + 3, interrupt=True),
        "validation": keras.callbacks.Callback(),
        "epoch end": keras.callbacks.LambdaCallback(on_epoch_end=interrupt),
    }[where]
    if where == "validation":
        callback.on_test_batch_end = interrupt
    with pytest.raises(KeyboardInterrupt):
        # The history sees the end of the epoch before the interrupt does.
        _train(tmp_path, [keras.callbacks.History(), callback])
    saved = "epoch00001_step0000003.npz" if where == "step" else "epoch00000_step0000004.npz"
    assert f"Interrupted. Saved to {tmp_path / saved}" in capsys.readouterr().out
    _assert_same_run(whole, _train(tmp_path))


def test_interrupt_without_a_directory_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Trainer(_linear()).fit(_dataset(), callbacks=[StopAt(1, interrupt=True)], verbose=0)
    assert not list(tmp_path.iterdir())


def test_checkpoints_come_when_asked_and_three_stay(tmp_path):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(sorted(path.name for path in tmp_path.glob("*")))

    Trainer(_linear()).fit(
        _dataset(), epochs=2, checkpoint_dir=str(tmp_path), checkpoint_every=3, callbacks=[Look()], verbose=0
    )
    assert seen[:5] == [[], [], [], ["epoch00000_step0000003.npz"], seen[4]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch00001_step0000000.npz",
        "epoch00001_step0000003.npz",
        "epoch00002_step0000000.npz",
    ]


def test_checkpoints_hold_rates_learning_rate_and_ema(tmp_path):
    def trainer():
        model = _dropout_model()
        return model, Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5))

    def change(epoch, logs):
        model.layers[1].layers[-1].rate = 0.25
        model.optimizer.learning_rate = 0.05

    model, first = trainer()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=change)
    first.fit(_dataset(), checkpoint_dir=tmp_path, callbacks=[callback], verbose=0)
    resumed, second = trainer()
    second.fit(_dataset(), checkpoint_dir=tmp_path, verbose=0)
    assert resumed.layers[1].layers[-1].rate == 0.25
    assert float(resumed.optimizer.learning_rate) == np.float32(0.05)
    for variable, value in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy())


def test_checkpoints_of_bfloat16_weights(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = _linear()
    Trainer(model, "sgd").fit(_dataset(), checkpoint_dir=tmp_path, verbose=0)
    resumed = _linear()
    Trainer(resumed, "sgd").fit(_dataset(), checkpoint_dir=tmp_path, verbose=0)
    assert resumed.weights[0].dtype == "bfloat16"
    for variable, value in zip(model.weights, resumed.weights, strict=True):
        assert np.array_equal(variable.numpy(), value.numpy())


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    before, newest = sorted(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    newest.write_bytes({"truncated": content[:middle], "empty": b"", "flipped": content}[damage])
    with pytest.warns(UserWarning, match=f"{newest.name} cannot be read and is passed over"):
        history = Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    assert history.epoch == [0, 1] and len(history.history["loss"]) == 2
    assert Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).epoch == [0, 1]

    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="None of the 2 checkpoints"):
        Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    Trainer(_linear()).fit(_dataset(), checkpoint_dir=tmp_path, verbose=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr("os.fsync", fail)
        Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    assert [path.name for path in tmp_path.glob("*.npz")] == ["epoch00001_step0000000.npz"]
    assert Trainer(_linear()).fit(_dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).epoch == [0, 1]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(tmp_path):
    def fit(model, optimizer="adam", **options):
        Trainer(model, optimizer, **options).fit(Shuffled(), epochs=2, checkpoint_dir=tmp_path, verbose=0)

    fit(_dropout_model())
    with pytest.raises(ValueError, match=r"(?s)another model.*- .*\(144, 10\).*\+ .*\(144, 11\)"):
        fit(_dropout_model(units=11))
    with pytest.raises(ValueError, match=r"(?s)- adam/.*\+ sgd/"):
        fit(_dropout_model(), "sgd")
    with pytest.raises(ValueError, match=r"(?s)- .*accuracy"):
        fit(_dropout_model(), metrics=[])


def test_callbacks_of_keras_work(tmp_path):
    model = _plain_model()
    trainer = Trainer(model, keras.optimizers.SGD(0.0))  # cannot get better
    seen = []
    history = trainer.fit(
        _dataset(),
        validation_data=_dataset(24),
        epochs=9,
        callbacks=[
            keras.callbacks.EarlyStopping(monitor="accuracy", patience=2),
            keras.callbacks.ReduceLROnPlateau(monitor="accuracy", patience=1, factor=0.5),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: seen.append(epoch),
                on_train_batch_end=lambda batch, logs: seen.append((batch, sorted(logs))),
            ),
        ],
        verbose=0,
    )
    assert history.epoch == [0, 1, 2]
    assert seen[:5] == [0, *[(step, ["accuracy", "loss"]) for step in range(4)]]
    assert history.history["learning_rate"] == [0.0, 0.0, 0.0]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss" and len(lines) == 4
    assert keras.saving.load_model(tmp_path / "best.keras").count_params() == model.count_params()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    history = Trainer(model, keras.optimizers.Adam(0.01)).fit(_dataset(300, 30), epochs=4, verbose=0)
    assert model.weights[0].dtype == "float32" and model.compute_dtype == policy.removeprefix("mixed_")
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")


@pytest.mark.parametrize("classes", [1, 3])
def test_masks_get_their_defaults_and_weights_a_pixel(classes):
    rng = np.random.default_rng(0)
    images = rng.random((6, 4, 5, 1)).astype("float32")
    masks = rng.integers(0, max(classes, 2), (6, 4, 5)).astype("uint8")
    weights = np.where(masks == 1, 3.0, 1.0).astype("float32")

    def fit(data, class_weight=None):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(classes, 3, padding="same")])
        trainer = Trainer(model, keras.optimizers.SGD(0.5))
        data = tf.data.Dataset.from_tensor_slices(data).batch(3)
        history = trainer.fit(data, class_weight=class_weight, verbose=0).history
        assert isinstance(model.loss, DiceCrossEntropy)
        assert list(history) == ["accuracy", "loss", "mean_iou"]
        return history["loss"]

    by_class = fit((images, masks), {1: 3.0})
    np.testing.assert_allclose(by_class, fit((images, masks, weights)), rtol=1e-6)
    np.testing.assert_allclose(by_class, fit((images, masks[..., None]), {1: 3.0}), rtol=1e-6)
    assert abs(by_class[0] - fit((images, masks))[0]) > 1e-3


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    images, labels = _digits(48)
    images = np.concatenate([images, images])
    images[60] = np.nan  # in the second batch of the second half
    labels = np.concatenate([labels, labels])

    class Halves:
        def at_epoch(self, epoch):
            half = slice(48 * epoch, 48 * epoch + 48)
            return tf.data.Dataset.from_tensor_slices((images[half], labels[half])).batch(12)

    good = tmp_path / "epoch00001_step0000000.npz"
    with pytest.raises(FloatingPointError, match=f"nan at step 2 of epoch 2. Last good checkpoint: {good}"):
        Trainer(_linear()).fit(Halves(), epochs=2, checkpoint_dir=tmp_path, checkpoint_every=2, verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == good.name


def test_labels_beyond_the_model_are_refused():
    def fit(labels, outputs, shape=(8, 8, 1), **options):
        model = keras.Sequential([keras.Input(shape), keras.layers.Conv2D(outputs, 1)])
        data = tf.data.Dataset.from_tensors((np.zeros((1, *shape), "float32"), labels))
        Trainer(model, "sgd", **options).fit(data, verbose=0)

    mask = np.zeros((1, 8, 8), "int32")
    mask[0, 3, 4] = 12
    with pytest.raises(ValueError, match="labels up to 12 but the model has 11 outputs"):
        fit(mask, 11)
    with pytest.raises(ValueError, match="labels up to 12 but the model has 1 output"):
        fit(mask, 1)
    with pytest.raises(ValueError, match="labels down to -1"):
        fit(np.minimum(mask, 1) - 1, 11)
    fit(mask, 13)
    fit(mask, 11, loss=DiceCrossEntropy(ignore_class=12), metrics=[MeanIoU(11, ignore_class=12)])
    fit(mask, 1, loss="mse", metrics=[])  # regression


def test_bad_data_is_refused():
    trainer = Trainer(_linear())
    images, labels = _digits(12)
    for data, message in [
        ((images, labels), "`train` must be a tf.data.Dataset"),
        (_dataset().take(0), "`train` is empty"),
        (_dataset().filter(lambda x, y: False), "`train` is empty"),
        (_dataset().repeat(), "`train` never ends"),
        (_dataset().map(lambda x, y: x), r"must give \(x, y\)"),
        (_dataset().map(lambda x, y: {"x": x, "y": y}), r"must give \(x, y\)"),
        (_dataset().map(lambda x, y: (tf.numpy_function(np.copy, [x], tf.float32), y)), "known rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer.fit(data, verbose=0)
    for empty in (_dataset().take(0), _dataset().filter(lambda x, y: False)):
        with pytest.raises(ValueError, match="`dataset` is empty"):
            trainer.evaluate(empty)
        with pytest.raises(ValueError, match="`validation_data` is empty"):
            trainer.fit(_dataset(), validation_data=empty, verbose=0)
    assert len(trainer.fit(_dataset().filter(lambda x, y: True), verbose=0).epoch) == 1  # of unknown length


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one device only is supported so far"):
        Trainer(_linear(), strategy=tf.distribute.get_strategy())
    with pytest.raises(ValueError, match="`loss` and `metrics` must be given"):
        Trainer(keras.Sequential([keras.layers.Dense(3)]))
    trainer = Trainer(_linear())
    for every, directory in ((2, None), (0, tmp_path), (-1, tmp_path)):
        with pytest.raises(ValueError, match="`checkpoint_every` must be a positive number"):
            trainer.fit(_dataset(), checkpoint_every=every, checkpoint_dir=directory)
    for class_weight in ({}, {10: 1.0}, {-1: 1.0}):
        with pytest.raises(ValueError, match="`class_weight` must name classes"):
            trainer.fit(_dataset(), class_weight=class_weight, verbose=0)
    weighted = _dataset().map(lambda x, y: (x, y, tf.ones_like(y)))
    with pytest.raises(ValueError, match="without sample weights"):
        trainer.fit(weighted, class_weight={0: 2.0}, verbose=0)


def test_compiled_by_xla_and_built_late():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])  # built by the first data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    history = Trainer(model, "sgd", loss, ["accuracy"], jit_compile=True).fit(_dataset(), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    trained, log = _train(target)
    np.savez(target / "result.npz", log.history["val_loss"], *[value.numpy() for value in trained.variables])
