"""`dropzoo train`: recipes, mixing, deep supervision and logs reach the run; what is given wins over a recipe."""

import pytest

from _cli import run as command
from dropzoo.runs import run
from dropzoo.runs.presets import PRESETS


@pytest.fixture
def asked(monkeypatch):
    """The config and the options with which `train_run` was called."""
    calls = []

    def train_run(config, out, **options):
        calls.append((config, options))
        raise ValueError("seen")

    monkeypatch.setattr(run, "train_run", train_run)
    return calls


def test_a_recipe_sets_what_is_not_given(asked, capsys):
    line = ["train", "lenet5", "--data", "digits", "--recipe", "small", "--epochs", "10", "--augment", "none"]
    status, out, error = command(capsys, *line)
    assert status == 2 and "seen" in error and "Recipe small: learning_rate 0.002" in out
    [(config, _)] = asked
    small = PRESETS["small"]["classification"]
    assert (config.epochs, config.augment) == (10, False)
    assert (config.learning_rate, config.optimizer) == (small["learning_rate"], small["optimizer"])


@pytest.mark.parametrize(
    "options, fields",
    [
        (["--mixup", "0.2", "--cutmix", "1"], {"mixup": 0.2, "cutmix": 1.0, "deep_supervision": False}),
        (["--deep-supervision"], {"deep_supervision": True}),
    ],
)
def test_options_reach_the_config(asked, capsys, options, fields):
    command(capsys, "train", "unet", "--data", "digit_scenes", "--log", "csv, tensorboard", *options)
    [(config, given)] = asked
    assert {name: getattr(config, name) for name in fields} == fields
    assert given["log"] == ("csv", "tensorboard")


@pytest.mark.parametrize(
    "options, words",
    [
        (["--recipe", "smal"], "Did you mean 'small'"),
        (["--log", "csvs"], "Unknown logger 'csvs'. Did you mean 'csv'"),
        (["--mixup", "-1"], "`mixup` must be a number of 0 or more"),
    ],
)
def test_options_that_are_wrong(asked, capsys, options, words):
    status, _, error = command(capsys, "train", "lenet5", "--data", "digits", *options)
    assert status == 2 and words in error and not asked
