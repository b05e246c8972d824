"""Checkpoints of the trainer: when they come, what they hold, and what is refused."""

import json

import keras
import numpy as np
import pytest

from _trainer_runs import Shuffled, StopAt, dataset, digits, dropout_model, linear_model
from dropzoo import layers
from dropzoo.training.rate_schedule import RateSchedule
from dropzoo.training.schedules import linear
from dropzoo.training.trainer import Trainer


def test_checkpoints_come_when_asked_and_three_stay(tmp_path):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(sorted(path.name for path in tmp_path.glob("*")))

    Trainer(linear_model()).fit(
        dataset(), epochs=2, checkpoint_dir=str(tmp_path), checkpoint_every=3, callbacks=[Look()], verbose=0
    )
    assert seen[:5] == [[], [], [], ["epoch00000_step0000003.npz"], seen[4]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch00001_step0000000.npz",
        "epoch00001_step0000003.npz",
        "epoch00002_step0000000.npz",
    ]


def test_checkpoints_hold_rates_learning_rate_and_ema(tmp_path):
    def trainer():
        model = dropout_model()
        return model, Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5))

    def change(epoch, logs):
        model.layers[1].layers[-1].rate = 0.25
        model.optimizer.learning_rate = 0.05

    model, first = trainer()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=change)
    first.fit(dataset(), checkpoint_dir=tmp_path, callbacks=[callback], verbose=0)
    resumed, second = trainer()
    second.fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    assert resumed.layers[1].layers[-1].rate == 0.25
    assert float(resumed.optimizer.learning_rate) == np.float32(0.05)
    for variable, value in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy())


def test_checkpoints_of_bfloat16_weights(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = linear_model()
    Trainer(model, "sgd").fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    resumed = linear_model()
    Trainer(resumed, "sgd").fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    assert resumed.weights[0].dtype == "bfloat16"
    for variable, value in zip(model.weights, resumed.weights, strict=True):
        assert np.array_equal(variable.numpy(), value.numpy())


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    before, newest = sorted(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    newest.write_bytes({"truncated": content[:middle], "empty": b"", "flipped": content}[damage])
    with pytest.warns(UserWarning, match=f"{newest.name} cannot be read and is skipped"):
        history = Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    assert history.epoch == [0, 1] and len(history.history["loss"]) == 2
    assert Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).epoch == [0, 1]

    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="Cannot read 2 checkpoints"):
        Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    Trainer(linear_model()).fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr("os.fsync", fail)
        Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    assert [path.name for path in tmp_path.glob("*.npz")] == ["epoch00001_step0000000.npz"]
    assert Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).epoch == [0, 1]
    assert all(path.name.startswith("epoch0000") and len(path.name) == 26 for path in tmp_path.iterdir())


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(tmp_path):
    def fit(model, optimizer="adam", **options):
        Trainer(model, optimizer, **options).fit(Shuffled(), epochs=2, checkpoint_dir=tmp_path, verbose=0)

    fit(dropout_model())
    with pytest.raises(ValueError, match=r"(?s)another model.*- .*\(144, 10\).*\+ .*\(144, 11\)"):
        fit(dropout_model(units=11))
    with pytest.raises(ValueError, match=r"(?s)- adam/.*\+ (sgd|SGD)/"):
        fit(dropout_model(), "sgd")
    with pytest.raises(ValueError, match=r"(?s)- .*accuracy"):
        fit(dropout_model(), metrics=[])


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("changed", ["rate", "block size", "momentum", "activation", "r_drop"])
def test_a_changed_plan_optimizer_or_layer_is_refused_with_the_difference(tmp_path, changed):
    def fit(rate=0.1, block_size=3, momentum=0.9, activation="relu", r_drop=0.0, moving=True):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(2, 3, activation=activation, name="conv")(inputs)
        x = layers.DropBlock2D(rate, block_size=block_size, name="conv_dropout")(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
        optimizer = keras.optimizers.SGD(0.1, momentum=momentum)
        rates = [RateSchedule({"*": linear(0.0, 0.4)})] * moving
        fit = {"checkpoint_dir": tmp_path, "callbacks": rates, "verbose": 0}
        return Trainer(model, optimizer, r_drop=r_drop).fit(dataset(), epochs=2, **fit)

    fit()
    assert fit().epoch == [0, 1]
    argument, message = {
        "rate": ({"rate": 0.3, "moving": False}, "- conv_dropout.rate: 0.1\n[+] conv_dropout.rate: 0.3"),
        "block size": ({"block_size": 5}, "- conv_dropout.block_size: 3\n[+] conv_dropout.block_size: 5"),
        "momentum": ({"momentum": 0.5}, "- optimizer.config.momentum: 0.9\n[+] optimizer.config.momentum: 0.5"),
        "r_drop": ({"r_drop": 1.0}, "[+] trainer.r_drop: 1.0"),
        "activation": ({"activation": "tanh"}, '- conv.activation: "relu"\n[+] conv.activation: "tanh"'),
    }[changed]
    with pytest.raises(ValueError, match=message):
        fit(**argument)


@pytest.mark.parametrize(
    "moving",
    [
        RateSchedule({"*": linear(0.0, 0.4)}),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=100.0),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_model_that_was_stopped_goes_on_though_its_rates_have_moved(tmp_path, moving):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), layers.Dropout(0.5), keras.layers.Dense(10)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for stop in ([StopAt(10)], []):
        fit = {"epochs": 4, "checkpoint_dir": tmp_path, "callbacks": [moving, *stop], "verbose": 0}
        history = Trainer(model).fit(dataset(), **fit)
    assert history.epoch == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["arrays", "generator", "dataset in parts"])
