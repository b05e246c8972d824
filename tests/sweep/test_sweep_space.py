"""What a sweep tries, and every kind of bad input: one clear error, and nothing written."""

import dataclasses
import json

import numpy as np
import pytest

from dropzoo import layers
from dropzoo.cli import app as cli
from dropzoo.sweep.run import Space, load_space
from dropzoo.training import load_data

SMALL = {"models": ["simple_cnn"], "data": "digits", "options": {"filters": (4,), "dense": 8}, "limit": 64}


def test_the_space_is_the_product_with_one_baseline_each():
    space = Space(
        **SMALL,
        sites=["module?", "module?,dense*"],
        specs=["dropout", "max_dropout"],
        rates=[0.1, 0.4],
        rate_schedules=["constant", "late"],
        plans=["paper", "none"],
        weight_decays=[0.0, 1e-4],
        seeds=[0, 1],
    )
    trials = space.trials()
    assert len(trials) == 2 * 2 * (1 + 2 * 2 * 2 * 2 + 1)
    assert len({t.key for t in trials}) == len(trials) and len({t.candidate for t in trials}) == len(trials) / 2
    assert sum(t.is_baseline for t in trials) == 4
    graphs = [(t.axes.weight_decay, t.axes.sites, t.axes.spec) for t in trials]
    assert sum(a != b for a, b in zip(graphs, graphs[1:], strict=False)) == len(set(graphs)) - 1  # together
    late = next(t for t in trials if t.axes.rate_schedule == "late" and t.axes.sites == "module?,dense*")
    assert late.config.rate_schedule == {"module?": "late:0.1", "dense*": "late:0.1"}
    assert late.config.dropout == {"module?": 0.1, "dense*": 0.1}
    assert late.config.options == {"filters": (4,), "dense": 8, "weight_decay": 0.0}


def test_rate_schedules_and_specs_take_options():
    space = Space(
        **SMALL,
        sites=["module1"],
        specs=["drop_block2d:block_size=3"],
        rates=[0.2],
        rate_schedules=["early:rate,end=0.5", "linear"],
    )
    early, linear = (t.config for t in space.trials()[3:9:3])
    assert early.dropout == {"module1": "drop_block2d:0.2,block_size=3"}
    assert early.rate_schedule == {"module1": "early:0.2,end=0.5"}
    assert linear.rate_schedule == {"module1": "linear:0.0,0.2"}


def test_a_space_survives_json_and_layers_become_text():
    space = Space(**SMALL, plans=[{"dense1": layers.DropBlock2D(0.1, block_size=3)}], folds=3)
    again = Space(**json.loads(json.dumps(dataclasses.asdict(space))))
    assert [t.key for t in again.trials()] == [t.key for t in space.trials()]
    assert space.plans == ({"dense1": "drop_block2d:0.1,block_size=3"},)


def test_earlier_names_mean_the_same(tmp_path):
    shared = {**SMALL, "options": {}, "sites": ["dense*"]}
    new = Space(**shared, specs=["max_dropout"], rate_schedules=["late"], learning_rate_schedule="constant")
    old = Space(**shared, variants=["max_dropout"], schedules=["late"], schedule="constant")
    assert old == new and dataclasses.replace(new, schedules=["late"]) == new
    assert (old.variants, old.schedules, old.schedule) == (new.specs, new.rate_schedules, "constant")
    for name in ("specs", "variants"):
        assert dataclasses.replace(old, **{name: ["dropout"]}).specs == ("dropout",)
    assert Space(**json.loads(json.dumps(new.to_json()))) == new
    assert {"variants", "schedules", "schedule"} < set(new.to_json())  # as files have always held them
    file = tmp_path / "space.py"
    file.write_text(
        "from dropzoo.sweep import Space\n"
        "space = Space(models='lenet5', data='digits', plans=['paper'], schedules=['late'])"
    )
    assert load_space(file).rate_schedules == ("late",)


