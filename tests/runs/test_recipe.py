"""The recipe of a run: optimizers, schedules, warm-up, averages, patience; and that all of it resumes exactly."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import training
from dropzoo.runs.config import RunConfig, class_weights
from dropzoo.runs.recipe import OPTIMIZERS, SCHEDULES, Patience, WarmUp, is_exhausted, learning_rate, optimizer
from dropzoo.training.data.augment import make_augment
from dropzoo.training.data.dataset import DataInfo
from dropzoo.training.data.pipeline import Split, training_batches
from dropzoo.training.loop.checkpoints import read_history, restore_best

STEPS = 4


def batches() -> tf.data.Dataset:
    x = np.random.default_rng(0).normal(size=(STEPS * 8, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, (x.sum(1) > 0).astype("int32"))).batch(8)


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        self.model.stop_training = self.done >= self.step


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warm_up", [0, 3])
def test_learning_rates(schedule, warm_up):
    rate = learning_rate(0.1, schedule, 20, warm_up)
    rates = [float(rate(step)) if callable(rate) else rate for step in range(20)]
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert rates[-1] == pytest.approx(0.1) if schedule == "constant" else rates[-1] < 0.02
    if warm_up:
        assert rates[0] < rates[1] < rates[2]
    if callable(rate):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
        assert [float(again(step)) for step in range(20)] == rates
    assert isinstance(rate, WarmUp) == bool(warm_up)


@pytest.mark.parametrize(
    "spec, match",
    [("adan", "Did you mean 'adam'"), ("sgd:momentun=1", "Cannot make the optimizer"), ("sgd:0.9", "need names")],
)
def test_optimizers_that_are_wrong(spec, match):
    with pytest.raises(ValueError, match=match):
        optimizer(spec, 0.1)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"schedule": "linear"}, "cosine"),
        ({"warmup": 10.0}, "less than the number of epochs"),
        ({"ema": 1.0}, r"in \[0, 1\)"),
        ({"clip_norm": 0}, "positive"),
        ({"patience": 0}, "positive"),
        ({"precision": "float16"}, "mixed_float16"),
        ({"balance": "yes"}, "sampling"),
    ],
)
def test_settings_that_are_wrong(options, match):
    with pytest.raises(ValueError, match=match):
        RunConfig.from_json({"model": "simple_cnn", "data": "digits", **options})


RECIPES = {
    "adamw": ("adamw:weight_decay=0.1", "cosine", 2, 1.0, 0.9),
    "sgd": ("sgd:momentum=0.9,nesterov=True", "one_cycle", 0, None, None),
    "lion": ("lion", "polynomial", 3, None, 0.5),
    "adam": ("adam", "constant", 2, 0.5, None),
}


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resumes_exactly(tmp_path, name):
    spec, schedule, warm_up, clip, ema = RECIPES[name]

    def run(folder, callbacks=()):
        rate = learning_rate(0.01, schedule, 3 * STEPS, warm_up)
        net = model()
        trainer = training.Trainer(net, optimizer(spec, rate, clip, ema))
        trainer.fit(batches(), epochs=3, callbacks=list(callbacks), checkpoint_dir=folder, verbose=0)
        return [variable.numpy() for variable in (*net.variables, *net.optimizer.variables)]

    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped", [StopAt(STEPS + 2)])
    for found, expected in zip(run(tmp_path / "stopped"), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(OPTIMIZERS) == {spec.partition(":")[0] for spec, *_ in RECIPES.values()}


@pytest.mark.parametrize(
    "losses, patience, ended",
    [([3, 2, 1], 2, False), ([1, 2, 2], 2, True), ([1, 2], 2, False), ([2, 1, 1], 1, True), ([], 1, False)],
)
def test_patience_is_a_function_of_the_history(losses, patience, ended):
    assert is_exhausted(losses, patience) is ended


@pytest.mark.costly(keep=0)
def test_patience_stops_where_it_would_without_a_resume_and_the_best_epoch_is_kept(tmp_path):
    worse = batches().map(lambda x, y: (x, 1 - y))  # the loss on these grows as the other falls

    def run(folder, epochs=9):
        net = model()
        trainer = training.Trainer(net, keras.optimizers.SGD(0.1))
        trainer.fit(batches(), worse, epochs=epochs, callbacks=[Patience(2)], checkpoint_dir=folder, verbose=0)
        return net, len(read_history(folder)["val_loss"])

    net, epochs = run(tmp_path / "whole")
    assert epochs == 3
    run(tmp_path / "two", epochs=2)
    assert run(tmp_path / "two")[1] == epochs
    assert restore_best(tmp_path / "whole", net) == 1
    first, _ = run(tmp_path / "first", epochs=1)
    for found, expected in zip(net.weights, first.weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_class_weights_are_by_median_frequency():
    labels = np.array([0] * 8 + [1] * 4 + [2] * 2 + [255] * 5, "int32")

    class Batches:
        def as_stored(self):
            return [(None, tf.constant(labels[:10])), (None, tf.constant(labels[10:]))]

    info = DataInfo("made", "segmentation", 4, ("a", "b", "c", "d"), (1, 1, 1), 0, 0, 0, ignore_class=255)
    assert class_weights(Batches(), info) == pytest.approx({0: 0.5, 1: 1, 2: 2, 3: 1})


def test_files_of_older_runs_are_read():
    config = RunConfig.from_json({"model": "simple_cnn", "data": "digits", "schedule": "constant"})
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert (config.optimizer, config.ignore_class, config.cache) == ("adam", None, "auto")


def small_unet() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, padding="same", name="decoder1_conv1")(keras.layers.MaxPooling2D()(inputs))
    x = keras.layers.Conv2D(2, 3, padding="same", name="decoder2_conv1")(keras.layers.UpSampling2D()(x))
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(x))


def small_cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])


def images(masks: bool, augment: str, balance: bool) -> tf.data.Dataset:
    x = np.random.default_rng(0).random((STEPS * 4, 10, 10, 1)).astype("float32")
    y = (x[..., 0] > 0.6).astype("int32") if masks else (np.arange(len(x)) % 4 == 0).astype("int32")
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    return training_batches(Split(rows, len(x), in_memory=True), 4, make_augment(augment), 5, balance)


CHANGES = "crop=8,flip_horizontal,rotation=20,scale=0.1,elastic=1,gamma=0.3,noise=0.05,blur=0.5"
MORE = {
    "masks": (
        lambda: training.DeepSupervision(small_unet()),
        images(True, f"{CHANGES},foreground=0.5", False),
        {},
    ),
    "labels": (small_cnn, images(False, CHANGES, True), {"mixup": 0.2, "cutmix": 1.0, "r_drop": 0.5}),
}


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("name", MORE)
def test_mixing_windows_and_deep_supervision_resume_exactly(tmp_path, name):
    make, data, options = MORE[name]

    def run(folder, callbacks=()):
        trainer = training.Trainer(make(), optimizer("adamw", 0.01, ema=0.9), **options)
        fit = {"class_weight": {0: 0.5}, "checkpoint_dir": folder, "verbose": 0}
        trainer.fit(data, epochs=3, callbacks=list(callbacks), **fit)
        net = trainer.model
        return [variable.numpy() for variable in (*net.variables, *net.optimizer.variables)]

    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped", [StopAt(STEPS + 2)])
    for found, expected in zip(run(tmp_path / "stopped"), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_file_of_a_model_under_deep_supervision_loads_without_a_warning(tmp_path):
    info = training.DataInfo("set", "segmentation", 2, ("a", "b"), (8, 8, 1), 8, 2, 2)
    model = small_unet()
    config = RunConfig(model="unet", data="set", deep_supervision=True, epochs=1, optimizer="adamw", ema=0.9)
    config.trainer(model, info)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss is not None
    assert isinstance(loaded.optimizer, keras.optimizers.AdamW) and not loaded.optimizer.use_ema
    images, masks = np.zeros((2, *loaded.input_shape[1:])), np.zeros((2, *loaded.input_shape[1:3], 1), int)
    results = loaded.evaluate(images, masks, verbose=0, return_dict=True)
    assert {"loss", "accuracy", "mean_iou"} <= results.keys()
