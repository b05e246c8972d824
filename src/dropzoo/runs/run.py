"""A training run: one folder that holds its config, checkpoints, curves, model and figures.

run.json       the config, the folder and the facts of the data, the versions of Keras and TensorFlow
checkpoints/   the newest three, from which a run that was stopped continues
history.csv    the curves, one row an epoch
member1/ ...   snapshots of the model, if the config asks for them
model.keras    the trained model
results.json   the figures on the test set, or the images that stand in for it; written when the run is finished
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo import models, training
from dropzoo.common.files import whole_file
from dropzoo.common.words import count_of
from dropzoo.models.graph.record import load_model
from dropzoo.runs.config import RunConfig, as_json
from dropzoo.runs.data import (
    data_folder,
    differences,
    judged_images,
    load_run_data,
    under_one_name,
)
from dropzoo.runs.devices import prepare_devices
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.figures import Figures
from dropzoo.runs.files import read_json, write_history, write_json
from dropzoo.runs.inputs import fed
from dropzoo.runs.logs import loggers_of
from dropzoo.runs.recipe import Patience, is_exhausted
from dropzoo.training.loop.checkpoints import read_history, restore_best
from dropzoo.training.loop.replicas import is_chief, scope


def train_run(
    config: RunConfig,
    out: Path,
    say: Callable[[str], None] = print,
    verbose: int | None = None,
    steps_per_execution: int = 1,
    log: Sequence[str] = (),
    show: Callable[[training.Data], None] = lambda data: None,
) -> tuple[keras.Model, Figures]:
    """Trains in the folder `out`, or continues there if a run of the same config was stopped.

    If `TF_CONFIG` names several workers, each of them calls this with a folder that they share; the chief writes.

    Args:
        config: The config of the run.
        out: Path of the run's folder.
        say: Function that prints a line.
        verbose: Int, as for `Trainer.fit`; None for a progress bar in a terminal, and elsewhere a line per epoch.
        steps_per_execution: Int above 0, as for `Trainer`.
        log: Names of `LOGGERS`, which write the course of the training into the folder, or to MLflow.
        show: Function that gets the data before the training begins.

    Returns:
        The model, and its figures on `judged_images`.

    Raises:
        ValueError: If `out` holds something else, a run of another config, or a run on data that have changed.
    """
    devices = prepare_devices()  # before TensorFlow uses them
    strategy = training.multi_worker_strategy() if "TF_CONFIG" in os.environ else None
    chief = is_chief(strategy)
    if not chief:
        say = _say_nothing
    say(f"Training on {devices}")
    more = _check_folder(out, config)
    if more:
        done = _epochs_done(out / "checkpoints")
        said = f"{out} continues from epoch {done} to {config.epochs}"
        say(f"{said}; from here on, the schedules are those of {config.epochs} epochs")
    elif (out / "results.json").exists():
        say(f"{out} already holds this run, and it is finished. There is nothing to train")
        return load_model(out / "model.keras"), read_json(out / "results.json")

    data = load_run_data(config, out, "num_train")  # with more or fewer images the batches would differ
    if chief:
        show(data)
    with scope(strategy):
        model = config.build(data.info)
    callbacks = config.rate_callbacks()
    for callback in callbacks:
        callback.match(model)  # a pattern without a site is an error before anything is written
    loggers = loggers_of(log, out, config, data, model) if chief else []
    snapshots = [_Snapshots(model, out, config.epochs // config.snapshots)] if config.snapshots and chief else []
    epochs = config.epochs
    if config.patience is not None:
        callbacks.append(Patience(config.patience))
        epochs = _epochs_left(out / "checkpoints", config)
    trainer = config.trainer(model, data.info, strategy=strategy, steps_per_execution=steps_per_execution)
    if chief:
        if more:
            trainer.goes_on_from(out / "checkpoints")
            (out / "results.json").unlink(missing_ok=True)  # before the config: a stop in between loses nothing
        _write_config(out, config, data.info)
    say(_described(config, model, data.info))
    history = trainer.fit(
        fed(data.train, model),
        validation_data=None if data.validation is None else fed(data.validation, model),
        epochs=epochs,
        callbacks=[*callbacks, *snapshots, *loggers],
        class_weight=config.class_weight(data.train, data.info),
        checkpoint_dir=out / "checkpoints",
        verbose=(1 if sys.stdout.isatty() else 2) if verbose is None else verbose,
    ).history
    if config.best and (best := restore_best(out / "checkpoints", trainer.model)):
        say(f"The model is that of epoch {best}, which has the best validation loss")
    if chief:
        _write_model(out, model, history)
    figures = evaluate(model, judged_images(data), data.info)
    if chief:
        write_json(out / "results.json", figures)
    return model, figures


def _described(config: RunConfig, model: keras.Model, info: training.DataInfo) -> str:
    """Returns a line about a model, its dropout and its training images."""
    placed = sum(site.spec is not None for site in models.list_sites(model))
    return (
        f"{config.model}: {model.count_params():,} parameters, dropout at {count_of(placed, 'site')}; "
        f"{count_of(info.num_train, 'training image')}"
    )


def _write_model(out: Path, model: keras.Model, history: dict[str, list[float]]) -> None:
    """Writes the curves and the model of a run."""
    write_history(out / "history.csv", history)
    with whole_file(out / "model.keras") as unfinished:
        model.save(unfinished)


def _epochs_left(checkpoints: Path, config: RunConfig) -> int:
    """Returns the number of epochs to train for: those that are done if the patience has ended."""
    history = read_history(checkpoints) if checkpoints.is_dir() else {}
    losses = history.get("val_loss") or history.get("loss") or []
    return len(losses) if is_exhausted(losses, config.patience or 1) else config.epochs


def _epochs_done(checkpoints: Path) -> int:
    """Returns the number of epochs in the history of a run."""
    history = read_history(checkpoints) if checkpoints.is_dir() else {}
    return max(map(len, history.values()), default=0)


def snapshot_file(out: Path, number: int) -> Path:
    """Returns the file of a snapshot of the run in `out`; the first has the number 0."""
    return out / f"member{number + 1}" / "model.keras"


class _Snapshots(keras.callbacks.Callback):
    """Saves the model at the end of each cycle, before the checkpoint of that epoch is written."""

    def __init__(self, model: keras.Model, out: Path, every: int) -> None:
        super().__init__()
        self._saved, self._out, self._every = model, out, every

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        number, rest = divmod(epoch + 1, self._every)
        if not rest:
            with whole_file(snapshot_file(self._out, number - 1)) as unfinished:
                self._saved.save(unfinished)


def _check_folder(out: Path, config: RunConfig) -> bool:
    """Raises a ValueError if `out` holds anything but this run, or the same run of fewer epochs.

    Returns:
        Whether the run in `out` is to continue for more epochs.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "run.json").exists()):
        raise ValueError(f"{out} holds something that is not a run; choose another folder with --out")
    if not (out / "run.json").exists():
        return False
    saved, wanted = read_json(out / "run.json"), as_json(config)
    held = as_json(RunConfig.from_json(saved["config"]))  # a setting that the file lacks has its default
    held = under_one_name(held, wanted, saved.get("folder"))
    epochs: Any = held["epochs"]
    longer = config.epochs > epochs and not config.snapshots
    changed = differences({**held, "epochs": config.epochs} if longer else held, wanted)
    if changed:
        more = "" if config.snapshots else "; only --epochs may be larger"
        raise ValueError(
            f"{out} holds another run; choose another folder with --out, or delete this one. To continue the run, "
            f"repeat its command{more}. Differences: {changed}"
        )
    return longer


def _write_config(out: Path, config: RunConfig, info: training.DataInfo) -> None:
    facts = {"folder": data_folder(config, out), "info": dataclasses.asdict(info)}
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    write_json(out / "run.json", {"config": as_json(config), **facts, "versions": versions})


def _say_nothing(_: str) -> None:
    """Prints nothing: all workers except the chief are silent."""
