"""Runs sweeps: many training runs that differ in what is dropped, where and how much, compared fairly.

These two lines do the same as `dropzoo sweep`:

    space = Space(models=["simple_cnn"], data="digits", sites=["module?", "dense*"], rates=[0.1, 0.3, 0.5])
    run_sweep(space, "sweeps/digits")
"""

import contextlib
import dataclasses
import importlib
import json
import runpy
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from dropzoo.common.checks import check_choice
from dropzoo.common.words import count_of
from dropzoo.runs.config import RunConfig
from dropzoo.sweep.report import write_report
from dropzoo.sweep.screen import Screen, trials_and_epochs
from dropzoo.sweep.space import Space
from dropzoo.sweep.stats import candidates
from dropzoo.sweep.store import SweepFile, placed
from dropzoo.sweep.trials import Axes, Record, Trial
from dropzoo.sweep.workbench import Workbench

__all__ = ["Space", "Trial", "load_space", "run_sweep"]

#: A function that gets each record as its trial ends.
Recorder = Callable[[Record], None]
#: A function that runs trials, and passes each record to the recorder.
Engine = Callable[[list[Trial], Recorder], None]


def load_space(path: Path | str) -> Space:
    """Runs a Python file that defines `space = Space(...)`.

    Args:
        path: Path of the file.

    Returns:
        The space.

    Raises:
        ValueError: If there is no such file, if it fails, or if it defines no space.

    Example:
    >>> import pathlib, tempfile
    >>> from dropzoo.sweep import load_space
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "space.py"
    >>> text = "from dropzoo.sweep import Space; space = Space(models=['simple_cnn'], data='digits', plans=[0.2])"
    >>> _ = path.write_text(text)
    >>> len(load_space(path).trials())  # the plan and the baseline, three seeds each
    6
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"No such file: {path}. Expected a Python file that defines `space = Space(...)`")
    try:
        found = runpy.run_path(str(path)).get("space")
    except Exception as error:  # any error: the file is the user's own code
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path} defines no space. {kind}{error}") from error
    if not isinstance(found, Space):
        raise ValueError(
            f"{path} must define `space = Space(...)`, with `Space` from dropzoo.sweep. Received: space={found!r}"
        )
    return found


def run_sweep(
    space: Space,
    out: Path | str,
    *,
    engine: str = "local",
    workers: int | None = None,
    resources: dict[str, float] | None = None,
    mc_samples: int = 30,
    retry_failed: bool = False,
    console: Console | None = None,
) -> Path:
    """Runs all trials of a space that are not yet in the folder's `sweep.jsonl`, and then writes the report.

    Each trial is recorded as it ends, so a stopped sweep, even a killed one, continues when it is started again. A
    trial that fails is recorded with its error. Trials in the file that are not in the space stay in the file.

    Args:
        space: `Space`, the trials to run.
        out: Path or str. A folder for `sweep.jsonl` and `report.html`.
        engine: `"local"`, which runs one trial after another in this process, or `"ray"`, which uses Ray Tune.
        workers: Int above 0, the number of trials that Ray runs at a time. If None, `resources` decides how many
            there is room for. If that is None too, one trial runs for each GPU or, without GPUs, for every two
            cores.
        resources: Dict of the resources that Ray gives to each trial, with memory in bytes, such as `{"cpu": 2,
            "gpu": 0.5, "memory": 4e9}`. None divides the cores and GPUs evenly among the trials.
        mc_samples: Int of at least 0, the number of samples for measuring the Monte-Carlo latency; 0 to skip this.
        retry_failed: Bool. Whether to run failed trials again.
        console: Rich console that shows the progress; None for the terminal.

    Returns:
        The path of the report.

    Raises:
        ValueError: If the space is empty or its arguments do not fit together, if the engine or its options do not
            exist, or if the folder holds something other than a sweep on the same data.

    Example:
    >>> import tempfile
    >>> from dropzoo.sweep import Space, run_sweep
    >>> small = {"filters": (4,), "dense": ()}
    >>> space = Space(models="simple_cnn", data="digits", plans=["head"], seeds=[0], epochs=1, options=small)
    >>> report = run_sweep(space, tempfile.mkdtemp(), mc_samples=0)  # doctest: +ELLIPSIS
    2 trials at most, 0 of them done already; in ...
    >>> report.name
    'report.html'
    """
    console, out = console or Console(highlight=False), Path(out)
    ray = _check_engine(engine, workers, resources)
    space = _checked(space, console)
    file = SweepFile(out, space)
    with contextlib.closing(file):
        failed = {key for key, record in file.records.items() if record.error and retry_failed}
        known = {key: record for key, record in file.records.items() if key not in failed}
        trials = space.trials()
        done = placed(known, trials)
        known |= {each.trial.key: each for each in done}
        progress = f"{count_of(len(trials), 'trial')} at most, {len(done)} of them done already"
        console.print(f"{progress}; in {file.path}", soft_wrap=True, markup=False)
        with Screen(console, *trials_and_epochs(trials), done) as screen:

            def record(entry: Record) -> None:
                file.add(entry)
                known[entry.trial.key] = entry
                screen.add(entry)

            def drop(dropped: list[Trial]) -> None:
                screen.fewer(*trials_and_epochs(dropped))

            cluster = ray.Cluster(workers, resources or {}, mc_samples) if ray else None
            if cluster and space.strategy == "halving":
                cluster.halve(_by_plan(trials), known, space.eta, record, drop)
            else:
                run: Engine = cluster.run_trials if cluster else _local_engine(mc_samples)
                for round_, dropped in _rounds(space, known):
                    drop(dropped)
                    run([trial for trial in round_ if trial.key not in known], record)
    return write_report(out / "report.html", file.path)


def _check_engine(engine: str, workers: int | None, resources: dict[str, float] | None) -> types.ModuleType | None:
    """Returns the module of the engine `ray`; None for the local engine, which takes no options of Ray."""
    check_choice(engine, "engine", ("local", "ray"))
    if engine == "ray":
        try:
            return importlib.import_module("dropzoo.sweep.ray")
        except ModuleNotFoundError as error:
            raise ValueError(f"--engine ray needs extra packages: pip install '.[ray]' ({error})") from None
    for name, value in (("workers", workers), ("resources", resources)):
        if value is not None:
            raise ValueError(
                f"`{name}` needs engine='ray' (--engine ray). Received: {name}={value} with engine='local'"
            )
    return None


def _checked(space: Space, console: Console) -> Space:
    """Returns the space without impossible combinations, before anything is written or trained."""
    info = None
    fold = (space.folds - 1, space.folds) if space.folds else None
    configs: dict[str, RunConfig] = {}  # one for each way to read the data; recipes have their own
    for config in (trial.config for trial in space.trials(space.epochs)):
        configs.setdefault(json.dumps([config.augment, config.batch_size, config.balance], default=str), config)
    for config in reversed(configs.values()):
        # Loading is the check: it raises for an augmentation or a fold that the data do not allow.
        data = dataclasses.replace(config, fold=fold).load_data()
        if data.validation is None:
            raise ValueError(
                f"Trials are compared on validation images, but {space.data!r} has none: pass a larger "
                "`validation_split` (--validation-split)"
            )
        info = data.info
    if info is None:
        raise ValueError("The space is empty: it has no trials")
    space, left_out = space.check(info)
    for line in left_out:
        console.print(f"Left out: {line}", soft_wrap=True, markup=False)
    return space


def _rounds(space: Space, known: dict[str, Record]) -> Iterator[tuple[list[Trial], list[Trial]]]:
    """Yields the trials of each round, and the trials of later rounds that were dropped before it.

    Halving promotes candidates by the mean of their calibrated validation NLL over seeds and folds. It always
    promotes baselines, since effects are measured against them. Each round trains from the start, so that the
    schedules of rates and learning rates run to their ends in every round, which makes it a fair comparison. To
    continue from the previous round would save 1 / `eta` of the epochs of a round.
    """
    rungs = space.rungs()
    alive: set[Axes] = {trial.axes for trial in space.trials(rungs[0])}
    dropped: list[Trial] = []
    for number, epochs in enumerate(rungs):
        trials = [trial for trial in space.trials(epochs) if trial.axes in alive]
        yield trials, dropped
        ranked = [c for c in candidates([known[t.key] for t in trials]) if not c.is_baseline]
        best = [c for c in ranked if c.scored][: max(1, round(len(ranked) / space.eta))]
        kept = {c.axes for c in best} | {t.axes for t in trials if t.is_baseline}
        later = [trial for rung in rungs[number + 1 :] for trial in space.trials(rung)]
        dropped = [trial for trial in later if trial.axes in alive - kept]
        alive = kept


def _local_engine(mc_samples: int) -> Engine:
    bench = Workbench(mc_samples)

    def run(trials: list[Trial], record: Recorder) -> None:
        for trial in trials:
            record(bench.run(trial))

    return run


def _by_plan(trials: list[Trial]) -> list[list[Trial]]:
    """Returns the trials of all rounds, seeds and folds of each plan, in their order."""
    plans: dict[Axes, list[Trial]] = {}
    for trial in trials:
        plans.setdefault(trial.axes, []).append(trial)
    return list(plans.values())
