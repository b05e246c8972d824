"""Sweeps that run: the one-trace engine, failures, kills, resumption, folds, halving, Ray."""

import dataclasses
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from dropzoo.cli import app as cli
from dropzoo.runs.files import read_history
from dropzoo.runs.run import train_run
from dropzoo.sweep import store as sweep_file
from dropzoo.sweep import workbench
from dropzoo.sweep.run import Space, run_sweep
from dropzoo.sweep.screen import leaders_table
from dropzoo.sweep.stats import candidates
from dropzoo.training import Trainer

TINY = {
    "models": ["simple_cnn"],
    "data": "digits",
    "options": {"filters": [4], "dense": 8, "normalization": None},
    "limit": 48,
    "batch_size": 16,
    "epochs": 2,
    "learning_rate": 1e-2,
}
SPACE = Space(**TINY, sites=["module?,dense*"], rates=[0.1, 0.5], seeds=[0, 1])
FLAGS = ["simple_cnn", "--data", "digits", "--option", "filters=[4]", "--option", "dense=8", "--limit", "48"]
FLAGS += ["--option", "normalization=None"]
FLAGS += ["--batch-size", "16", "--epochs", "2", "--learning-rate", "1e-2"]
FLAGS += ["--sites", "module?,dense*", "--rate", "0.1", "--rate", "0.5", "--seeds", "2", "--mc", "0"]


def sweep(space, out, **options):
    said = Console(file=io.StringIO(), width=200)
    run_sweep(space, out, mc_samples=0, console=said, **options)
    return said.file.getvalue()


def outcome(folder):
    """The records of a sweep, without the times."""

    def timeless(record):
        outcome = dataclasses.replace(record.outcome, seconds=0.0, seconds_per_epoch=0.0)
        return dataclasses.replace(record, outcome=outcome)

    return [timeless(record) for record in sweep_file.read(folder).of_space()]


def table(folder, width=120):
    out = Console(file=io.StringIO(), width=width)
    out.print(leaders_table(candidates(sweep_file.read(folder).of_space())))
    return out.file.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    said = sweep(SPACE, folder)
    assert "6 trials at most, 0 of them done" in said and "6 of 6 trials. " in said
    return folder


def test_a_narrow_table_is_not_cut(whole):
    letters = ["".join(sorted("".join(table(whole, width).split()).replace("─", ""))) for width in (120, 40)]
    assert letters[0] == letters[1]


@pytest.mark.costly(keep=0)
def test_a_trial_does_not_depend_on_those_before_it():
    options = {"options": {**TINY["options"], "normalization": "batch"}, "schedules": ["constant", "late"]}
    space = Space(**TINY | options, sites=["module?,dense*"], rates=[0.3, 0.5], seeds=[0, 1], augments=[True])
    chosen = [t for t in space.trials() if not t.is_baseline][::2]
    one = workbench.Workbench()
    found = [one.run(trial) for trial in chosen]
    assert one.traced == 1
    for trial, record in list(zip(chosen, found, strict=True))[1:3]:
        alone = workbench.Workbench(reuse=False).run(trial)
        for what in ("curves", "validation", "train", "test"):
            assert getattr(record.outcome, what) == getattr(alone.outcome, what), (trial.axes, what)
    outcomes = [record.outcome for record in found]
    assert len({json.dumps(outcome.curves) for outcome in outcomes}) == len(found)
    for outcome in outcomes:
        bins = {name: np.array(values) for name, values in outcome.reliability.items()}
        ece = np.abs(bins["correct"] - bins["confidence"]).sum() / bins["count"].sum()
        assert ece == pytest.approx(outcome.validation["ece"], rel=1e-5)
        assert bins["count"].sum() == outcome.validation["count"]


@pytest.mark.costly(keep=0)
def test_a_trial_is_the_run_of_dropzoo_train(tmp_path, whole):
    record = outcome(whole)[3]
    config = next(t.config for t in SPACE.trials() if t.key == record.trial.key)
    _, results = train_run(config, tmp_path / "run", say=lambda _: None, verbose=0)
    history = read_history(tmp_path / "run")
    assert history["loss"] == record.outcome.curves["loss"] and config.dropout
    assert results["nll"] == pytest.approx(record.outcome.test["nll"], rel=1e-6)


