"""The engine `ray`: runs the trials of a sweep with Ray Tune, on one machine or a cluster."""

import contextlib
import dataclasses
import logging
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# The sweep has its own table and file, and no usage is reported.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interrupt ends the sweep, not only the run of Tune
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a plan reports its mean only when a round ends
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # trials may share a GPU

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

import tensorflow as tf

from dropzoo.sweep.trials import Outcome, Record, Trial
from dropzoo.sweep.workbench import Workbench, versions

# How many times a worker that dies (out of memory, or with its machine) is replaced by one that repeats its trial.
_RETRIES = 1


class _Worker(tune.Trainable):
    """A process that runs the trials of a plan, one per step. It keeps its workbench, and so all traced graphs.

    Its config has four entries. `plan` is a pair: the trials in their order, and a dict from the keys of those
    that were run before to their NLL. `budgets` maps the epochs of a trial to the scheduler's measure of time.
    `mc_samples` is the argument of `Workbench`. `cores` is the number of threads of an operation; 0 for all.
    """

    def setup(self, config: dict[str, Any]) -> None:
        if config["cores"]:  # Ray counts cores but does not enforce them
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
            # A failed trial has an infinite NLL. A mean without it would flatter the plan, which ends here.
            result |= {"nll": nll, "budget": self._budgets[epochs]} if math.isfinite(nll) else {"done": True}
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves nothing: a lost trial begins again, and the results of earlier trials are recorded elsewhere."""


class _Recorder(tune.Callback):
    """Passes on each record as its trial ends, and the trials that will not be run when a plan is stopped."""

    def __init__(self, record: Callable[[Record], None], drop: Callable[[list[Trial]], None]) -> None:
        self._record, self._drop = record, drop

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks to restore a run from them; here the sweep's file does that."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        entry: Record | None = result.get("record")
        left = _left(trial)
        if entry:
            # A worker that replaces this one starts from here.
            trial.config["plan"][1][entry.trial.key] = _nll(entry)
            left = left[1:]
        if result["done"]:
            self._drop(left)
        if entry:
            self._record(dataclasses.replace(entry, stopped=True) if result["done"] and left else entry)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that a worker died more often than it is replaced; an error of the trial itself is a result."""
        if not (left := _left(trial)):  # it had done its work
            return
        text = str(trial.get_error() or "the worker is gone").strip().splitlines()[-1]
        outcome = Outcome(seconds=0.0)
        self._record(Record(trial=left[0], versions=versions(), outcome=outcome, error=f"WorkerLost: {text}"))
        self._drop(left[1:])


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster: the one that `RAY_ADDRESS` names or this program has joined, or this machine.

    Args:
        workers: Int above 0, the number of plans at a time; None for as many as there is room for.
        resources: Dict of the amounts that each trial gets, by Ray's names; empty to share out all.
        mc_samples: Int, as for `Workbench`.
    """

    workers: int | None
    resources: dict[str, float]
    mc_samples: int

    def run_trials(self, trials: list[Trial], record: Callable[[Record], None]) -> None:
        """Runs trials, in an order that Ray chooses.

        Args:
            trials: The trials to run.
            record: Function that gets each record. It is called in this process, so that there is one writer.
        """
        self._run([[trial] for trial in trials], {}, _Recorder(record, lambda _: None), None, {})

    def halve(
        self,
        plans: list[list[Trial]],
        known: dict[str, Record],
        eta: int,
        record: Callable[[Record], None],
        drop: Callable[[list[Trial]], None],
    ) -> None:
        """Runs asynchronous successive halving with Ray's own scheduler.

        Each plan runs all of its seeds and folds for the epochs of a round. It goes on to the next round if the
        mean of its calibrated validation NLL is among the best 1 / `eta` of the plans that have finished the round
        so far. Baselines always go on.

        Args:
            plans: The trials of each plan, sorted by epochs.
            known: Dict of the records of trials that were run before, by key, which are passed to the scheduler.
            eta: Int from 2 up; about one plan in `eta` goes on.
            record: As for `run_trials`.
            drop: Function that gets the remaining trials of a plan that does not go on.
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
        self._run(alive, nll, _Recorder(record, drop), scheduler, budgets)

    def _run(
        self,
        plans: list[list[Trial]],
        nll: dict[str, float],
        recorder: _Recorder,
        scheduler: ASHAScheduler | None,
        budgets: dict[int, int],
    ) -> None:
        if all(trial.key in nll for plan in plans for trial in plan):
            return
        pairs = [(plan, {trial.key: nll[trial.key] for trial in plan if trial.key in nll}) for plan in plans]
        cores = self.resources.get("cpu", 0)
        shared = {"budgets": budgets, "mc_samples": self.mc_samples, "cores": cores}
        with _joined(), tempfile.TemporaryDirectory(prefix="dropzoo-ray-") as scratch:
            share, at_once = _share(self.workers, self.resources)
            tune.Tuner(
                tune.with_resources(_Worker, share),
                param_space={**shared, "plan": tune.grid_search(pairs)},
                tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True, scheduler=scheduler),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[recorder],
                    failure_config=tune.FailureConfig(max_failures=_RETRIES),
                ),
            ).fit()


def _share(workers: int | None, resources: dict[str, float]) -> tuple[dict[str, float], int | None]:
    """Returns the resources of each trial, and how many run at a time; by default they fill the whole cluster."""
    cores, gpus = (ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU"))
    at_once = workers or (None if resources else max(1, int(gpus or cores // 2)))
    share: dict[str, float] = {"cpu": 1 if at_once is None else max(1, int(cores // at_once))}
    share |= {"gpu": gpus / at_once} if gpus and at_once and "gpu" not in resources else {}
    share |= resources
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    names = {"cpu": "CPU", "gpu": "GPU"}
    if not any(all(node.get(names.get(n, n), 0) >= need for n, need in share.items()) for node in nodes):
        wanted = ", ".join(f"{name}={need:g}" for name, need in share.items())
        raise ValueError(
            f"No machine of the cluster has the resources for one trial: {wanted}. Pass smaller `resources` "
            "(--resource)"
        )
    return share, at_once


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """Joins or starts a cluster for the block; one that is joined already is left as it is."""
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _alive(plan: list[Trial], known: dict[str, Record]) -> list[Trial]:
    """Returns a plan up to the round in which it was stopped; all of it if trials were added to those rounds."""
    ran = [trial for trial in plan if trial.key in known]
    if not any(known[trial.key].stopped for trial in ran):
        return plan
    reached = [trial for trial in plan if trial.config.epochs <= ran[-1].config.epochs]
    return reached if len(reached) == len(ran) else plan


def _left(tuned: Any) -> list[Trial]:
    """Returns the trials of a plan that have not been run."""
    trials, nll = tuned.config["plan"]
    return [trial for trial in trials if trial.key not in nll]


def _nll(record: Record) -> float:
    """Returns the NLL of the validation images, calibrated if it was measured; infinity if the trial failed."""
    found = record.outcome.validation
    nll = found.get("calibrated_nll", found.get("nll"))
    return math.inf if nll is None else float(nll)
