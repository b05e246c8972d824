"""The engine `ray`: Ray's own halving and fault tolerance, on trials whose results are made up."""

import dataclasses
import importlib.util
import io
import os
import sys
import types

import pytest
from rich.console import Console

from dropzoo.cli.parsing import parse_resources
from dropzoo.sweep import store as sweep_file
from dropzoo.sweep.run import Space, run_sweep
from dropzoo.sweep.trials import Outcome, Record
from dropzoo.sweep.workbench import versions

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)
SPACE = Space(
    models=["simple_cnn"],
    data="digits",
    options={"filters": (4,), "dense": 8},
    sites=["dense*"],
    rates=[0.1, 0.2, 0.3, 0.4],
    seeds=[0, 1],
    limit=48,
    epochs=9,
    strategy="halving",
)


def made_up(trial):
    """A record in which a higher rate is worse."""
    nll = 1 + trial.axes.rate + trial.config.seed / 1000
    figures = {"nll": nll, "accuracy": 0.5, "ece": 0.1, "brier": 0.5, "count": 9}
    outcome = Outcome(
        seconds=1.0,
        curves={"val_nll": [nll] * trial.config.epochs, "loss": [nll] * trial.config.epochs},
        **{images: figures for images in ("validation", "train", "test")},
        seconds_per_epoch=0.1,
        parameters=9,
    )
    return Record(trial=trial, versions=versions(), outcome=outcome)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Sweeps by Ray whose workers train nothing: they note what they run, and die where they are told to."""
    from ray import cloudpickle

    from dropzoo.sweep import ray as sweep_ray

    notes = tmp_path / "notes"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def run_noted(trial, dies):
        rate = trial.axes.rate
        if dies.get(rate) == "always" or dies.get(rate) == "once" and trial.config.seed == 1:
            if not (tmp_path / f"died-{rate}").exists() or dies[rate] == "always":
                (tmp_path / f"died-{rate}").touch()
                os._exit(1)
        with open(notes, "a") as file:
            file.write(f"{rate} {trial.config.epochs} {trial.config.seed}\n")
        if dies.get(rate) == "fails":
            outcome = Outcome(seconds=1.0)
            return dataclasses.replace(made_up(trial), outcome=outcome, error="FloatingPointError: NaN")
        return made_up(trial)

    def run(space, dies=(), **options):
        class Worker(sweep_ray._Worker):
            def setup(self, config):
                self._bench = types.SimpleNamespace(run=lambda trial: run_noted(trial, dict(dies)))
                self.reset_config(config)

        monkeypatch.setattr(sweep_ray, "_Worker", Worker)
        notes.write_text("")
        said = Console(file=io.StringIO(), width=200)
        run_sweep(space, tmp_path / "out", engine="ray", mc_samples=0, console=said, **options)
        ran = [tuple(float(word) for word in line.split()) for line in notes.read_text().splitlines()]
        return ran, said.file.getvalue(), sweep_file.read(tmp_path / "out").of_space()

    yield run
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@needs_ray
@pytest.mark.slow
def test_halving_is_that_of_ray_and_goes_on_from_the_file(sweep):
    def rates_by_epochs(ran):
        return {e: sorted({rate for rate, epochs, _ in ran if epochs == e}) for e in (1, 3, 9)}

    ran, said, records = sweep(SPACE, {0.2: "fails"}.items(), workers=1)
    # One at a time: the first plan is the best so far in each round, those after it are worse, or fail.
    assert rates_by_epochs(ran) == {1: [0.0, 0.1, 0.2, 0.3, 0.4], 3: [0.0, 0.1], 9: [0.0, 0.1]}
    assert len(ran) == len(set(ran)) == len(records) == 2 * (5 + 2 + 2) and "18 of 18 trials, 2 failed. " in said
    assert {r.trial.axes.rate for r in records if r.stopped} == {0.2, 0.3, 0.4}
    again, said, _ = sweep(SPACE, workers=1)
    assert not again and "18 of them done" in said
    # One that is better than all that are known goes on to the end, one in between is stopped.
    more, _, records = sweep(dataclasses.replace(SPACE, rates=(*SPACE.rates, 0.05, 0.15)), workers=1)
    assert rates_by_epochs(more) == {1: [0.05, 0.15], 3: [0.05], 9: [0.05]}


@needs_ray
def test_a_plan_that_was_stopped_goes_on_only_with_more_seeds_or_failed_trials_to_do_again():
    from dropzoo.sweep.ray import _alive

    plan = [t for t in SPACE.trials() if t.axes.rate == 0.3]
    first = plan[:2]  # two seeds of the first round
    known = {t.key: made_up(t) for t in first}
    assert _alive(plan, {}) == _alive(plan, known) == plan
    known[first[1].key] = dataclasses.replace(known[first[1].key], stopped=True)
    assert _alive(plan, known) == first
    assert _alive(plan, {first[1].key: known[first[1].key]}) == plan  # the other had failed
    more = dataclasses.replace(SPACE, seeds=(0, 1, 2))
    longer = [t for t in more.trials() if t.axes.rate == 0.3]
    assert _alive(longer, known) == longer


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_the_sweep_goes_on(sweep):
    space = dataclasses.replace(SPACE, rates=(0.1, 0.2, 0.3), epochs=3)
    ran, said, records = sweep(space, {0.1: "once", 0.2: "always"}.items(), workers=2, resources={"cpu": 1})
    assert len(ran) == len(set(ran)) and {rate for rate, epochs, _ in ran if epochs == 3} >= {0.0, 0.1}
    assert sum(rate == 0.1 for rate, *_ in ran) == 4 and not any(rate == 0.2 for rate, *_ in ran)
    assert ["WorkerLost" in r.error for r in records if r.error] == [True] and "1 failed" in said
    grid = dataclasses.replace(space, strategy="grid", epochs=5, seeds=(0,))
    ran, said, records = sweep(grid, {0.3: "always"}.items(), workers=2)
    assert len(records) == 4 and sum(bool(r.error) for r in records) == 1 and len(ran) == 3
    with pytest.raises(
        ValueError, match="No machine of the cluster has the resources for one trial: cpu=1, gpu=99"
    ):
        sweep(dataclasses.replace(grid, epochs=6), resources={"gpu": 99})


def test_resources_are_amounts_by_name():
    assert parse_resources(None) is None and parse_resources([]) is None
    assert parse_resources(["cpu=2", "memory=4e9"]) == {"cpu": 2.0, "memory": 4e9}
    for bad in ("cpu", "cpu=", "=2", "cpu=many", "cpu=-1", "cpu=nan", "cpu=inf"):
        with pytest.raises(ValueError, match='--resource must be "name=amount"'):
            parse_resources([bad])
    with pytest.raises(ValueError, match="`resources` needs engine='ray'"):
        run_sweep(SPACE, "nowhere", resources={"cpu": 2})
