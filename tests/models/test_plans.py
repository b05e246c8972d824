"""Sites by pattern, ramps, rates in place of plans, and the published plans by value."""

import keras
import numpy as np
import pytest

from _tiny import build
from dropzoo import layers, models


def test_later_patterns_win_and_layers_are_copied_with_a_seed_of_their_own():
    layer = layers.DropBlock2D(0.1, block_size=3, seed=5)
    plan = {"encoder*": layer, "encoder2*": 0.4, "encoder2_pool": None}
    model = build("unet", dropout=plan)
    specs = {s.name: s.spec for s in models.list_sites(model)}
    assert specs["encoder1_conv1"] == "drop_block2d:0.1,block_size=3"
    assert specs["encoder2_conv1"] == "dropout:0.4"
    assert specs["encoder2_pool"] is specs["head"] is None
    seeds = [model.get_layer(f"encoder1_conv{i}_dropout").seed for i in (1, 2)]
    assert len({*seeds, layer.seed}) == 3
    again = build("unet", dropout=plan)
    assert seeds == [again.get_layer(f"encoder1_conv{i}_dropout").seed for i in (1, 2)]


def test_sites_of_a_model_of_somebody_else():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="a"),
            keras.layers.Dropout(0.25, name="a_dropout"),
            keras.layers.Flatten(name="b"),
            keras.layers.Dense(2),
        ]
    )
    sites = [(s.name, s.kind, s.shape, s.spec) for s in models.list_sites(model)]
    assert sites == [("a", "conv2d", (None, 6, 6, 4), "dropout:0.25"), ("b", "flatten", (None, 144), None)]


def test_a_layer_of_several_outputs_is_no_site():
    inputs = keras.Input((6, 4))
    sequence, state = keras.layers.GRU(3, return_sequences=True, return_state=True, name="gru")(inputs)
    sequence = keras.layers.Activation("relu", name="after")(sequence)
    model = keras.Model(inputs, [keras.layers.Dense(2)(sequence), state])
    assert [site.name for site in models.list_sites(model)] == ["after"]


@pytest.mark.parametrize("name", models.list_plans())
def test_plans_say_where_they_come_from(name):
    plan = models.get_plan(name)
    if name == "paper":
        with pytest.raises(ValueError, match="different for each model"):
            plan.patterns([])
    assert plan.name == name and plan.description and (plan.reference or name == "none")


def test_a_ramp_rises_over_the_sites_it_matches_and_later_entries_win():
    plan = {"*_branch": models.ramp(0.1, 0.5), "stage2*_branch": "spatial_dropout2d:0.2"}
    specs = {s.name: s.spec for s in models.list_sites("resnet20", filters=2, blocks=1, dropout=plan) if s.spec}
    assert specs == {
        "stage1_block1_branch": "drop_path:0.1",
        "stage2_block1_branch": "spatial_dropout2d:0.2",
        "stage3_block1_branch": "drop_path:0.5",
    }
    blocks = {"stage?_block?": models.ramp(0.0, 0.2, "drop_block2d", block_size=3)}
    specs = [s.spec for s in models.list_sites("resnet20", filters=2, blocks=1, dropout=blocks) if s.spec]
    assert specs[1:] == ["drop_block2d:0.1,block_size=3", "drop_block2d:0.2,block_size=3"]
    for wrong in ({"start": 1.0}, {"end": -0.1}, {"layer": "drop_paht"}, {"block_size": 3}):
        with pytest.raises(ValueError, match="start=1.0|end=-0.1|Did you mean 'drop_path'|block_size"):
            models.ramp(**({"start": 0.0, "end": 0.1} | wrong))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (lambda: {"head": models.ramp(0.0, 0.2, layer="dropout", rate=0.5)}, "`start`.*Received: rate=0.5"),
        (lambda: {"head": models.ramp(0.0, 0.2, name="dropout")}, "`layer`.*Received: name='dropout'"),
        (
            lambda: {"head": keras.layers.Dense(7)},
            "must keep the shape of its input and have no weights.*Dense.*'head'",
        ),
        (
            lambda: {"head": keras.layers.LayerNormalization()},
            "must keep the shape of its input and have no weights.*'head'",
        ),
        (lambda: {5: 0.5}, "A key of a plan must be a string.*Received: 5"),
        (lambda: {5: models.ramp(0.0, 0.2)}, "A key of a plan must be a string.*Received: 5"),
        (lambda: {lambda site: True: 0.5}, "`retrofit` takes callables too"),
    ],
)
def test_plans_that_would_do_something_else_are_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        models.build_model("lenet5", dropout=plan())


def test_a_rate_in_place_of_a_plan_keeps_the_layers_of_the_paper():
    specs = [s.spec for s in models.list_sites("resnet20", filters=2, blocks=1, dropout=0.4) if s.spec]
    assert specs == ["drop_path:0.4"] * 3


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_a_rate_may_be_a_number_of_numpy(name):
    rate = np.float32(0.25)
    specs = [[site.spec for site in models.list_sites(name, dropout=plan)] for plan in (0.25, rate, "paper")]
    assert specs[0] == specs[1] != specs[2]
    assert {site.spec for site in models.list_sites(name, dropout={"head": rate})} == {None, "dropout:0.25"}


DEEPER = [f"stage{stage}_block1{end}" for stage in (2, 3) for end in ("_conv1", "_branch", "")]
CONVS = ["conv1", *(f"stage{stage}_block1_{end}" for stage in (1, 2, 3) for end in ("conv1", "branch"))]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("name", "plan", "expected"),
    [
        ("resnet20", "stochastic_depth", {f"stage{i}_block1_branch": f"drop_path:{i / 6:.4g}" for i in (1, 2, 3)}),
        ("resnet20", "drop_block", dict.fromkeys(DEEPER, "drop_block2d:0.1")),
        ("resnet20", "filter_wise", dict.fromkeys(CONVS, "spatial_dropout2d:0.1")),
        ("resnet20", "head", {"head": "dropout:0.5"}),
        ("simple_cnn", "between_modules", {"module1": "dropout:0.25", "module2": "dropout:0.25"}),
        ("unet", "unet_2015", {"encoder2_conv2": "dropout:0.5", "bottleneck_conv2": "dropout:0.5"}),
        ("unet", "none", {}),
    ],
)
def test_plans_put_what_they_say_where_they_say(name, plan, expected):
    own = {"resnet20": {"blocks": 1}, "simple_cnn": {"filters": (2, 2)}, "unet": {"depth": 2, "filters": 2}}[name]
    assert {s.name: s.spec for s in models.list_sites(name, dropout=plan, **own) if s.spec} == expected


def test_bayesian_segnet_is_the_central_half():
    sites = models.list_sites("unet", depth=4, filters=2, dropout="bayesian_segnet")
    assert [s.name for s in sites if s.spec] == [
        "encoder3_pool",
        "encoder4_pool",
        "bottleneck_conv2",
        "decoder1_conv2",
        "decoder2_conv2",
    ]


@pytest.mark.parametrize("plan", [lambda: 0.3, lambda: {"*_branch": models.ramp(0.0, 0.3)}], ids=["rate", "ramp"])
def test_initial_weights_do_not_depend_on_a_rate_or_a_ramp(plan):
    weights = []
    for make in (lambda: None, plan):
        keras.utils.set_random_seed(3)
        weights.append(build("resnet20", dropout=make()).get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