def test_a_file_of_version_1_goes_on():
    """Keys, axes and configs are on disk in sweeps that people have."""
    axes = {"sites": ["dense*"], "specs": ["max_dropout"], "rates": [0.1], "rate_schedules": ["late"]}
    trial = Space(**SMALL, **axes, epochs=10).trials()[3]  # 10 was the default
    assert trial.key == "279f2dcbb1986e26" and trial.candidate == "1f75a3bce77a154b"
    other = dataclasses.replace(trial, config=dataclasses.replace(trial.config, optimizer="sgd"))
    assert other.key != trial.key  # a later field counts where it is set
    assert trial.axes.to_json() == {
        "model": "simple_cnn",
        "sites": "dense*",
        "variant": "max_dropout",
        "rate": 0.1,
        "schedule": "late",
        "normalization": "own",
        "augment": "none",
        "weight_decay": "own",
        "label_smoothing": 0.0,
        "recipe": "own",
    }
    assert trial.config.to_json()["schedule"] == "cosine"


def test_random_draws_some_of_the_grid_and_the_baseline():
    grid = Space(**SMALL, sites=["module1", "dense*"], rates=[0.1, 0.2, 0.3, 0.4], seeds=[0])
    drawn = dataclasses.replace(grid, strategy="random", samples=3)
    keys = [t.key for t in drawn.trials()]
    assert len(keys) == 4 and set(keys) < {t.key for t in grid.trials()} and drawn.trials()[0].is_baseline
    assert keys == [t.key for t in dataclasses.replace(drawn).trials()]
    assert keys != [t.key for t in dataclasses.replace(drawn, draw_seed=1).trials()]


def test_halving_goes_up_to_the_whole_epochs():
    space = Space(**SMALL, sites=["module1"], strategy="halving", epochs=20, eta=3, min_epochs=2)
    assert space.rungs() == [3, 7, 20]
    assert dataclasses.replace(space, min_epochs=21).rungs() == [20]
    assert {t.config.epochs for t in space.trials()} == {3, 7, 20}


@pytest.mark.costly(keep=0)
def test_folds_part_the_training_images_and_hold_the_classes_alike():
    def rows(dataset):
        return [
            (image.tobytes(), int(label))
            for images, ls in dataset
            for image, label in zip(images.numpy(), ls, strict=True)
        ]

    whole = load_data("digits", limit=50, validation_split=0)
    parts = [load_data("digits", limit=50, fold=(k, 3), seed=k) for k in range(3)]
    assert [p.info.num_validation for p in parts] == [17, 17, 16]
    everything = sorted(rows(whole.train.at_epoch(0)))
    assert sorted(row for part in parts for row in rows(part.validation)) == everything
    for part in parts:
        assert sorted(rows(part.train.at_epoch(0)) + rows(part.validation)) == everything
    counts = np.array([np.bincount([label for _, label in rows(p.validation)], minlength=10) for p in parts])
    assert (counts.max(0) - counts.min(0)).max() <= 1


def test_a_python_file_defines_a_space(tmp_path):
    file = tmp_path / "space.py"
    file.write_text(
        "from dropzoo.sweep import Space\nspace = Space(models='lenet5', data='digits', plans=['paper'])"
    )
    assert load_space(str(file)).models == ("lenet5",)
    file.write_text("x = 1")
    with pytest.raises(ValueError, match="must define `space = Space"):
        load_space(file)


