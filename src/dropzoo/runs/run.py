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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo import models, training
from dropzoo.common.files import whole_file
from dropzoo.common.images import image_shape
from dropzoo.common.pixels import Pixels
from dropzoo.common.shell import quote
from dropzoo.models.graph.record import load_model, recorded, remember
from dropzoo.runs.config import RunConfig, as_json, check_fit
from dropzoo.runs.data import (
    absolute,
    check_same_data,
    data_folder,
    differences,
    judged_images,
    load_run_data,
    read_info,
)
from dropzoo.runs.devices import prepare_devices
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.figures import Figures
from dropzoo.runs.files import read_json, write_history, write_json
from dropzoo.runs.inputs import fed
from dropzoo.runs.logs import loggers_of
from dropzoo.runs.recipe import Patience, is_exhausted
from dropzoo.runs.settings import READING_ELSEWHERE
from dropzoo.serving.montecarlo.reader import check_single
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
        say(
            f"{out} continues from epoch {_epochs_done(out / 'checkpoints')} to {config.epochs}; schedules "
            f"are those of {config.epochs} epochs from here"
        )
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
    placed = sum(site.spec is not None for site in models.list_sites(model))
    say(
        f"{config.model}: {model.count_params():,} parameters, dropout at {placed} sites; "
        f"{data.info.num_train:,} training images"
    )
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
        say(f"The model is that of epoch {best}, which has the best loss")
    if chief:
        write_history(out / "history.csv", history)
        with whole_file(out / "model.keras") as unfinished:
            model.save(unfinished)
    figures = evaluate(model, judged_images(data), data.info)
    if chief:
        write_json(out / "results.json", figures)
    return model, figures


def _epochs_left(checkpoints: Path, config: RunConfig) -> int:
    """Returns the number of epochs to train for: those that are done if the patience has ended."""
    history = read_history(checkpoints) if checkpoints.is_dir() else {}
    losses = history.get("val_loss") or history.get("loss") or []
    return len(losses) if is_exhausted(losses, config.patience or 1) else config.epochs


def _epochs_done(checkpoints: Path) -> int:
    """Returns the number of epochs in the history of a run."""
    history = read_history(checkpoints) if checkpoints.is_dir() else {}
    return max(map(len, history.values()), default=0)


def load_run(out: Path) -> tuple[keras.Model, RunConfig, training.DataInfo]:
    """Loads the model, the config and the data set's facts of a finished run.

    Raises:
        ValueError: If `out` holds no finished run.
    """
    if not (out / "run.json").exists() or not (out / "model.keras").exists():
        raise ValueError(
            f"{out} holds no finished run; make one with: "
            f"dropzoo train MODEL --data DATA --out {quote(str(out))}. "
            "To evaluate another model, pass its data: --data DATA"
        )
    config = RunConfig.from_json(read_json(out / "run.json")["config"])
    model = load_run_model(out / "model.keras")
    known = recorded(model)
    if known is not None and known.stored is None and config.value_range is not None:  # an older run
        remember(model, dataclasses.replace(known, stored=config.value_range))
    return model, config, read_info(out)


def load_run_for(
    out: Path, split: str | None = None, reading: Mapping[str, Any] | None = None
) -> tuple[keras.Model, RunConfig, training.Data]:
    """Loads a finished run with its data, to judge it on them.

    Args:
        out: Path of the run's folder.
        split: The images to judge on, as for `judged_images`.
        reading: Fields of `Settings` that replace those of the run.
    """
    model, config, _ = load_run(out)
    changed = {**(reading or {}), **({"test_split": 1} if split == "all" else {})}
    config = dataclasses.replace(config, **changed)
    return model, config, load_run_data(config, out)


