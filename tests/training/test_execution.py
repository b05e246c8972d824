"""Many steps in one execution, options of the optimizer, XLA and R-Drop: against Keras' `fit`, or the formula."""

import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from _trainer_runs import Shuffled, StopAt, dataset, digits, dropout_model, linear_model, plain_model
from dropzoo import layers, models
from dropzoo.training.loop import batches as _batches
from dropzoo.training.loop.options import xla_pays
from dropzoo.training.loop.program import r_drop_loss
from dropzoo.training.rate_schedule import RateSchedule
from dropzoo.training.schedules import linear
from dropzoo.training.trainer import Trainer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def any_determinism():
    yield
    disable_op_determinism()


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("unknown", [False, True], ids=["counted", "of unknown length"])
def test_executions_change_no_step(unknown):
    data = dataset(110, 12)  # 10 batches, the last one short
    data = data.filter(lambda x, y: True) if unknown else data
    runs = []
    for steps in (1, 4, 50):
        model, seen = plain_model(), []
        see = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs, seen=seen: seen.append(batch),
            on_train_batch_end=lambda batch, logs, seen=seen: seen.append(batch),
        )
        trainer = Trainer(model, keras.optimizers.Adam(0.01), steps_per_execution=steps, deterministic=True)
        history = trainer.fit(data, epochs=2, callbacks=[see], verbose=0).history
        runs.append((history, model, seen))
    for history, model, _ in runs[1:]:
        assert history == runs[0][0]
        for variable, value in zip(model.variables, runs[0][1].variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value.numpy())
    assert runs[1][2] == [0, 3, 4, 7, 8, 9] * 2
    assert runs[2][2] == [0, 9] * (1 if unknown else 2) + [0, 9] * unknown


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("unknown", [False, True])
def test_batches_copied_ahead_to_a_device_train_the_same(unknown):
    def run(device):
        keras.utils.set_random_seed(5)
        model = plain_model()
        trainer = Trainer(model, steps_per_execution=3, prefetch_to=device)
        data = Shuffled().at_epoch(0)
        history = trainer.fit(data.filter(lambda *_: True) if unknown else data, epochs=2, verbose=0)
        return model, history.history

    (model, history), (ahead, ahead_history) = run(None), run("CPU:1")
    for name, values in history.items():  # the graph is placed otherwise, so sums round otherwise
        np.testing.assert_allclose(ahead_history[name], values, rtol=1e-5)
    for variable, value in zip(ahead.variables, model.variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), rtol=1e-4, atol=1e-6)
    images, labels = next(iter(_batches.ahead(Shuffled().at_epoch(0), "CPU:1")))
    assert images.device.endswith("CPU:1") and labels.device.endswith("CPU:1")


def test_an_epoch_does_not_wait_for_its_iterator_to_close():
    may_close, closed = threading.Event(), threading.Event()

    class SlowToClose:
        def __del__(self):
            may_close.wait(10)
            closed.set()

    _batches.discard([SlowToClose()], dataset())
    assert not closed.is_set()
    may_close.set()
    assert closed.wait(10)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("kind", ["plain", "cache in memory", "cache in a file", "part of a file", "snapshot"])
def test_no_epoch_holds_its_iterator_and_one_that_writes_a_file_is_gone_before_the_next(
    kind, tmp_path, monkeypatch
):
    data = {
        "plain": lambda: dataset(64, 8),
        "cache in memory": lambda: dataset(64, 8).cache(),
        "cache in a file": lambda: dataset(64, 8).cache(str(tmp_path / "cache")),
        "part of a file": lambda: dataset(64, 8).cache(str(tmp_path / "cache")).take(4).prefetch(2),
        "snapshot": lambda: dataset(64, 8).snapshot(str(tmp_path / "snapshot")),
    }[kind]()
    seen, aside, discard, real = [], [], _batches.discard, threading.Thread

    def thread(target):
        aside.append(real(target=target))
        return aside[-1]

    def look(box, batches):
        seen.append(weakref.ref(box[0]))
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", thread)
            discard(box, batches)
        assert aside or not box

    monkeypatch.setattr(_batches, "discard", look)
    Trainer(plain_model(), "sgd", steps_per_execution=20).fit(data, validation_data=data, epochs=3, verbose=0)
    for each in aside:
        each.join()
    assert len(seen) == 6 and not any(iterator() for iterator in seen)
    assert len(aside) == (0 if "file" in kind or kind == "snapshot" else 6)


