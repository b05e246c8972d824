"""The engine `ray`: the trials of a sweep by Ray Tune, on one machine or a cluster."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# The sweep has a table and a file of its own; and nothing is reported to anybody.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import tune

from dropzoo.sweep_space import Trial
from dropzoo.trials import Workbench, as_json, versions

# A worker that dies, for want of memory or with its machine, is replaced, and its trial begun again so often.
_RETRIES = 1


class _Worker(tune.Trainable):
    """A process that runs trials, one a step; it keeps its workbench, and with it what was traced."""

    def setup(self, config: dict[str, Any]) -> None:
        self._bench = Workbench(config["mc_samples"])
        self._trial: Trial = config["trial"]

    def step(self) -> dict[str, Any]:
        return {"record": self._bench.run(self._trial), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = new_config["trial"]
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A trial that is lost is begun again."""


class _Recorder(tune.Callback):
    def __init__(self, record: Callable[[dict[str, Any]], None]) -> None:
        self._record = record

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks to restore a run from them; here the sweep's own file does that."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self._record(result["record"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died, again and again: a trial's own errors are results."""
        lost: Trial = trial.config["trial"]
        entry = {"key": lost.key, "axes": lost.axes, "config": vars(lost.config), "versions": versions()}
        text = str(trial.get_error() or "the worker is gone").strip().splitlines()[-1]
        self._record(as_json({**entry, "error": f"WorkerLost: {text}", "seconds": 0.0}))


def run_trials(
    trials: list[Trial], record: Callable[[dict[str, Any]], None], workers: int | None, mc_samples: int
) -> None:
    """Runs trials on a Ray cluster: the one that `RAY_ADDRESS` names or this program has joined, or this machine.

    Args:
        trials: what to run; the order in which they end is Ray's.
        record: gets each record in this process, so that there is one writer.
        workers: how many trials at a time; None for as many as there are cores for two a trial.
        mc_samples: as of `Workbench`.
    """
    with _cluster():
        cores, gpus = (ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU"))
        at_once = workers or max(1, int(gpus or cores // 2))
        share = {"cpu": max(1, int(cores // at_once)), "gpu": gpus / at_once if gpus else 0}
        with tempfile.TemporaryDirectory(prefix="dropzoo-ray-") as scratch:
            tune.Tuner(
                tune.with_resources(_Worker, share),
                param_space={"trial": tune.grid_search(trials), "mc_samples": mc_samples},
                tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[_Recorder(record)],
                    failure_config=tune.FailureConfig(max_failures=_RETRIES),
                ),
            ).fit()


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
