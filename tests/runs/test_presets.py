"""Recipes by name and in full, for a run and as an axis of a sweep."""

import pytest

from dropzoo.models import list_models
from dropzoo.runs.config import RunConfig
from dropzoo.runs.presets import FIELDS, PRESETS, recipe_of, task_of
from dropzoo.sweep.advice import train_command
from dropzoo.sweep.run import run_sweep
from dropzoo.sweep.space import Space

SPACE = dict(data="digits", sites=["head"], rates=[0.1], seeds=[0], epochs=4)


def test_every_model_has_a_task():
    masks = {name for name in list_models() if task_of(name) == "segmentation"}
    assert {"unet", "res_unet", "segnet", "unet_plus_plus"} <= masks and not {"lenet5", "resnet20"} & masks


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("model", ["simple_cnn", "unet"])
def test_every_preset_is_a_config(name, model):
    found = recipe_of(name, model)
    assert set(found) <= set(FIELDS) and RunConfig(model=model, data="digits", **found).epochs >= 30


@pytest.mark.parametrize(
    "spec, expected",
    [
        (
            "optimizer=sgd:momentum=0.9,nesterov=True; learning-rate=0.1",
            {"optimizer": "sgd:momentum=0.9,nesterov=True"},
        ),
        ("schedule=constant;mixup=0.2;", {"learning_rate_schedule": "constant", "mixup": 0.2}),
        ({"deep_supervision": True}, {"deep_supervision": True}),
        ("augment=rotation=9,crop=6x8", {"augment": "rotation=9,crop=6x8"}),
        ("augment=yes; deep-supervision=false", {"augment": True, "deep_supervision": False}),
        ("augment=none; deep_supervision=Yes", {"augment": False, "deep_supervision": True}),
        ("augment=None; ema=none; clip_norm=none", {"augment": False, "ema": None, "clip_norm": None}),
        ({"augment": "no", "deep_supervision": "true"}, {"augment": False, "deep_supervision": True}),
    ],
)
def test_recipes_in_full(spec, expected):
    found = recipe_of(spec, "unet")
    assert expected.items() <= found.items()
    RunConfig(model="unet", data="digits", **found)


@pytest.mark.parametrize(
    "spec, match",
    [
        ("smal", "Unknown recipe 'smal'. Did you mean 'small'"),
        ("optimiser=sgd", "Did you mean 'optimizer'"),
        ("mixup=0.2; sgd", "settings such as"),
        ("seed=1", "Unknown setting of a recipe"),
    ],
)
def test_recipes_that_are_wrong(spec, match):
    with pytest.raises(ValueError, match=match):
        recipe_of(spec, "unet")


def test_recipes_are_an_axis():
    space = Space(
        models=["simple_cnn"], recipes=["own", "small", "optimizer=lion; mixup=0.2", {"ema": 0.9}], **SPACE
    )
    trials = space.trials()
    assert len(trials) == 8 and {trial.config.epochs for trial in trials} == {4}
    by_recipe = {trial.axes.recipe: trial.config for trial in trials}
    assert set(by_recipe) == {"own", "small", "optimizer=lion; mixup=0.2", "ema=0.9"}
    assert by_recipe["small"].augment is True and by_recipe["own"].augment is False
    lion = by_recipe["optimizer=lion; mixup=0.2"]
    assert (lion.optimizer, lion.mixup, by_recipe["ema=0.9"].ema) == ("lion", 0.2, 0.9)
    assert all(trial.axes.baseline.recipe == trial.axes.recipe for trial in trials)
    assert "--optimizer lion" in train_command(lion) and "--mixup 0.2" in train_command(lion)
    assert "--deep-supervision" in train_command(RunConfig(model="unet", data="x", deep_supervision=True)).split()
    assert Space(**space.to_json()) == space


@pytest.mark.parametrize(
    "given, match",
    [
        ({"recipes": ["epochs=3"]}, "cannot set `epochs`"),
        ({"recipes": ["small"], "augments": ["rotation=5"]}, r"--augment"),
        ({"recipes": ["optimizer=adan"]}, "Did you mean 'adam'"),
        ({"recipes": ["mixup=-1"]}, "`mixup` must be"),
        ({"recipes": ["deep_supervision=2"]}, "True or False"),
    ],
)
def test_recipes_that_a_sweep_cannot_have(given, match):
    with pytest.raises(ValueError, match=match):
        Space(models=["simple_cnn"], **SPACE, **given)


@pytest.mark.parametrize("given", [{"recipes": ["small"]}, {"warmup": 2.0}])
def test_short_rounds_have_a_short_warm_up(given):
    space = Space(models=["simple_cnn"], **SPACE, strategy="halving", **given)
    assert {(t.config.epochs, t.config.warmup) for t in space.trials()} == {(1, 0.5), (2, 1.0), (4, 2.0)}


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    "model, recipe, match",
    [
        ("unet", "mixup=0.2", "mixup"),
        ("simple_cnn", "deep_supervision=yes", "Deep supervision"),
        ("simple_cnn", "augment=crop=99", "crop"),
    ],
)
def test_recipes_are_tried_before_the_first_trial(model, recipe, match, tmp_path):
    data = "digit_scenes" if model == "unet" else "digits"
    options = {"filters": 2, "depth": 2} if model == "unet" else {}
    settings = {**SPACE, "data": data, "limit": 40, "recipes": ["own", recipe], "options": options}
    with pytest.raises(ValueError, match=match):
        run_sweep(Space(models=[model], **settings), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