@pytest.mark.parametrize("broken", ["gone", "raises"])
def test_an_epoch_ends_where_tensorflow_renames_what_tells_of_files(broken, monkeypatch):
    """Without the private names every iterator counts as one that writes a file, and is closed at once."""

    def inputs(self):
        raise NotImplementedError("another TensorFlow")

    data = dataset().prefetch(2)
    for kind in type(data).__mro__:
        if "_inputs" in vars(kind):
            if broken == "gone":
                monkeypatch.delattr(kind, "_inputs")
            else:
                monkeypatch.setattr(kind, "_inputs", inputs)
    closed, discard = [], _batches.discard

    def look(box, batches):
        discard(box, batches)
        closed.append(not box)

    monkeypatch.setattr(_batches, "discard", look)
    history = Trainer(linear_model(), "sgd").fit(data, validation_data=data, epochs=2, verbose=0)
    assert history.epoch == [0, 1] and closed == [True] * 4


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("stop", [2, 5])
def test_resumes_between_executions_with_a_schedule_of_rates(tmp_path, stop):
    def run(directory=None, callbacks=()):
        keras.utils.set_random_seed(5)
        plan = {"module1_conv1": "drop_block2d:0.1,block_size=2", "dense1": 0.1}
        model = models.build_model("simple_cnn", input_shape=(8, 8, 1), filters=(4,), dense=8, dropout=plan)
        rates = RateSchedule({"*": linear(0.0, 0.5)})
        trainer = Trainer(model, "adam", deterministic=True, steps_per_execution=3)
        fit = {"checkpoint_dir": directory, "checkpoint_every": 2 if directory else None, "verbose": 0}
        return model, trainer.fit(Shuffled(), epochs=2, callbacks=[rates, *callbacks], **fit)

    whole, whole_history = run(tmp_path / "whole")
    run(tmp_path / "stopped", [StopAt(stop)])
    resumed, history = run(tmp_path / "stopped")
    assert history.history == whole_history.history
    for variable, value in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "options",
    [
        {"clipnorm": 0.01},
        {"global_clipnorm": 0.01},
        {"clipvalue": 0.001},
        {"gradient_accumulation_steps": 3},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        {"weight_decay": 0.1},
    ],
    ids=str,
)
def test_options_of_the_optimizer_do_what_they_do_in_fit(options):
    expected = plain_model()
    expected.compile(keras.optimizers.SGD(0.1, momentum=0.9, **options), LOSS, run_eagerly=True)
    expected.fit(dataset(), epochs=2, shuffle=False, verbose=0)
    model = plain_model()
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, **options)
    Trainer(model, optimizer, LOSS, steps_per_execution=3).fit(dataset(), epochs=2, verbose=0)
    for variable, value in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), atol=1e-5)


def test_auxiliary_losses_weigh_what_they_do_in_fit():
    def model():
        keras.utils.set_random_seed(5)
        inputs = keras.Input((8, 8, 1))
        features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
        auxiliary = keras.layers.Dense(10, name="auxiliary")(features)
        main = keras.layers.Dense(10, name="main", activity_regularizer=keras.regularizers.L2(0.01))
        return keras.Model(inputs, {"main": main(features), "auxiliary": auxiliary})

    data = dataset().map(lambda x, y: (x, {"main": y, "auxiliary": y}))
    losses, weights = {"main": LOSS, "auxiliary": LOSS}, {"main": 1.0, "auxiliary": 0.3}
    expected = model()
    expected.compile(keras.optimizers.SGD(0.1), losses, loss_weights=weights, run_eagerly=True)
    history = expected.fit(data, epochs=2, shuffle=False, verbose=0).history
    found = model()
    trainer = Trainer(found, keras.optimizers.SGD(0.1), losses, [], loss_weights=weights, steps_per_execution=2)
    assert trainer.fit(data, epochs=2, verbose=0).history["loss"] == pytest.approx(history["loss"], rel=1e-5)
    for variable, value in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), atol=1e-5)


def test_the_rule_of_xla_is_kept_by_a_resumed_run(tmp_path, monkeypatch):
    def program(jit_compile, directory=tmp_path):
        trainer = Trainer(linear_model(), jit_compile=jit_compile)
        trainer.fit(dataset(), checkpoint_dir=directory, verbose=0)
        return trainer._program

    assert not program("auto", None).jit_compile
    assert program(True).jit_compile
    assert program("auto").jit_compile
    with pytest.warns(UserWarning, match="jit_compile=True and continues with False"):
        assert not program(False).jit_compile

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    model = dropout_model()
    assert xla_pays(model, None, False)
    assert not xla_pays(model, None, True)
    assert not xla_pays(model, tf.distribute.get_strategy(), False)
    model.layers[1].supports_jit = False
    assert not xla_pays(model, None, False)


