"""The engine `ray`: the trials of a sweep by Ray Tune, on one machine or a cluster."""

import contextlib
import logging
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# The sweep has a table and a file of its own; and nothing is reported to anybody.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interrupt ends the sweep, not only Tune's run
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a plan has a mean at the ends of its rounds
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # trials may share a GPU

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

import tensorflow as tf

from dropzoo.sweep.space import Trial
from dropzoo.sweep.workbench import Workbench, as_json, versions

# A worker that dies, for want of memory or with its machine, is replaced, and its trial begun again so often.
_RETRIES = 1


class _Worker(tune.Trainable):
    """A process that runs the trials of a plan, one a step; it keeps its workbench, and with it what was traced.

    Its config: `plan`, a pair of the trials in their order and the NLL by key of those that were run before;
    `budgets`, by the epochs of a trial, for the scheduler; `mc_samples`; `cores`, the most that an operation uses,
    0 for all.
    """

    def setup(self, config: dict[str, Any]) -> None:
        if config["cores"]:  # Ray counts cores, and holds nobody to them
            tf.config.threading.set_intra_op_parallelism_threads(math.ceil(config["cores"]))
        self._bench = Workbench(config["mc_samples"])
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        trials, nll = new_config["plan"]
        self._left: list[Trial] = list(trials)
        self._nll: dict[str, float] = dict(nll)
        self._budgets: dict[int, int] = new_config["budgets"]
        self._round: list[float] = []
        return True

    def step(self) -> dict[str, Any]:
        trial = self._left.pop(0)
        result: dict[str, Any] = {"done": not self._left}
        if trial.key not in self._nll:
            result["record"] = self._bench.run(trial)
            self._nll[trial.key] = _nll(result["record"])
        self._round.append(self._nll[trial.key])
        epochs = trial.config.epochs
        ends_round = not self._left or self._left[0].config.epochs > epochs
        if ends_round and epochs in self._budgets and not trial.is_baseline:
            nll, self._round = statistics.fmean(self._round), []
            # The mean of a plan of which trials failed is that of the lucky ones: it ends here, unranked.
            result |= {"nll": nll, "budget": self._budgets[epochs]} if math.isfinite(nll) else {"done": True}
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A trial that is lost is begun again; those of its plan that ended before are known."""


class _Recorder(tune.Callback):
    """Hands over records as trials end, and what will not be run since the scheduler stops a plan."""

    def __init__(self, record: Callable[[dict[str, Any]], None], drop: Callable[[list[Trial]], None]) -> None:
        self._record, self._drop = record, drop

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks to restore a run from them; here the sweep's own file does that."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        entry, left = result.get("record"), _left(trial)
        if entry:
            trial.config["plan"][1][entry["key"]] = _nll(entry)  # a worker that replaces this one starts from here
            left = left[1:]
        if result["done"]:
            self._drop(left)
        if entry:
            self._record({**entry, "stopped": True} if result["done"] and left else entry)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died, again and again: a trial's own errors are results."""
        if not (left := _left(trial)):  # it had done its work
            return
        lost = left[0]
        entry = {"key": lost.key, "axes": lost.axes, "config": vars(lost.config), "versions": versions()}
        text = str(trial.get_error() or "the worker is gone").strip().splitlines()[-1]
        self._record(as_json({**entry, "error": f"WorkerLost: {text}", "seconds": 0.0}))
        self._drop(left[1:])


def run_trials(
    trials: list[Trial], record: Callable[[dict[str, Any]], None], workers: int | None, **options: Any
) -> None:
    """Runs trials on a Ray cluster: the one that `RAY_ADDRESS` names or this program has joined, or this machine.

    Args:
        trials: what to run; the order in which they end is Ray's.
        record: gets each record in this process, so that there is one writer.
        workers: how many trials at a time; None for as many as there is room for.
        options: as of `halve`.
    """
    _run([[trial] for trial in trials], {}, record, lambda _: None, workers, scheduler=None, budgets={}, **options)


