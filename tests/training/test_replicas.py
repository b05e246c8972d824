"""Two replicas, and two workers, against one device: the same run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import _worker
from _trainer_runs import dataset
from dropzoo.training import Trainer, multi_worker_strategy
from dropzoo.training.loop.workers import free_addresses, run_workers

WORKER = Path(__file__).with_name("_worker.py")
LIMIT = 300  # seconds; a run takes some twenty


def start(folder, name, which="one", rate=0.0, directory="-", stop=(), task=None):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(WORKER.parent)}
    environment |= {"TF_CONFIG": json.dumps(task)} if task else {}
    command = [sys.executable, str(WORKER), str(folder / name), which, str(rate), str(directory), *map(str, stop)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers(folder, name, rate=0.0, directory="-", signals=None):
    """Runs two workers, with signals to some of them; what they said and their exit codes."""
    addresses = free_addresses(2)
    started = []
    for index in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        stop = [f"11:{signals[index]}"] if signals and index in signals else []
        started.append(start(folder, f"{name}{index}", "workers", rate, directory, stop, task))
    return ended(*started)


def ended(*processes):
    try:
        return [(process.communicate(timeout=LIMIT)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


def load(path):
    with np.load(f"{path}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def one(folder):
    """The run on one device, in this process."""
    _worker.run(folder / "one")
    return load(folder / "one")


def assert_same(run, other, tolerance):
    for name in sorted(set(run) - {"masks"}):
        np.testing.assert_allclose(run[name], other[name], atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_two_replicas_do_50_steps_of_one_device(folder, one):
    [(error, code)] = ended(start(folder, "mirrored", "mirrored"))
    assert code == 0, error
    assert_same(load(folder / "mirrored"), one, 1e-5)


@pytest.mark.slow
def test_replicas_drop_differently_and_reproducibly_and_still_learn(folder, one):
    runs = ended(
        *(start(folder, f"drop{n}", "mirrored", 0.5) for n in (0, 1)),
        start(folder, "single", "one", 0.5),
        start(folder, "plain"),
    )
    assert [code for _, code in runs] == [0] * 4, runs
    first, second, single = (load(folder / name) for name in ("drop0", "drop1", "single"))
    a, b = first["masks"] != 0
    assert abs((a == b).mean() - 0.5) < 0.08  # 800 draws: 4.5 standard errors
    np.testing.assert_array_equal(first["masks"], second["masks"])
    assert_same(first, second, 0)
    loss, single_loss, without = (run["curves"][0] for run in (first, single, load(folder / "plain")))
    assert np.abs(loss - single_loss).max() > 1e-3  # the masks are others,
    assert abs(loss[-1] - single_loss[-1]) < 0.3 * abs(single_loss[-1] - without[-1])  # their effect is not


@pytest.mark.costly(keep=0)
def test_two_workers_do_50_steps_of_one_device(folder, one):
    runs = workers(folder, "workers")
    assert [code for _, code in runs] == [0, 0], runs
    first, second = (load(folder / f"workers{index}") for index in (0, 1))
    assert_same(first, one, 1e-5)
    assert_same(first, second, 0)
    assert (folder / "workers0.csv").exists() and not (folder / "workers1.csv").exists()


@pytest.mark.slow
def test_a_worker_that_dies_stops_the_other_and_a_restart_goes_on(folder):
    (error, code), (_, killed) = workers(folder, "dead", 0.5, folder / "checkpoints", {1: signal.SIGKILL})
    assert killed == -9 and code == 1
    assert "Another worker is gone" in error and "the run continues from" in error
    assert list((folder / "checkpoints").glob("*.npz"))
    resumed = workers(folder, "resumed", 0.5, folder / "checkpoints")
    whole = workers(folder, "whole", 0.5)
    assert [code for _, code in resumed + whole] == [0] * 4, resumed + whole
    resumed, other, whole = (load(folder / name) for name in ("resumed0", "resumed1", "whole0"))
    assert_same(resumed, whole, 0)
    assert_same(resumed, other, 0)
    assert 0.3 < (resumed["masks"] == other["masks"]).mean() < 0.7


@pytest.mark.slow
def test_a_worker_that_hangs_stops_the_other_in_time(folder):
    addresses = free_addresses(2)
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": n}} for n in (0, 1)]
    first, hung = (
        start(folder, f"hung{n}", "workers", 0.5, folder / "hung", [f"11:{int(signal.SIGSTOP)}"] * n, task)
        for n, task in enumerate(tasks)
    )
    try:
        [(error, code)] = ended(first)
    finally:
        hung.kill()
        hung.communicate()
    assert code == 1 and "Another worker is gone, or did not answer in time" in error
    assert "the run continues from" in error


@pytest.mark.slow
def test_sigterm_on_one_worker_stops_both_at_the_same_step(folder):
    runs = workers(folder, "asked", 0.5, folder / "asked", {1: signal.SIGTERM})
    assert [code for _, code in runs] == [143, 143], runs
    # Two executions an epoch: noted after the first one of the sixth epoch, agreed upon in the second.
    newest = max((folder / "asked").glob("*.npz"))
    assert newest.name == "epoch00005_step0000005.npz"


def test_the_cluster_must_be_named(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="TF_CONFIG must say who takes part"):
        multi_worker_strategy()


def test_workers_of_one_machine_end_together(capfd):
    code = "import json, os, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']; "
    assert run_workers([sys.executable, "-c", code + "print(i)"], 2) == 0
    assert capfd.readouterr().out == "0\n"
    command = [sys.executable, "-c", code + "time.sleep(100 * (1 - i)); sys.exit(3)"]
    assert run_workers(command, 2, grace=0.5) == 3
    assert "A worker ended with status 3" in capfd.readouterr().err


def test_workers_of_one_machine_share_its_cores(capfd, monkeypatch):
    name = "TF_NUM_INTRAOP_THREADS"
    command = [sys.executable, "-c", f"import os; print(os.environ['{name}'])"]
    monkeypatch.setattr("dropzoo.training.loop.workers._cores", lambda: 6)
    monkeypatch.delenv(name, raising=False)
    for count, threads in ((2, "3"), (4, "1"), (8, "1")):
        assert run_workers(command, count) == 0
        assert capfd.readouterr().out == f"{threads}\n"
    monkeypatch.setenv(name, "5")  # what was asked for stays
    assert run_workers(command, 2) == 0
    assert capfd.readouterr().out == "5\n"


def test_a_model_half_under_the_strategy_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    outside = keras.layers.Dense(3)
    outside.build((None, 4))
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), outside])
    with pytest.raises(ValueError, match="only some of its variables"):
        Trainer(model, strategy=strategy)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="`jit_compile` must be False or 'auto' with a strategy"):
        Trainer(model, strategy=strategy, jit_compile=True)


def test_batches_of_fewer_examples_than_replicas(two_devices):
    with two_devices.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    trainer = Trainer(model, strategy=two_devices)
    whole, single = (trainer.evaluate(dataset(5, size)) for size in (5, 2))  # 2, 2 and 1
    assert whole == pytest.approx(single, rel=1e-5)
    with pytest.raises(
        ValueError, match="^A batch of `train` has 1 examples, fewer than the 2 replicas. Leave out"
    ):
        trainer.fit(dataset(5, 2), verbose=0)


@pytest.mark.slow
def test_the_command_line_starts_two_workers(tmp_path, data_dir):
    options = {"--data": "digits", "--data-dir": data_dir, "--limit": 60, "--epochs": 2, "--workers": 2}
    # Batches of 11 leave one of the 144 images of the validation set.
    options |= {"--option": "filters=(4,)", "--dropout": 0.2, "--out": tmp_path / "run", "--batch-size": 11}
    command = [sys.executable, "-m", "dropzoo.cli", "train", "simple_cnn"]
    command += [str(part) for option in options.items() for part in option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("60 training images") == 1 and "Saved in" in done.stdout
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json",
        "checkpoints",
        "history.csv",
        "model.keras",
        "results.json",
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert again.returncode == 0 and "it is finished. There is nothing to train" in again.stdout, again.stderr
