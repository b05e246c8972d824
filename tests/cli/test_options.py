"""How options of the command line are read."""

import dataclasses

import pytest
import typer

from _cli import run
from dropzoo.cli import options, parsing
from dropzoo.cli.app import app
from dropzoo.cli.data_options import FolderOptions
from dropzoo.runs.settings import Settings


@pytest.mark.parametrize(
    ("values", "plan"),
    [
        (None, None),
        (["0.3"], 0.3),
        (["paper"], "paper"),
        (["a*=0.5", "b=spatial_dropout2d:0.2"], {"a*": 0.5, "b": "spatial_dropout2d:0.2"}),
        (["a=drop_block2d:0.1,block_size=5", "b=none"], {"a": "drop_block2d:0.1,block_size=5", "b": None}),
    ],
)
def test_parse_dropout(values, plan):
    assert parsing.parse_dropout(values) == plan


@pytest.mark.parametrize(
    ("values", "schedules"),
    [
        (None, None),
        (["0.3"], {"*": 0.3}),
        (["late:0.5,start=0.6"], {"*": "late:0.5,start=0.6"}),
        (
            ["decoder*=linear:0.0,0.3", "head=late:0.5,start=0.6", "skip1=none"],
            {"decoder*": "linear:0.0,0.3", "head": "late:0.5,start=0.6", "skip1": None},
        ),
    ],
)
def test_parse_rate_schedule(values, schedules):
    assert parsing.parse_rate_schedule(values) == schedules


@pytest.mark.parametrize(
    ("value", "augment"),
    [(None, False), ("", False), ("none", False), ("yes", True), ("rotation=15", "rotation=15")],
)
def test_parse_augment(value, augment):
    assert parsing.parse_augment(value) == augment


def test_training_options_are_the_settings_of_a_run():
    """Their names and defaults; the data's name is an option of its own."""
    groups = options.TrainingOptions, FolderOptions
    flags = {field.name: field.default for group in groups for field in dataclasses.fields(group)}
    settings = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert flags == {name: default for name, default in settings.items() if name != "data"}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("sweep", "--spec --variant --schedule --learning-rate-schedule --num-samples --mc --channels --strategy"),
        ("train", "--schedule --learning-rate-schedule --channels --epochs"),
        ("bench", "--batch-size --augment --image-size --data-dir"),
        ("bench-input", "--batch-size --augment --image-size --data-dir"),
    ],
)
def test_groups_of_options_are_flags_with_all_their_names(capsys, monkeypatch, command, flags):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, command, "--help")
    assert status == 0 and all(flag in out for flag in flags.split())


@pytest.mark.parametrize(
    "command", typer.main.get_command(app).commands.values(), ids=lambda command: command.name
)
def test_help_is_whole_in_a_narrow_terminal(capsys, monkeypatch, command):
    """No example is cut, and no paragraph breaks where its docstring does. Second names of flags may be cut."""
    monkeypatch.setenv("COLUMNS", "90")
    status, out, _ = run(capsys, command.name, "--help")
    assert status == 0 and "\n" not in command.help.replace("\n\n", "")
    assert [line for line in out.splitlines() if "…" in line and "--" not in line] == []
