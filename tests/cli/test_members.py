"""Ensembles from end to end: `train --members`, then calibrate, evaluate and export."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from _cli import TINY, run
from dropzoo import serving
from dropzoo.cli import app as cli
from dropzoo.runs.members import load_members, parse_members

OPTIONS = ["--data", "digits", "--dropout", "dense1=0.2", *TINY]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "two"
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "simple_cnn", *OPTIONS, "--members", "2", "--seed", "5", "--out", str(out)])
    assert stop.value.code == 0
    return out


def test_members_differ_in_their_seed_and_share_the_data(ensemble):
    configs = [json.loads((ensemble / f"member{i}" / "run.json").read_text())["config"] for i in (1, 2)]
    assert [each["seed"] for each in configs] == [5, 6] and [each["data_seed"] for each in configs] == [5, 5]
    one, two = (each.get_weights()[0] for each in load_members(ensemble))
    assert not np.allclose(one, two)
    assert json.loads((ensemble / "results.json").read_text())["count"] > 0
    assert json.loads((ensemble / "ensemble.json").read_text())["members"] == 2


def test_it_is_calibrated_evaluated_and_exported(ensemble, capsys, tmp_path):
    status, out, error = run(capsys, "calibrate", str(ensemble), "--guarantee", "set=0.1")
    assert status == 0 and "samples, with temperature" in out, error
    cal = serving.Calibration.load(ensemble / "calibration.json")
    assert cal.facts.members == 2
    status, out, error = run(capsys, "evaluate", str(ensemble), "--temperature")
    assert status == 0, error
    heads = "".join(out.splitlines()[1:4])
    assert heads.count("deterministic") == heads.count("ensemble of 2") == 2 and heads.count("T = ") == 2
    assert "Promises, measured on test images" in out and "classes in a set" in out
    status, out, error = run(capsys, "export", str(ensemble), str(tmp_path / "served"))
    assert status == 0 and "always uses the calibration" in out, error
    loaded = tf.saved_model.load(str(tmp_path / "served" / "1"))
    x = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
    served = loaded.signatures["predict_mc"](images=tf.constant(x))
    expected = serving.Ensemble(load_members(ensemble), calibration=cal)(x)
    assert all(np.allclose(served[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize("options", [[], ["--mc", "4"]])
def test_foreign_images_and_examples_are_judged_by_all_members(options, ensemble, capsys, tmp_path):
    """Also without `--mc`: members disagree without dropout too."""
    for i in range(3):
        Image.fromarray(np.full((8, 8), 40 * i, "uint8")).save(tmp_path / f"{i}.png")
        (tmp_path / "foreign" / f"class{i}").mkdir(parents=True)
        for j in range(8):
            shutil.copy(tmp_path / f"{i}.png", tmp_path / "foreign" / f"class{i}" / f"{j}.png")
    plots = tmp_path / "plots"
    command = [
        "evaluate",
        str(ensemble),
        "--no-calibration",
        "--ood",
        str(tmp_path / "foreign"),
        "--plots",
        str(plots),
    ]
    status, text, error = run(capsys, *command, *options)
    title = "mutual information, ensemble of 2" + (", 4 samples" if options else "")
    assert status == 0 and title in text and "mutual information, Monte Carlo" not in text, error
    assert {"least_certain.png", "most_certain.png"} <= {path.name for path in plots.iterdir()}


def test_dropout_within_the_members(ensemble, capsys, tmp_path):
    """`--mc` turns it on, in each command; the calibration then says so."""
    out = tmp_path / "two"
    shutil.copytree(ensemble, out)
    status, text, error = run(capsys, "evaluate", str(out), "--mc", "4", "--no-calibration")
    heads = " ".join("".join(text.splitlines()[1:4]).split())
    assert status == 0 and "Monte Carlo" in heads and heads.count("ensemble of 2") == 2, error
    (out / "calibration.json").unlink(missing_ok=True)
    status, _, error = run(capsys, "calibrate", str(out), "--mc", "4")
    assert status == 0, error
    facts = serving.Calibration.load(out / "calibration.json").facts
    assert (facts.members, facts.num_samples, facts.sampling) == (2, 4, "balanced")
    Image.fromarray(np.full((8, 8), 90, "uint8")).save(tmp_path / "a.png")
    predict = ["predict", str(tmp_path / "a.png"), "--model", str(out), "--table", str(tmp_path / "a.json")]
    status, _, error = run(capsys, *predict)
    assert status == 0, error
    for options, message in (
        (["--mc", "6"], "The calibration was made for 4 samples. Leave --num-samples out, pass --no-calibration"),
        (["--mc", "5", "--no-calibration"], "number of members, which is 2, .* pass 4 or 6"),
    ):
        status, _, error = run(capsys, *predict, "--overwrite", *options)
        assert status == 2 and re.search(message, " ".join(error.split())), error
    x = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
    for options in ([], ["--no-calibration", "--mc", "6"]):
        status, _, error = run(capsys, "export", str(out), str(tmp_path / "served"), *options)
        assert status == 0, error
        path = max((tmp_path / "served").iterdir())
        served = tf.saved_model.load(str(path)).signatures["predict_mc"](images=tf.constant(x))
        cal = None if options else serving.Calibration.load(out / "calibration.json")
        said = {"num_samples": 6, "sampling": "fixed"} if options else {}
        expected = serving.Ensemble(load_members(out), calibration=cal, **said)(x)
        assert all(np.allclose(served[name], expected[name], atol=1e-6) for name in expected)
        info = json.loads((path / "assets.extra" / "info.json").read_text())
        assert (info["members"], info["num_samples"]) == (2, 6 if options else 4)


@pytest.mark.costly(keep=0)
def test_a_stopped_training_goes_on(ensemble, capsys, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(ensemble, out)
    before = (out / "member1" / "model.keras").stat().st_mtime_ns
    shutil.rmtree(out / "member2")
    with pytest.raises(ValueError, match="has members that are not trained yet: member2"):
        load_members(out)
    command = ["train", "simple_cnn", *OPTIONS, "--out", str(out), "--members"]
    status, text, error = run(capsys, *command, "2", "--seed", "5")
    assert status == 0 and len(load_members(out)) == 2 and "Member 2 of 2" in text, error
    assert (out / "member1" / "model.keras").stat().st_mtime_ns == before
    status, _, error = run(capsys, *command, "2", "--seed", "6")
    assert status == 2 and "seed: 5 -> 6" in error
    record = json.loads((out / "ensemble.json").read_text())
    (out / "ensemble.json").write_text(json.dumps(record | {"members": 3}))
    status, _, error = run(capsys, *command, "2", "--seed", "5")
    assert status == 2 and "members: 3 -> 2" in error


@pytest.mark.costly(keep=0)
def test_snapshots_of_one_run(capsys, tmp_path):
    out = tmp_path / "one"
    options = [*OPTIONS, "--members", "snapshots:2", "--out", str(out)]
    status, _, error = run(capsys, "train", "simple_cnn", *options)  # one epoch
    assert status == 2 and "divisible by 2" in error and not out.exists()
    status, text, error = run(capsys, "train", "simple_cnn", *options, "--epochs", "2")
    assert status == 0 and "last snapshot" in text and "ensemble of 2" in text, error
    one, two = load_members(out)
    last = keras.models.load_model(out / "model.keras")
    assert not np.allclose(one.get_weights()[0], two.get_weights()[0])
    assert np.array_equal(two.get_weights()[0], last.get_weights()[0])


@pytest.mark.parametrize(
    "text", ["1", "0", "-2", "five", "snapshots:1", "snapshots", "folds:5", "snapshots:", "2.5"]
)
def test_bad_members(text):
    with pytest.raises(ValueError, match="--members must be a number of runs, at least 2"):
        parse_members(text)
    assert (
        parse_members(None) == (0, 0) and parse_members("5") == (5, 0) and parse_members("snapshots:3") == (0, 3)
    )


def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "note.txt").touch()
    status, _, error = run(capsys, "train", "simple_cnn", *OPTIONS, "--members", "2", "--out", str(tmp_path))
    assert status == 2 and "not an ensemble" in error and [p.name for p in tmp_path.iterdir()] == ["note.txt"]
