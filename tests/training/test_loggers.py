"""Loggers: what they write, that a resumed run continues it, and that they change nothing."""

import csv
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from _trainer_runs import StopAt, dataset
from dropzoo import layers, models, training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.logs import loggers_of
from dropzoo.training.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, site_logs
from dropzoo.training.trainer import Trainer

SITES = {"rate/flat", "dropped/flat"}  # the layer whose output is dropped


def model():
    keras.utils.set_random_seed(1)
    drop = layers.Dropout(0.3, name="drop")
    flat = keras.layers.Flatten(name="flat")
    return keras.Sequential([keras.Input((8, 8, 1)), flat, drop, keras.layers.Dense(10)])


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.costly(keep=0)
def test_the_csv_has_the_sites_of_each_epoch_and_goes_on_after_a_stop(tmp_path):
    def run(folder, *callbacks, epochs=3):
        net = model()
        rates = training.RateSchedule({"drop": "linear:0.0,0.6"})
        log = CSVLogger(folder / "log.csv", next(iter(dataset()))[0])
        fit = dict(epochs=epochs, callbacks=[rates, log, *callbacks], checkpoint_dir=folder / "c", verbose=0)
        Trainer(net).fit(dataset(), dataset(24), **fit)
        return net.get_weights()

    whole = run(tmp_path / "whole")
    found = rows(tmp_path / "whole/log.csv")
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    assert SITES | {"loss", "val_accuracy"} <= set(found[0])
    for row in found:
        assert float(row["dropped/flat"]) == pytest.approx(float(row["rate/flat"]), abs=0.1)
    assert float(found[2]["rate/flat"]) > float(found[0]["rate/flat"]) + 0.2

    run(tmp_path / "stopped", StopAt(6))  # within the second epoch
    for one, other in zip(run(tmp_path / "stopped"), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert rows(tmp_path / "stopped/log.csv") == found


def test_a_log_changes_nothing(tmp_path):
    ends = []
    for callbacks in ([], [CSVLogger(tmp_path / "log.csv")]):
        net = model()
        Trainer(net).fit(dataset(), epochs=2, callbacks=callbacks, verbose=0)
        ends.append(net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.drop, self.out = layers.Dropout(0.25), keras.layers.Dense(2)

    def call(self, x):
        return self.out(self.drop(x))


def test_sites_of_any_model():
    unet = models.build_model("unet", depth=2, filters=2, dropout={"skip*": 0.5})
    deep = site_logs(training.DeepSupervision(unet), np.ones((16, 12, 12, 1), "float32"))
    assert deep == site_logs(unet, np.ones((8, 12, 12, 1), "float32"))
    assert {name for name in deep} == {f"{kind}/skip{n}" for kind in ("rate", "dropped") for n in (1, 2)}
    assert site_logs(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])) == {}
    net = Subclassed()
    net(np.ones((2, 3)))
    assert list(site_logs(net).values()) == [0.25]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    net = model()
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    net.fit(dataset(), epochs=2, shuffle=False, callbacks=[TensorBoardLogger(tmp_path)], verbose=0)
    [file] = (tmp_path / "train").glob("events*")
    events = [v for event in tf.compat.v1.train.summary_iterator(str(file)) for v in event.summary.value]
    assert {f"epoch_{name}" for name in (*SITES, "loss")} <= {value.tag for value in events}


class FakeMLflow(types.ModuleType):
    """The functions of MLflow that the logger calls, with the runs that they made."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.active, self.ends = {}, None, []
        self.exceptions = types.SimpleNamespace(MlflowException=LookupError)

    def active_run(self):
        return self.active

    def start_run(self, run_id=None, run_name=None):
        if run_id is not None and run_id not in self.runs:
            raise LookupError(run_id)
        run_id = run_id or f"run{len(self.runs)}"
        self.active = types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
        self.runs.setdefault(run_id, {"name": run_name, "params": {}, "metrics": []})
        return self.active

    def end_run(self, status="FINISHED"):
        self.ends.append(status)
        self.active = None

    def log_params(self, params):
        known = self.runs[self.active.info.run_id]["params"]
        if any(known.get(name, value) != value for name, value in params.items()):
            raise LookupError("Changing param values is not allowed")
        self.runs[self.active.info.run_id]["params"] |= params

    def log_metrics(self, metrics, step):
        self.runs[self.active.info.run_id]["metrics"].append((step, metrics))


def test_mlflow(tmp_path, monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for epochs in (1, 3):
        log = MLflowLogger({"rate": 0.3}, name="mine", id_file=tmp_path / "id.txt")
        Trainer(model()).fit(dataset(), epochs=epochs, callbacks=[log], checkpoint_dir=tmp_path / "c", verbose=0)
    assert list(fake.runs) == ["run0"] and fake.active is None
    run = fake.runs["run0"]
    assert (run["name"], run["params"]) == ("mine", {"rate": "0.3"})
    assert [step for step, _ in run["metrics"]] == [0, 1, 2] and SITES <= set(run["metrics"][0][1])
    fake.start_run()  # the user's own run
    Trainer(model()).fit(dataset(), callbacks=[MLflowLogger()], verbose=0)
    assert fake.active is not None and len(fake.runs["run1"]["metrics"]) == 1


def test_mlflow_runs_that_are_active_unknown_or_left_open(tmp_path, monkeypatch):
    fake, file = FakeMLflow(), tmp_path / "id.txt"
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    file.write_text("deleted", encoding="utf-8")
    first = MLflowLogger({"rate": 0.3}, id_file=file)
    first.on_train_begin()  # and fails before its end
    assert file.read_text(encoding="utf-8") == "run0" and fake.runs["run0"]["params"] == {"rate": "0.3"}
    second = MLflowLogger({"rate": 0.5})
    second.on_train_begin()
    assert fake.active.info.run_id == "run1" and fake.ends == ["FAILED"]
    second.on_train_end()
    fake.start_run()  # the user's own run
    mine = MLflowLogger({"rate": 0.7}, id_file=file)
    mine.on_train_begin()
    mine.on_train_end()
    assert fake.active.info.run_id == file.read_text(encoding="utf-8") == "run2"
    assert fake.runs["run2"]["params"] == {"rate": "0.7"} and fake.ends == ["FAILED", "FINISHED"]
    MLflowLogger({"rate": 0.9}).on_train_begin()  # a second training in it, with other settings
    assert fake.runs["run2"]["params"] == {"rate": "0.7"}


def test_an_epoch_that_was_stopped_is_no_point(tmp_path, monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for stop in ([StopAt(6)], []):  # within the second epoch
        log = MLflowLogger(id_file=tmp_path / "id.txt")
        fit = dict(epochs=2, callbacks=[log, *stop], checkpoint_dir=tmp_path / "c", verbose=0)
        Trainer(model()).fit(dataset(), **fit)
        steps = [step for step, _ in fake.runs["run0"]["metrics"]]
        assert steps == ([0] if stop else [0, 1])


@pytest.mark.costly(keep=0)
def test_the_loggers_of_a_run_measure_on_crops(tmp_path):
    config = RunConfig(model="unet", data="digit_scenes", augment="crop=16", limit=20, options={"filters": 2})
    found = config.load_data()
    [log] = loggers_of(["csv"], tmp_path, config, found, config.build(found.info))
    assert log._images.shape == (8, 16, 16, 1)


@pytest.mark.parametrize("make", [MLflowLogger, lambda: TensorBoardLogger("logs")])
def test_a_missing_package(make, monkeypatch):
    for package in ("mlflow", "tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install '\.\[track\]'"):
        make()