def halve(
    plans: list[list[Trial]],
    known: dict[str, dict[str, Any]],
    eta: int,
    record: Callable[[dict[str, Any]], None],
    drop: Callable[[list[Trial]], None],
    workers: int | None,
    **options: Any,
) -> None:
    """Asynchronous successive halving, by Ray's own scheduler.

    Each plan runs all its seeds and folds for the epochs of a round, and goes on to the next one if the mean of
    its validation NLL is among the best 1 / `eta` of those that got there before it. Baselines always do.

    Args:
        plans: the trials of each plan, those of few epochs first.
        known: records by key of trials that have been run, which the scheduler is told of.
        eta: one of so many goes on.
        record: as of `run_trials`.
        drop: gets the trials of a plan that does not go on.
        workers: how many plans at a time.
        options: `resources` of a trial, as Ray names them; `mc_samples`, as of `Workbench`.
    """
    rounds = sorted({trial.config.epochs for plan in plans for trial in plan})
    budgets = {epochs: eta**i for i, epochs in enumerate(rounds)}
    alive = [_alive(plan, known) for plan in plans]
    for plan, kept in zip(plans, alive, strict=True):
        drop(plan[len(kept) :])
    scheduler = ASHAScheduler(
        time_attr="budget", metric="nll", mode="min", max_t=max(budgets.values()), reduction_factor=eta
    )
    nll = {key: _nll(each) for key, each in known.items()}
    _run(alive, nll, record, drop, workers, scheduler=scheduler, budgets=budgets, **options)


def _run(
    plans: list[list[Trial]],
    nll: dict[str, float],
    record: Callable[[dict[str, Any]], None],
    drop: Callable[[list[Trial]], None],
    workers: int | None,
    *,
    resources: dict[str, float],
    mc_samples: int,
    scheduler: ASHAScheduler | None,
    budgets: dict[int, int],
) -> None:
    if all(trial.key in nll for plan in plans for trial in plan):
        return
    pairs = [(plan, {trial.key: nll[trial.key] for trial in plan if trial.key in nll}) for plan in plans]
    shared = {"budgets": budgets, "mc_samples": mc_samples, "cores": resources.get("cpu", 0)}
    with _cluster(), tempfile.TemporaryDirectory(prefix="dropzoo-ray-") as scratch:
        share, at_once = _share(workers, resources)
        tune.Tuner(
            tune.with_resources(_Worker, share),
            param_space={**shared, "plan": tune.grid_search(pairs)},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True, scheduler=scheduler),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                callbacks=[_Recorder(record, drop)],
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
            ),
        ).fit()


def _share(workers: int | None, resources: dict[str, float]) -> tuple[dict[str, float], int | None]:
    """What each trial gets, and how many there are at a time; together the whole cluster by default."""
    cores, gpus = (ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU"))
    at_once = workers or (None if resources else max(1, int(gpus or cores // 2)))
    share: dict[str, float] = {"cpu": 1 if at_once is None else max(1, int(cores // at_once))}
    share |= {"gpu": gpus / at_once} if gpus and at_once and "gpu" not in resources else {}
    share |= resources
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    names = {"cpu": "CPU", "gpu": "GPU"}
    if not any(all(node.get(names.get(n, n), 0) >= need for n, need in share.items()) for node in nodes):
        wanted = ", ".join(f"{name}={need:g}" for name, need in share.items())
        raise ValueError(f"No machine of the cluster has what a trial is to get: {wanted}")
    return share, at_once


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """A cluster for the block; one that is there already is left as it is."""
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _alive(plan: list[Trial], known: dict[str, dict[str, Any]]) -> list[Trial]:
    """A plan up to the round in which the scheduler stopped it; whole if trials were added to those rounds."""
    ran = [trial for trial in plan if trial.key in known]
    if not any(known[trial.key].get("stopped") for trial in ran):
        return plan
    reached = [trial for trial in plan if trial.config.epochs <= ran[-1].config.epochs]
    return reached if len(reached) == len(ran) else plan


def _left(tuned: Any) -> list[Trial]:
    """The trials of a plan that have not been run."""
    trials, nll = tuned.config["plan"]
    return [trial for trial in trials if trial.key not in nll]


def _nll(record: dict[str, Any]) -> float:
    """Of the validation images; infinite where the trial failed."""
    nll = record.get("validation", {}).get("nll")
    return math.inf if nll is None else float(nll)