def test_r_drop_is_the_formula_of_the_paper():
    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    logits = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    p, q = softmax(logits[:3]), softmax(logits[3:])
    divergence = (p * np.log(p / q)).sum(-1) + (q * np.log(q / p)).sum(-1)
    assert float(r_drop_loss(logits)) == pytest.approx(divergence.mean() / 4, rel=1e-5)
    binary = np.concatenate([logits[..., :1], np.zeros_like(logits[..., :1])], -1)
    assert float(r_drop_loss(logits[..., :1])) == pytest.approx(float(r_drop_loss(binary)), rel=1e-6)


@pytest.mark.costly(keep=0)
def test_r_drop_passes_each_batch_twice_and_draws_them_together():
    def run(alpha, rate):
        keras.utils.set_random_seed(2)
        inputs = keras.Input((8, 8, 1))
        x = layers.Dropout(rate, seed=1)(keras.layers.Flatten()(inputs))
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        history = Trainer(model, keras.optimizers.SGD(0.5), r_drop=alpha, steps_per_execution=2).fit(
            dataset(), epochs=3, verbose=0
        )
        two = [model(digits(48)[0], training=True) for _ in range(2)]
        return history.history["loss"], float(r_drop_loss(tf.concat(two, 0)))

    np.testing.assert_allclose(run(5.0, 0.0)[0], run(0.0, 0.0)[0], rtol=1e-5)  # no dropout: the passes agree
    (losses, distance), (plain_losses, plain_distance) = run(5.0, 0.5), run(0.0, 0.5)
    assert losses[0] > plain_losses[0] and distance < 0.5 * plain_distance


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    Trainer(plain_model()).fit(dataset(), callbacks=[keras.callbacks.TensorBoard(tmp_path)], verbose=0)
    assert list((tmp_path / "train").glob("events*"))


def test_the_best_weights_come_back():
    model = plain_model()
    early = keras.callbacks.EarlyStopping(monitor="loss", mode="max", patience=1, restore_best_weights=True)
    first = []
    remember = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: first.append(model.get_weights()))
    history = Trainer(model, keras.optimizers.Adam(0.01), steps_per_execution=4).fit(
        dataset(), epochs=5, callbacks=[remember, early], verbose=0
    )
    assert history.epoch == [0, 1]
    for value, expected in zip(model.get_weights(), first[0], strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_train_step_of_the_models_own_is_used():
    class Own(keras.Model):
        def train_step(self, data):
            calls.append(1)
            return super().train_step(data)

    calls = []
    inputs = keras.Input((8, 8, 1))
    model = Own(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    history = Trainer(model, "sgd", steps_per_execution=2).fit(dataset(), epochs=2, verbose=0).history
    assert calls and history["loss"][1] < history["loss"][0]
    with pytest.raises(ValueError, match="`r_drop` needs Keras' `train_step`"):
        Trainer(model, r_drop=1.0)


def test_a_loss_that_the_model_tracks_itself_is_left_to_it():
    """As the documentation of Keras' `compute_loss` does it."""

    class Own(keras.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracker = keras.metrics.Mean(name="loss")

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = keras.ops.mean(super().compute_loss(x, y, y_pred, sample_weight))
            self.tracker.update_state(loss)
            return loss

        @property
        def metrics(self):
            return [self.tracker]

    inputs = keras.Input((8, 8, 1))
    model = Own(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    Trainer(model, "sgd").fit(dataset(48, 12), verbose=0)
    assert model.tracker.count == 4  # once a step


def test_what_a_train_step_of_the_models_own_gives_is_what_is_reported():
    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
            )
            return {"loss": loss, "twice": 2 * loss}

    def model():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 1))
        return Own(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs = model()
    theirs.compile("sgd", loss, run_eagerly=True)
    expected = theirs.fit(dataset(), epochs=2, shuffle=False, verbose=0).history
    found = Trainer(model(), "sgd", loss, []).fit(dataset(), epochs=2, verbose=0).history
    assert set(found) == {"loss", "twice"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)
