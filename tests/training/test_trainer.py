"""The trainer against Keras' `fit`, and against bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _trainer_runs import dataset, digits, linear_model, plain_model
from dropzoo.training.losses.dice import DiceCrossEntropy
from dropzoo.training.metrics.calibration import ExpectedCalibrationError
from dropzoo.training.metrics.iou import MeanIoU
from dropzoo.training.trainer import Trainer


def test_learns_digits():
    images, labels = digits(1797)
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


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("weighting", [None, "sample", "class"])
def test_history_is_that_of_keras_fit(weighting):
    data, validation = dataset(50), dataset(20)  # the last batch is short
    class_weight = {0: 2.0, 3: 0.5, 9: 0.0} if weighting == "class" else None
    if weighting == "sample":
        data = data.map(lambda x, y: (x, y, tf.where(y < 5, 0.2, 1.0)))
    loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]

    expected_model = plain_model()
    expected_model.compile(keras.optimizers.Adam(0.01), loss, metrics=metrics, run_eagerly=True)
    fit = {"validation_data": validation, "epochs": 2, "class_weight": class_weight, "verbose": 0}
    expected = expected_model.fit(data, **fit, shuffle=False)
    model = plain_model()
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
    trainer = Trainer(plain_model(), "sgd")
    trainer.fit(dataset(), epochs=2, verbose=2)
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed and "4/4 - " in printed and "accuracy: " in printed


def test_callbacks_of_keras_work(tmp_path):
    model = plain_model()
    trainer = Trainer(model, keras.optimizers.SGD(0.0))  # cannot get better
    seen = []
    history = trainer.fit(
        dataset(),
        validation_data=dataset(24),
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


def test_a_callback_may_come_alone():
    seen = []
    alone = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    Trainer(plain_model(), "sgd").fit(dataset(), epochs=2, callbacks=alone, verbose=0)
    assert seen == [0, 1]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    history = Trainer(model, keras.optimizers.Adam(0.01)).fit(dataset(300, 30), epochs=4, verbose=0)
    assert model.weights[0].dtype == "float32" and model.compute_dtype == policy.removeprefix("mixed_")
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")


@pytest.mark.costly(keep=0)
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


@pytest.mark.parametrize("steps", [1, 4])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, steps):
    options = {"steps_per_execution": steps}
    fit = {"checkpoint_dir": tmp_path, "checkpoint_every": 2, "verbose": 0}
    images, labels = digits(48)
    images = np.concatenate([images, images])
    images[60] = np.nan  # in the second batch of the second half
    labels = np.concatenate([labels, labels])

    class Halves:
        def at_epoch(self, epoch):
            half = slice(48 * epoch, 48 * epoch + 48)
            return tf.data.Dataset.from_tensor_slices((images[half], labels[half])).batch(12)

    good = tmp_path / "epoch00001_step0000000.npz"
    with pytest.raises(FloatingPointError, match="nan at step 2 of epoch 2 .learning rate 0.02") as error:
        Trainer(linear_model(), keras.optimizers.SGD(0.02), **options).fit(Halves(), epochs=2, **fit)
    assert "gradient norm nan" in str(error.value) and f"Last good checkpoint: {good}" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == good.name


def test_a_loss_that_is_not_finite_can_bring_back_the_last_good_weights(tmp_path):
    images, labels = digits(48)
    images[30] = np.inf
    model = linear_model()
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(12)
    trainer = Trainer(model, on_nan="restore", steps_per_execution=2)
    with pytest.raises(ValueError, match="needs a `checkpoint_dir`"):
        trainer.fit(data, verbose=0)
    with pytest.raises(FloatingPointError, match=r"step 3 of epoch 1.*now restored.*step0000002.npz"):
        trainer.fit(data, checkpoint_dir=tmp_path, checkpoint_every=1, verbose=0)
    assert int(model.optimizer.iterations) == 2
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = linear_model()
    spoil = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: model.weights[0].assign(model.weights[0] * np.nan)
    )
    with pytest.raises(
        FloatingPointError, match="kernel is not finite before step 1 of epoch 2.*Nothing was saved"
    ):
        Trainer(model).fit(dataset(), checkpoint_dir=tmp_path, callbacks=[spoil], verbose=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.costly(keep=0)
def test_labels_beyond_the_model_are_refused():
    def fit(labels, outputs, shape=(8, 8, 1), **options):
        model = keras.Sequential([keras.Input(shape), keras.layers.Conv2D(outputs, 1)])
        data = tf.data.Dataset.from_tensors((np.zeros((1, *shape), "float32"), labels))
        Trainer(model, "sgd", **options).fit(data, verbose=0)

    mask = np.zeros((1, 8, 8), "int32")
    mask[0, 3, 4] = 12
    with pytest.raises(
        ValueError, match="^`train` has labels up to 12 but the model has 11 outputs. To leave .* as loss='mse'$"
    ):
        fit(mask, 11)
    with pytest.raises(ValueError, match="The loss of the output must be given: .* from 0 to 12"):
        fit(mask, 1)
    with pytest.raises(ValueError, match="labels down to -1"):
        fit(np.minimum(mask, 1) - 1, 11)
    fit(mask, 13)
    fit(mask, 11, loss=DiceCrossEntropy(ignore_class=12), metrics=[MeanIoU(11, ignore_class=12)])
    fit(mask, 1, loss="mse", metrics=[])  # regression


@pytest.mark.parametrize("classes", [1, 3])
def test_default_metrics_leave_the_ignored_label_out(classes):
    random = np.random.default_rng(0)
    masks = random.integers(0, max(classes, 2), (2, 8, 8)).astype("int32")
    images = masks[..., None].astype("float32")
    masks[:, :3] = 255
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(classes, 1)])
    scale, shift = ([[[[2.0]]]], [-1.0]) if classes == 1 else ([[[[0.0, 2.0, 4.0]]]], [0.0, -1.0, -4.0])
    model.set_weights([np.array(scale), np.array(shift)])  # right wherever it counts
    trainer = Trainer(model, loss=DiceCrossEntropy(ignore_class=255))
    scores = trainer.evaluate(tf.data.Dataset.from_tensor_slices((images, masks)).batch(2))
    assert scores["accuracy"] == 1.0 and scores["mean_iou"] == 1.0


def test_bad_data_is_refused():
    trainer = Trainer(linear_model())
    images, labels = digits(12)
    for data, message in [
        ("digits", "`train` must be a tf.data.Dataset"),
        ((images, labels[:5]), r"same number of rows. Received: \[5, 12\]"),
        (
            zip([images], [labels], strict=True),
            "`train` never ends, or its length is not known: pass `steps_per_epoch`",
        ),
        (dataset().take(0), "`train` is empty"),
        (dataset().filter(lambda x, y: False), "`train` is empty"),
        (dataset().repeat(), "`train` never ends"),
        (dataset().map(lambda x, y: x), "inputs without targets"),
        (dataset().map(lambda x, y: (x, y, y, y)), r"must give x, \(x, y\)"),
        (dataset().map(lambda x, y: (tf.numpy_function(np.copy, [x], tf.float32), y)), "known rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer.fit(data, verbose=0)
    for empty in (dataset().take(0), dataset().filter(lambda x, y: False)):
        with pytest.raises(ValueError, match="`dataset` is empty"):
            trainer.evaluate(empty)
        with pytest.raises(ValueError, match="`validation_data` is empty"):
            trainer.fit(dataset(), validation_data=empty, verbose=0)
    assert len(trainer.fit(dataset().filter(lambda x, y: True), verbose=0).epoch) == 1  # of unknown length


def test_bad_arguments_are_refused(tmp_path):
    for options, message in [
        ({"strategy": tf.distribute.MirroredStrategy(["CPU:0"])}, "must be built under the strategy"),
        ({"strategy": "mirrored"}, "`strategy` must be None, a tf.distribute.MirroredStrategy"),
        ({"jit_compile": "yes"}, "`jit_compile` must be one of True, False, 'auto'. Received: jit_compile='yes'"),
        ({"steps_per_execution": 0}, "`steps_per_execution` must be a positive int"),
        ({"on_nan": "skip"}, "`on_nan` must be one of 'stop', 'restore'"),
        ({"r_drop": -1.0}, "`r_drop` must be a number of at least 0"),
        ({"r_drop": True}, "`r_drop` must be a number of at least 0. Received: r_drop=True"),
        ({"prefetch_to": "GPU:7"}, "`prefetch_to` must be one of 'CPU:0', 'CPU:1'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Trainer(linear_model(), **options)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    for option in ({"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 5}):
        optimizer = keras.optimizers.SGD(**option)
        for given in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
            with pytest.raises(ValueError, match=f"do not support `{[*option][-1]}` under a strategy"):
                Trainer(linear_model(), given, strategy=strategy)
    trainer = Trainer(linear_model())
    for every in (0, -1):
        with pytest.raises(ValueError, match="`checkpoint_every` must be a positive int"):
            trainer.fit(dataset(), checkpoint_every=every, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="`checkpoint_every` needs a `checkpoint_dir`"):
        trainer.fit(dataset(), checkpoint_every=2)
    for class_weight in ({}, {10: 1.0}, {-1: 1.0}, {0.0: 1.0}, {"0": 1.0}):
        with pytest.raises(ValueError, match="The keys of `class_weight` must be classes"):
            trainer.fit(dataset(), class_weight=class_weight, verbose=0)
    weighted = dataset().map(lambda x, y: (x, y, tf.ones_like(y)))
    with pytest.raises(ValueError, match="without sample weights"):
        trainer.fit(weighted, class_weight={0: 2.0}, verbose=0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_beyond_the_model_are_refused_in_an_evaluation(jit_compile):
    trainer = Trainer(linear_model(), jit_compile=jit_compile)
    wrong = dataset().map(lambda x, y: (x, y + 1))
    for call in (lambda: trainer.evaluate(wrong), lambda: trainer.fit(dataset(), wrong, verbose=0)):
        with pytest.raises(
            ValueError, match="^The data of the evaluation has labels up to 10 but the model has 10"
        ):
            call()
    assert 0 < trainer.evaluate(dataset())["loss"] < 9


def test_compiled_by_xla_and_built_late():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])  # built by the first data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    history = Trainer(model, "sgd", loss, ["accuracy"], jit_compile=True).fit(dataset(), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
