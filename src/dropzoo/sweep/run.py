"""Sweeps: many trainings that differ in what is dropped, where and how much, compared fairly.

    space = Space(models=["simple_cnn"], data="digits", sites=["module?", "dense*"], rates=[0.1, 0.3, 0.5])
    run_sweep(space, "sweeps/digits")

does what `dropzoo sweep` does.
"""

import contextlib
import dataclasses
import functools
import importlib
import runpy
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from dropzoo.sweep.report import write_report
from dropzoo.sweep.screen import Screen, trials_and_epochs
from dropzoo.sweep.space import Space, Trial
from dropzoo.sweep.stats import AXES, candidates
from dropzoo.sweep.store import SweepFile
from dropzoo.sweep.workbench import Workbench

__all__ = ["Space", "Trial", "load_space", "run_sweep"]

#: Runs trials, and hands over each one's record as it ends.
Engine = Callable[[list[Trial], Callable[[dict[str, Any]], None]], None]


def load_space(path: Path) -> Space:
    """The space that a Python file defines as `space = Space(...)`; the file is run."""
    if not path.is_file():
        raise ValueError(f"No such file: {path}")
    try:
        found = runpy.run_path(str(path)).get("space")
    except Exception as error:  # of whatever the file does
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path} defines no space. {kind}{error}") from error
    if not isinstance(found, Space):
        raise ValueError(f"{path} must define `space = Space(...)`, of dropzoo.sweep. Received: space={found!r}")
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
    """Runs the trials of a space that are not in the folder's file yet, then writes its report.

    Each trial is recorded as it ends, so a sweep that was stopped in whatever way goes on when it is started
    again. A trial that fails is recorded with its error. Trials of the file that are not in the space stay there.

    Args:
        space: what to try.
        out: a folder: `sweep.jsonl` and `report.html`.
        engine: `"local"`, one after the other in this process, or `"ray"`, by Ray Tune.
        workers: of Ray, the trials at a time; None for as many as its cluster has room for.
        resources: of Ray, what each trial gets: `{"cpu": 2, "gpu": 0.5, "memory": 4e9}`; None to share out all.
        mc_samples: of the Monte-Carlo latency; 0 to leave it out.
        retry_failed: do trials again that have failed.
        console: where progress is shown.

    Returns:
        The report's path.

    Raises:
        ValueError: for an impossible space, and a folder that holds something else.
    """
    console, out = console or Console(highlight=False), Path(out)
    if engine not in ("local", "ray"):
        raise ValueError(f"`engine` must be 'local' or 'ray'. Received: engine={engine!r}")
    for name, value in (("workers", workers), ("resources", resources)):
        if value is not None and engine == "local":
            raise ValueError(f"`{name}` are those of engine='ray'. Received: {name}={value} with engine='local'")
    options = {"workers": workers, "resources": resources or {}, "mc_samples": mc_samples}
    ray = _ray_engine() if engine == "ray" else None
    run: Engine = functools.partial(ray.run_trials, **options) if ray else _local_engine(mc_samples)
    space = _checked(space, console)
    file = SweepFile(out, space)
    with contextlib.closing(file):
        failed = {key for key, record in file.trials.items() if "error" in record and retry_failed}
        everything = space.trials()
        done = [file.trials[t.key] for t in everything if t.key in file.trials and t.key not in failed]
        progress = f"{len(everything)} trials at most, {len(done)} of them done already"
        console.print(f"{progress}; in {file.path}", soft_wrap=True, markup=False)
        with Screen(console, *trials_and_epochs(everything), done) as screen:

            def record(entry: dict[str, Any]) -> None:
                file.add(entry)
                screen.add(entry)

            def drop(trials: list[Trial]) -> None:
                screen.fewer(*trials_and_epochs(trials))

            if ray and space.strategy == "halving":
                known = {key: each for key, each in file.trials.items() if key not in failed}
                ray.halve(_by_plan(everything), known, space.eta, record, drop, **options)
            else:
                for trials, dropped in _rounds(space, file):
                    drop(dropped)
                    run([t for t in trials if t.key not in file.trials or t.key in failed], record)
    return write_report(out / "report.html", file.path)


def _checked(space: Space, console: Console) -> Space:
    """The space without what cannot be; before anything is written, or trained."""
    info = None
    for augment in reversed(space.augments):
        first = space.trials(space.epochs)[0].config
        fold = (space.folds - 1, space.folds) if space.folds else None
        data = dataclasses.replace(first, augment=augment, fold=fold).load_data()
        if data.validation is None:
            raise ValueError(f"Trials are compared on validation images, and {space.data!r} has none here")
        info = data.info
    if info is None:
        raise ValueError("The space is empty")
    space, left_out = space.check(info)
    for line in left_out:
        console.print(f"Left out: {line}", soft_wrap=True, markup=False)
    return space


def _rounds(space: Space, file: SweepFile) -> Iterator[tuple[list[Trial], list[Trial]]]:
    """The trials of each round, and those of later rounds that did not get there.

    Halving promotes candidates by the mean of their validation NLL over seeds and folds, and baselines always:
    effects are against them. Each round trains from the start, so that the schedules of rates and learning rates
    run to their ends in it, and a round is a fair comparison; going on from the round before would save
    1 / `eta` of its epochs.
    """
    rungs = space.rungs()
    alive = {_place(trial.axes) for trial in space.trials(rungs[0])}
    dropped: list[Trial] = []
    for number, epochs in enumerate(rungs):
        trials = [trial for trial in space.trials(epochs) if _place(trial.axes) in alive]
        yield trials, dropped
        ranked = [c for c in candidates(file.trials[t.key] for t in trials) if not c.is_baseline]
        best = [c for c in ranked if c.scored][: max(1, round(len(ranked) / space.eta))]
        kept = {_place(c.axes) for c in best} | {_place(t.axes) for t in trials if t.is_baseline}
        later = [trial for rung in rungs[number + 1 :] for trial in space.trials(rung)]
        dropped = [trial for trial in later if _place(trial.axes) in alive - kept]
        alive = kept


def _place(axes: dict[str, Any]) -> tuple[Any, ...]:
    """Of a trial and its longer versions in later rounds."""
    return tuple(axes[name] for name in AXES)


def _local_engine(mc_samples: int) -> Engine:
    bench = Workbench(mc_samples)

    def run(trials: list[Trial], record: Callable[[dict[str, Any]], None]) -> None:
        for trial in trials:
            record(bench.run(trial))

    return run


def _by_plan(trials: list[Trial]) -> list[list[Trial]]:
    """Those of all rounds, seeds and folds of a plan together, in their order."""
    plans: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        plans.setdefault(_place(trial.axes), []).append(trial)
    return list(plans.values())


def _ray_engine() -> types.ModuleType:
    try:
        return importlib.import_module("dropzoo.sweep.ray")
    except ModuleNotFoundError as error:
        raise ValueError(f"--engine ray needs the extra: pip install 'dropzoo[ray]' ({error})") from None