def load_model_for(
    path: Path,
    data: str,
    manual_dir: str | None = None,
    split: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> tuple[keras.Model, RunConfig, training.Data]:
    """Loads a model, and data that are converted to its channels and, if it takes squares, to its size.

    A folder is read as that of the run was: the same label does not count, and masks mean the same.

    Args:
        path: Path of a `.keras` file, or of a folder with a `model.keras`: a run, or a reference model.
        data: Str, a data set or a folder, as for `load_data`.
        manual_dir: Str or None, as for `load_data`.
        split: The images to judge on, as for `judged_images`.
        reading: Fields of `Settings` that say how a folder is read, and replace those of the run.

    Returns:
        The model, a config that says how its data were loaded, and the data.

    Raises:
        ValueError: If there is no such file, or the model does not fit the data.
    """
    file = path if path.suffix == ".keras" else path / "model.keras"
    if not file.is_file():
        raise ValueError(f"Expected a .keras file, or a folder with a model.keras in it. Received: {path}")
    model = load_run_model(path / "model.keras") if (path / "run.json").is_file() else load_model(file)
    check_single(model)
    if len(model.input_shape) != 4:
        raise ValueError(f"{file} does not take (batch, height, width, channels). Received: {model.input_shape}")
    height, width, channels = image_shape(model.input_shape)
    config = RunConfig(
        model=str(path),
        data=data,
        image_size=height if height == width else None,
        num_channels=channels if channels in (1, 3) else None,
        manual_dir=manual_dir,
        **(_reading_of(path, model) if absolute(data) else {}) | dict(reading or {}),
    )
    if split == "all":
        config = dataclasses.replace(config, test_split=1)
    loaded = config.load_data()
    check_fit(
        model,
        config.model,
        loaded.info,
        "Choose another model",
        "They are resized only for a model that takes squares",
    )
    if (path / "run.json").is_file():
        advice = f"If the classes mean the same, pass {file}, which does not record their names"
        check_same_data(path, loaded.info, ("class_names",), advice)
    return model, config, loaded


def _reading_of(path: Path, model: keras.Model) -> dict[str, Any]:
    """Returns how the folder of a run was read, or, for a model alone, what its file says about that."""
    if (path / "run.json").is_file():
        saved = RunConfig.from_json(read_json(path / "run.json")["config"])
        found = {name: getattr(saved, name) for name in READING_ELSEWHERE}
        if saved.class_names is not None:  # a file of names may be in the folder of the run's data
            found["class_names"] = ",".join(read_info(path).class_names)
        return found
    ignored, known = getattr(getattr(model, "loss", None), "ignore_class", None), recorded(model)
    found = {"ignore_class": ignored, "value_range": None if known is None else known.stored}
    return {name: value for name, value in found.items() if value is not None}


def load_run_model(file: Path) -> keras.Model:
    """Returns a model of a run; without a record in its file, it was trained on images in [0, 1].

    Args:
        file: Path of the run's `model.keras`, or of a snapshot.
    """
    model = load_model(file)
    if recorded(model) is None:
        remember(model, Pixels(source="the training images"))
    return model


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
        Whether the run in `out` is to go on for more epochs.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "run.json").exists()):
        raise ValueError(f"{out} holds something that is not a run; choose another folder with --out")
    if not (out / "run.json").exists():
        return False
    saved, wanted = read_json(out / "run.json"), as_json(config)
    held = as_json(RunConfig.from_json(saved["config"]))  # a setting that the file lacks has its default
    folder = absolute(config.data)
    if folder and folder == saved.get("folder"):  # the same folder under another name
        held["data"] = wanted["data"]
    epochs: Any = held["epochs"]
    if (
        config.epochs > epochs
        and not config.snapshots
        and not differences({**held, "epochs": config.epochs}, wanted)
    ):
        return True
    changed = differences(held, wanted)
    if changed:
        raise ValueError(
            f"{out} holds another run; choose another folder with --out, or delete it. A run can only be "
            f"continued with more --epochs. Differences: {changed}"
        )
    return False


def _write_config(out: Path, config: RunConfig, info: training.DataInfo) -> None:
    facts = {"folder": data_folder(config, out), "info": dataclasses.asdict(info)}
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    write_json(out / "run.json", {"config": as_json(config), **facts, "versions": versions})


def _say_nothing(_: str) -> None:
    """Prints nothing: all workers but the chief are silent."""