def test_a_finished_run_goes_on_with_other_settings(tmp_path, form):
    """Whatever the data are, and also where the loss is known only from the first batch."""

    def trainer(steps):
        return Trainer(linear_model(), keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, steps)))

    def fit(trainer, epochs):
        data = {
            "arrays": {"x": digits(48)[0], "y": digits(48)[1], "batch_size": 6 * epochs},
            "generator": {"train": iter(dataset(48 * 9)), "steps_per_epoch": 2 * epochs},
            "dataset in parts": {"train": dataset(), "steps_per_epoch": 2 * epochs},
        }[form]
        return trainer.fit(**data, epochs=epochs, checkpoint_dir=tmp_path, verbose=0).epoch

    fit(trainer(2), 1)
    with pytest.raises(ValueError, match="of another model, or of a run with other settings"):
        fit(trainer(4), 2)
    other = trainer(4)
    other.goes_on_from(tmp_path)
    assert fit(other, 2) == [0, 1]
    assert fit(trainer(4), 2) == [0, 1]  # which is the same run now
    with pytest.raises(ValueError, match="of another model, or of a run with other settings"):
        fit(trainer(2), 2)


def test_a_checkpoint_of_version_1_goes_on(tmp_path):
    """It held the same settings of the layers in another order: the rate, then the seed."""
    build = lambda: keras.Sequential(  # noqa: E731
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), layers.Dropout(0.5, seed=1), keras.layers.Dense(10)]
    )
    Trainer(build()).fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    of_dropout = [line for line in meta["described"] if line.startswith("dropout.")]
    first = meta["described"].index(of_dropout[0])
    meta["described"][first : first + len(of_dropout)] = of_dropout[::-1]
    np.savez(path, **arrays | {"meta": json.dumps(meta)})
    history = Trainer(build()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).history
    assert len(history["loss"]) == 2


def test_the_best_epoch_stays_where_validation_began_later(tmp_path):
    for epochs, losses in ((2, None), (7, [0, 0, 2, 1, 3, 4, 5])):
        log = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, losses=losses: logs.update(
                {"val_loss": losses[epoch]} if losses else {}
            )
        )
        Trainer(linear_model()).fit(dataset(), epochs=epochs, checkpoint_dir=tmp_path, callbacks=[log], verbose=0)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"epoch{epoch:05}_step0000000.npz" for epoch in (4, 5, 6, 7)]


def test_the_best_epoch_stays(tmp_path):
    model = linear_model()
    worse = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=[2, 1, 3, 4, 5, 6][epoch])
    )
    Trainer(model).fit(dataset(), epochs=6, checkpoint_dir=tmp_path, callbacks=[worse], verbose=0)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"epoch{epoch:05}_step0000000.npz" for epoch in (2, 4, 5, 6)]