@pytest.mark.costly(keep=0)
def test_started_again_nothing_is_left_to_do_and_a_larger_space_goes_on(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")
    lines = (folder / "sweep.jsonl").read_text().splitlines()
    assert "6 of them done already" in sweep(SPACE, folder)
    assert (folder / "sweep.jsonl").read_text().splitlines() == lines
    other = dataclasses.replace(SPACE, rates=(0.1, 0.3), seeds=(0,))
    assert "3 trials at most, 2 of them done already" in sweep(other, folder)
    added = [json.loads(line) for line in (folder / "sweep.jsonl").read_text().splitlines()[len(lines) :]]
    assert [set(entry) == {"space"} for entry in added] == [True, False]
    assert len(outcome(folder)) == 3 and len(sweep_file.read(folder).records) == 7


@pytest.mark.slow
def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(tmp_path, whole, monkeypatch):
    class OutOfMemory(Trainer):
        def fit(self, *args, **kwargs):
            rates = {layer.rate for layer in self.model.layers if hasattr(layer, "rate")}
            if rates == {0.5}:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
            return super().fit(*args, **kwargs)

    monkeypatch.setattr("dropzoo.training.Trainer", OutOfMemory)
    said = sweep(SPACE, tmp_path / "out")
    assert said.count("FAILED: ResourceExhaustedError: OOM") == 2 and "2 failed" in said
    found, expected = outcome(tmp_path / "out"), outcome(whole)
    assert [r for r in found if not r.error] == [r for r in expected if r.trial.axes.rate != 0.5]
    assert "failed: ResourceExhaustedError" in (tmp_path / "out" / "report.html").read_text()
    monkeypatch.undo()
    assert "6 of them done" in sweep(SPACE, tmp_path / "out")
    assert "4 of them done" in sweep(SPACE, tmp_path / "out", retry_failed=True)
    assert outcome(tmp_path / "out") == expected


@pytest.mark.costly(keep=0)
def test_a_diverging_trial_is_a_failed_one():
    bench = workbench.Workbench()
    trial = next(t for t in SPACE.trials() if not t.is_baseline)
    wild = dataclasses.replace(trial, config=dataclasses.replace(trial.config, learning_rate=1e30))
    assert "FloatingPointError" in bench.run(wild).error
    assert not bench.run(trial).error


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_as_one_that_was_not(tmp_path, whole):
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "dropzoo.cli", "sweep", *FLAGS, "--out", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.PIPE)
    file, limit = folder / "sweep.jsonl", time.monotonic() + 240
    while not (file.exists() and file.read_bytes().count(b"\n") >= 3) and time.monotonic() < limit:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = file.read_bytes().count(b"\n") - 1
    assert 2 <= done < 6 and not (folder / "report.html").exists()
    torn = file.read_bytes()[:-40]  # as if it had died while it wrote
    file.write_bytes(torn)
    with pytest.warns(UserWarning, match="is incomplete; its trial is left out"):
        assert len(sweep_file.read(folder).records) == done - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is incomplete; its trial is left out")
        assert f"{done - 1} of them done already" in sweep(SPACE, folder)
    assert outcome(folder) == outcome(whole) and table(folder) == table(whole)


@pytest.mark.slow
def test_folds_of_a_small_set(tmp_path):
    space = dataclasses.replace(SPACE, sites=("dense*",), rates=(0.3,), seeds=(0,), folds=3, limit=30)
    sweep(space, tmp_path / "out")
    found = candidates(sweep_file.read(tmp_path / "out").of_space())
    assert [len(c.scored) for c in found] == [3, 3] and {c.folds for c in found} == {3}
    assert {o.validation["count"] for c in found for o in c.outcomes} == {10}


def test_files_and_folders_of_others_are_left_alone(tmp_path, whole):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something that is not a sweep"):
        sweep(SPACE, tmp_path / "notes")
    # The rest without a sweep around it, which would build its models first.
    with pytest.raises(ValueError, match="holds a sweep on 'digits'"):
        sweep_file.SweepFile(whole, dataclasses.replace(SPACE, data="digit_scenes"))
    first = sweep_file.SweepFile(tmp_path / "twice", SPACE)
    with pytest.raises(ValueError, match="Another sweep is writing"):
        sweep_file.SweepFile(tmp_path / "twice", SPACE)
    first.close()
    sweep_file.SweepFile(tmp_path / "twice", SPACE).close()
    (tmp_path / "notes" / "sweep.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match="is not the file of a sweep: line 1"):
        sweep_file.SweepFile(tmp_path / "notes", SPACE)
    assert (tmp_path / "notes" / "sweep.jsonl").read_text() == '{"other": 1}\n'
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):  # the second as a folder that cannot be made
        with pytest.raises((ValueError, OSError)):
            sweep_file.SweepFile(out, SPACE)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.costly(keep=0)
def test_the_commands(tmp_path, capsys, whole):
    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(args))
        out = capsys.readouterr()
        return stop.value.code, out.out + out.err

    folder = shutil.copytree(whole, tmp_path / "copy")
    status, out = run("sweep", *FLAGS, "--out", str(folder))
    assert status == 0 and "6 of them done already" in out and "report.html" in out
    status, out = run("recommend", str(folder))
    assert status == 0 and re.search(r"^dropzoo train simple_cnn --data digits .*--epochs 2 ", out, re.M)
    status, out = run("recommend", str(folder / "sweep.jsonl"), "--by", "acuracy")
    assert status == 2 and "Did you mean 'accuracy'" in out
    status, out = run("recommend", str(tmp_path))
    assert status == 2 and "No such sweep" in out
    status, out = run("sweep", "--help")
    assert status == 0 and "To continue a stopped sweep, repeat the command" in re.sub(r"\s+", " ", out)


@pytest.mark.slow
def test_ray_with_two_workers_finds_the_same(tmp_path, whole):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install '.[ray]'")
    command = [sys.executable, "-m", "dropzoo.cli", "sweep", *FLAGS, "--out", str(tmp_path / "ray")]
    subprocess.run([*command, "--engine", "ray", "--workers", "2"], check=True, timeout=400)
    assert table(tmp_path / "ray") == table(whole)
    for mine, local in zip(outcome(tmp_path / "ray"), outcome(whole), strict=True):
        assert mine == local


def test_without_ray_the_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dropzoo.sweep.ray", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[ray\]'"):
        sweep(SPACE, tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()
