"""The command line: every kind of bad input is one line, and what every command has in common."""

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import pytest
import typer
from PIL import Image

from _cli import run
from dropzoo import serving, training
from dropzoo.cli import app as cli
from dropzoo.cli.errors import options_in_errors


def bad_inputs(tmp: Path, cnn: Path) -> dict[str, tuple[list[str], str]]:
    # A few images on the disk: most of the time goes into loading them.
    train = ["train", "simple_cnn", "--data", str(tmp / "letters"), "--epochs", "1", "--out", str(tmp / "out")]
    (tmp / "full").mkdir()
    (tmp / "full" / "thesis.txt").write_text("mine")
    (tmp / "empty").mkdir()
    (tmp / "model").mkdir()
    (tmp / "model" / "model.keras").write_bytes(b"")
    for name in "abcdefghij":
        (tmp / "letters" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8)).save(tmp / "letters" / name / f"{i}.png")
    for name in ("images", "masks"):
        (tmp / "cells" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), i % 2).save(tmp / "cells" / name / f"{i}.png")
    (tmp / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("RGBA", (8, 8)).save(tmp / "fine.png")
    return {
        "model": (
            ["train", "simpel_cnn", *train[2:]],
            "Did you mean 'simple_cnn'",
        ),
        "data": (["train", "simple_cnn", "--data", "digit", "--out", str(tmp / "out")], "Did you mean 'digits'"),
        "plan": ([*train, "--dropout", "hed"], "Did you mean 'head'"),
        "site": ([*train, "--dropout", "modul1=0.2"], "Did you mean 'module1'"),
        "layer": ([*train, "--dropout", "head=dropot:0.2"], "Did you mean 'dropout'"),
        "rate": ([*train, "--dropout", "1.2"], "rate=1.2"),
        "mixed": ([*train, "--dropout", "0.2", "--dropout", "head=0.3"], 'each must be "pattern=spec"'),
        "no spec": ([*train, "--dropout", "head="], "--dropout must be \"pattern=spec\". Received: 'head='"),
        "rate for a file": (
            ["sites", str(cnn / "model.keras"), "--dropout", "0.5"],
            'For a model in a file, --dropout must be "PLACE=SPEC"',
        ),
        "parts of a plan": (
            ["sweep", *train[1:], "--plan", "a;b"],
            'If --plan has several parts, each must be "pattern=spec"',
        ),
        "size": ([*train, "--image-size", "abc"], "Received: 'abc'. See: dropzoo train --help"),
        "nothing to calibrate": (
            ["calibrate", str(tmp / "nowhere")],
            "Expected a run's folder or a .keras file",
        ),
        "rate pattern": (
            [*train, "--dropout", "head=0", "--rate-schedule", "hed=0.1"],
            "Unknown dropout site 'hed'. Did you mean 'head'",
        ),
        "rate without dropout": ([*train, "--rate-schedule", "head=linear:0,0.3"], "no dropout layer"),
        "rate schedule": ([*train, "--rate-schedule", "head=liner:0,0.3"], "Did you mean 'linear'"),
        "rate arguments": ([*train, "--rate-schedule", "head=linear:0"], "missing 1 required"),
        "rate form": ([*train, "--rate-schedule", "head=linear:0,,"], 'Expected "name:value,option=value"'),
        "rates": ([*train, "--rate-schedule", "head=late:1.5"], "rate=1.5"),
        "rates mixed": (
            [*train, "--rate-schedule", "0.2", "--rate-schedule", "head=0.3"],
            'each must be "pattern=schedule"',
        ),
        "option": ([*train, "--option", "filtrs=3"], "Did you mean 'filters'"),
        "option form": ([*train, "--option", "filters"], '"name=value"'),
        "schedule": ([*train, "--schedule", "linear"], "schedule='linear'"),
        "task": (["train", "unet", *train[2:]], "is a data set for classification"),
        "classes": ([*train, "--option", "num_classes=3"], "has 10 classes. Received: a model with 3 classes"),
        "channels": ([*train, "--option", "input_shape=(8, 8, 3)"], "but the model takes (8, 8, 3)"),
        "folder": (["train", "unet", "--data", str(tmp / "nowhere"), "--out", str(tmp / "out")], "nowhere"),
        "empty folder": (["train", "unet", "--data", str(tmp / "empty"), "--out", str(tmp / "out")], "empty"),
        "occupied": (
            ["train", "simple_cnn", "--data", "digits", "--out", str(tmp / "full")],
            "something that is not a run",
        ),
        "occupied demo": (["demo", "--out", str(tmp / "full")], "something that is not a demo"),
        "run": (["evaluate", str(tmp / "full")], "holds no finished run"),
        "a model's folder": (["export", str(tmp / "model"), str(tmp / "out")], "but a model. Pass its file"),
        "no keras file": (
            ["evaluate", str(tmp / "full"), "--data", "digits"],
            "Expected a .keras file, or a folder",
        ),
        "no data": (["evaluate", str(cnn / "model.keras")], "To use a model's file, pass data too: --data DATA"),
        "data of archives": (["evaluate", str(cnn), "--manual-dir", str(tmp)], "Pass --data too"),
        "other task": (["evaluate", str(cnn), "--data", str(tmp / "cells")], "is a data set for segmentation"),
        "other classes": (
            ["evaluate", str(cnn), "--data", str(tmp / "letters")],
            "The data in 'letters' differ from the data that",
        ),
        "engine": (["serve", str(tmp), "--engine", "rays"], "Did you mean 'ray'"),
        "replicas": (["serve", str(tmp), "--replicas", "2"], "are for --engine ray"),
        "no samples": (["evaluate", str(cnn), "--ood", "digit_scenes"], "Pass --mc 30 too"),
        "own data": (
            ["evaluate", str(cnn), "--mc", "2", "--ood", "digits"],
            "a different data set from that of the run",
        ),
        "corruption": (["evaluate", str(cnn), "--corruptions", "blurr"], "Did you mean 'blur'"),
        "image": (["predict", str(tmp / "broken.png"), "--model", str(cnn)], "broken.png"),
        "no image": (["predict", str(tmp / "none.png"), "--model", str(cnn)], "none.png"),
        "no model": (["predict", str(tmp / "fine.png"), "--model", str(tmp / "full")], "Expected a run's folder"),
        "list": (["list", "modles"], "Did you mean 'models'"),
        "command": (["trian"], "trian"),
        "argument": (["train", "simple_cnn"], "--data"),
        "samples": (["predict", "x.png", "--model", "y", "--num-samples", "0"], "num-samples"),
    }


def test_bad_input_is_one_line_and_status_2(tmp_path, cnn_run, capsys, monkeypatch):
    load, loaded = training.load_data, {}

    def load_once(name, **options):
        key = name, repr(sorted(options.items()))
        if key not in loaded:
            loaded[key] = load(name, **options)
        return loaded[key]

    monkeypatch.setattr(training, "load_data", load_once)  # the same digits each time
    for name, (args, message) in bad_inputs(tmp_path, cnn_run).items():
        status, _, err = run(capsys, *args)
        text = " ".join(err.split())
        assert status == 2 and message in text and "Traceback" not in text, (name, status, text)
        assert not (tmp_path / "out").exists(), name
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_wrong_option_is_reported_on_one_line_with_debug_too(capsys):
    status, _, err = run(capsys, "--debug", "list", "models", "--nope")
    assert status == 2 and err.count("\n") == 1 and "No such option: --nope" in err


def test_debug_shows_the_traceback():
    command = [sys.executable, "-m", "dropzoo.cli", "--debug", "sites", "unett"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_the_number_of_samples_has_two_flags_everywhere():
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    found = {}
    for name, command in commands.items():
        for parameter in command.params:
            if {"--mc", "--num-samples"} & set(parameter.opts):
                found[name] = (parameter.name, set(parameter.opts))
    assert found == dict.fromkeys(
        ("evaluate", "calibrate", "sweep", "predict", "measure", "export"),
        ("num_samples", {"--mc", "--num-samples"}),
    )


def test_every_help_shows_an_example_that_parses():
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    names = (
        "list sites plot retrofit inspect train evaluate calibrate sweep recommend predict measure export serve"
    )
    assert set(commands) == {*names.split(), "bench", "bench-input", "demo", "doctor"}
    for name, command in commands.items():
        examples = re.findall(r"Example: dropzoo (.*)", command.help)
        assert examples, name
        for example in examples:
            first, *rest = shlex.split(example)
            assert first == name
            command.make_context(name, rest)


@pytest.mark.filterwarnings("always")
def test_a_warning_is_printed_once(monkeypatch, capsys):
    def command(args, **_):
        for text in ("the images leak", "the images leak", "something else"):
            warnings.warn(text, stacklevel=1)

    monkeypatch.setattr(cli, "app", command)
    for _ in range(2):  # each command says it again
        status, _, error = run(capsys, "calibrate")
        assert status == 0 and error.count("the images leak") == error.count("something else") == 1


def test_former_options_are_warned_of(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(cli, "app", lambda args, **_: seen.append(args))
    status, _, error = run(capsys, "predict", "a.png", "--calibration")
    assert status == 0 and seen == [["predict", "a.png"]]
    assert "--calibration will be refused" in error and "unless you pass --no-calibration" in error


def test_errors_about_dropout_name_the_options():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Leave out --mc.*dropzoo retrofit"), options_in_errors():
        serving.MonteCarlo(model, 2, from_logits=True)