BAD_FILES = {
    "unknown axis": ("site=['dense*']", "Unknown argument of Space 'site'. Did you mean 'sites'"),
    "not closed": ("sites=[", "SyntaxError: closing parenthesis"),
    "text for a number": (
        "plans=['paper'], epochs='9'",
        "`epochs` must be a positive int. Received: epochs='9'",
    ),
    "text for a rate": ("sites=['dense*'], rates=['a']", "`rate` must be a number in [0, 1)"),
    "text for a list": ("sites='dense*'", "`sites` must be a list"),
    "no batch": ("plans=['paper'], batch_size=0", "`batch_size` must be a positive int"),
    "options of no name": ("plans=['paper'], options=3", "`options` must be a dict"),
    "what fails": ("plans=[1 / 0]", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_defines_no_space_is_one_clear_error(case, tmp_path):
    arguments, message = BAD_FILES[case]
    file = tmp_path / "space.py"
    file.write_text(f"from dropzoo.sweep import Space\nspace = Space(models='lenet5', data='digits', {arguments})")
    with pytest.raises(ValueError) as error:
        load_space(file)
    assert str(error.value).startswith(f"{file} defines no space. ") and message in str(error.value)


SWEEP = ["simple_cnn", "--data", "digits", "--option", "filters=(4,)", "--option", "dense=8", "--limit", "64"]
BAD = {
    "unknown model": (["simple_cn", *SWEEP[1:], "--sites", "dense*"], "Did you mean 'simple_cnn'"),
    "unknown site": ([*SWEEP, "--sites", "dens1"], "Unknown site 'dens1'. Did you mean 'dense1'"),
    "unknown plan": ([*SWEEP, "--plan", "papers"], "Did you mean 'paper'"),
    "unknown spec": ([*SWEEP, "--sites", "dense*", "--spec", "drpout"], "Unknown layer 'drpout'"),
    "a spec that fits nowhere": (
        [*SWEEP, "--sites", "dense*", "--spec", "spatial_dropout2d"],
        "Cannot put 'spatial_dropout2d:0.1' at site 'dense1'",
    ),
    "unknown regulariser": (
        [*SWEEP, "--plan", "paper", "--normalization", "bath"],
        "Unknown normalization 'bath'",
    ),
    "an option of no model": ([*SWEEP, "--plan", "paper", "--option", "dpth=3"], "Unknown option of simple_cnn"),
    "unknown augmentation": (
        [*SWEEP, "--plan", "paper", "--augment", "rotate=9"],
        "Unknown augmentation 'rotate'",
    ),
    "a crop too large": ([*SWEEP, "--plan", "paper", "--augment", "crop=99"], "`crop` must fit"),
    "smoothing": ([*SWEEP, "--plan", "paper", "--label-smoothing", "1"], "`label_smoothing` must be"),
    "weight decay": ([*SWEEP, "--plan", "paper", "--weight-decay", "-1"], "`weight_decay` must be"),
    "rate": ([*SWEEP, "--sites", "dense*", "--rate", "1.5"], "`rate` must be a number in [0, 1)"),
    "schedule": (
        [*SWEEP, "--sites", "dense*", "--rate-schedule", "soon"],
        "A rate schedule (--rate-schedule) must be one of",
    ),
    "unknown schedule": (
        [*SWEEP, "--sites", "dense*", "--rate-schedule", "lat:rate"],
        "Unknown rate schedule 'lat'",
    ),
    "nothing to try": (SWEEP, "The space is empty"),
    "no data": (["simple_cnn", "--plan", "paper"], "--data is missing"),
    "unknown data": (["simple_cnn", "--data", "digit", "--plan", "paper"], "Unknown data set 'digit'"),
    "more folds than images": ([*SWEEP, "--plan", "paper", "--folds", "65"], "`folds` must be from 2 to"),
    "one fold": ([*SWEEP, "--plan", "paper", "--folds", "1"], "`folds` must be 0, or 2 or more"),
    "nothing to compare on": ([*SWEEP, "--plan", "paper", "--validation-split", "0"], "validation images"),
    "strategy": ([*SWEEP, "--plan", "paper", "--strategy", "gird"], "Did you mean 'grid'"),
    "engine": ([*SWEEP, "--plan", "paper", "--engine", "spark"], "`engine` must be"),
    "workers without ray": ([*SWEEP, "--plan", "paper", "--workers", "2"], "`workers` needs engine="),
    "no such file": (["missing.py"], "No such file"),
    "flags beside a file": (["space.py", "--rate", "0.1"], "--rate cannot be passed if a file defines the space"),
    "unknown flag": ([*SWEEP, "--site", "dense*"], "See: dropzoo sweep --help"),
    "resources without ray": ([*SWEEP, "--plan", "paper", "--resource", "cpu=2"], "`resources` needs engine="),
    "a resource of no amount": ([*SWEEP, "--plan", "paper", "--resource", "cpu"], 'must be "name=amount"'),
    "masks for a classifier": (["simple_cnn", "--data", "digit_scenes", "--plan", "paper"], "returns one label"),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(
        "from dropzoo.sweep import Space\nspace = Space(models='lenet5', data='digits', plans=['paper'])"
    )
    args, message = BAD[case]
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", *args, "--out", "out"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["space.py"]
