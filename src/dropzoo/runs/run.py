"""A training run: one folder that holds its config, checkpoints, curves, model and results.

run.json       what was asked for, where the data's folder is, the data set's facts, the versions
checkpoints/   the newest three; a run that was stopped goes on from there
history.csv    one row an epoch
model.keras    the trained model
results.json   the figures on the test set, or what stands in for it; there once the run is finished
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import keras
import tensorflow as tf

from dropzoo import models, training
from dropzoo.runs.devices import prepare_devices
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.figures import Figures
from dropzoo.runs.files import read_json, write_history, write_json
from dropzoo.runs.settings import FILE_NAMES, Settings, renamed
from dropzoo.serving.export.signatures import takes_integers
from dropzoo.serving.montecarlo.sampler import check_single
from dropzoo.training.data.load import find_folder
from dropzoo.training.loop.replicas import is_chief, scope
from dropzoo.training.losses.cross_entropy import check_smoothing

#: What of a run's config says which images it sees, and in which order.
DATA_ARGUMENTS = (
    *("batch_size", "augment", "image_size", "num_channels", "validation_split", "limit", "seed"),
    *("fold", "data_dir", "manual_dir"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """What to train on what; the defaults are those of `dropzoo train`.

    Args:
        model: Name of a model, as for `build_model`.
        dropout: A rate, the name of a plan, or a dict from patterns to specs, as for `build_model`.
        options: Further arguments of `build_model`.
        rate_schedule: Dict from patterns of sites to schedules of the dropout rate, as text.
        augment: As for `load_data`.
        label_smoothing: Float in [0, 1).
        seed: Int in [0, 2**32). It fixes the initial weights, the order of the images and the dropout masks.
        fold: `(k, n)` for part `k` of a cross-validation in `n` parts, as for `load_data`.
        data, epochs, ...: See `Settings`.

    Raises:
        ValueError: If a value is out of its range.
    """

    model: str
    dropout: Any = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rate_schedule: dict[str, Any] | None = None
    augment: bool | str = False
    label_smoothing: float = 0.0
    seed: int = 0
    fold: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)
        self.rate_callbacks()

    def to_json(self) -> dict[str, Any]:
        """Returns the config as files hold it, under their names for the fields."""
        return renamed(dataclasses.asdict(self), FILE_NAMES)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "RunConfig":
        """Returns the config that `to_json` was called on."""
        config = renamed(saved, {old: new for new, old in FILE_NAMES.items()})
        return cls(**{**config, "fold": config.get("fold") and tuple(config["fold"])})

    def rate_callbacks(self) -> list[training.RateSchedule]:
        return [] if self.rate_schedule is None else [training.RateSchedule(self.rate_schedule)]

    def load_data(self) -> training.Data:
        return training.load_data(self.data, **{name: getattr(self, name) for name in DATA_ARGUMENTS})

    def build(self, info: training.DataInfo) -> keras.Model:
        """The model for the data, as `seed` starts it; a ValueError if it cannot be meant for them."""
        keras.utils.set_random_seed(self.seed)  # after the data: preparing a set may draw from Python's generator
        shape = {"input_shape": info.input_shape, "num_classes": info.num_classes}
        model = models.build_model(self.model, dropout=self.dropout, **{**shape, **self.options})
        _check_fit(model, self, info)
        return model

    def steps(self, info: training.DataInfo) -> int:
        return self.epochs * math.ceil(info.num_train / self.batch_size)

    def trainer(self, model: keras.Model, info: training.DataInfo, **options: Any) -> training.Trainer:
        """The trainer of this run; `options` are those of `Trainer`."""
        rate: Any = self.learning_rate
        if self.learning_rate_schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, self.steps(info))
        loss = training.default_loss(info.task, info.num_classes, self.label_smoothing)
        return training.Trainer(model, keras.optimizers.Adam(rate), loss, **options)


def train_run(
    config: RunConfig,
    out: Path,
    say: Callable[[str], None] = print,
    verbose: int | None = None,
    steps_per_execution: int = 1,
) -> tuple[keras.Model, Figures]:
    """Trains in the folder `out`, or goes on where a run of the same config was stopped.

    Where `TF_CONFIG` names several workers, each runs this with a folder that they share; the chief writes.

    Returns:
        The model, and its figures on `judged_images`.

    Raises:
        ValueError: if `out` holds something else, or a run of another config.
    """
    devices = prepare_devices()  # before TensorFlow uses them
    strategy = training.multi_worker_strategy() if "TF_CONFIG" in os.environ else None
    chief = is_chief(strategy)
    if not chief:
        say = _nothing
    say(f"Trains on {devices}")
    wanted = json.loads(json.dumps(config.to_json()))
    _check_folder(out, wanted)
    if (out / "results.json").exists():
        say(f"{out} holds this run already, finished; nothing to train")
        return keras.models.load_model(out / "model.keras"), read_json(out / "results.json")

    data = load_run_data(config, out, "num_train")  # of other images, or as many of them, batches are others
    with scope(strategy):
        model = config.build(data.info)
    callbacks = config.rate_callbacks()
    for callback in callbacks:
        callback.match(model)
    trainer = config.trainer(model, data.info, strategy=strategy, steps_per_execution=steps_per_execution)

    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    if chief:
        out.mkdir(parents=True, exist_ok=True)
        facts = {"folder": _folder(config, out), "info": dataclasses.asdict(data.info)}
        write_json(out / "run.json", {"config": wanted, **facts, "versions": versions})
    placed = sum(site.spec is not None for site in models.list_sites(model))
    say(
        f"{config.model}: {model.count_params():,} parameters, dropout at {placed} sites; "
        f"{data.info.num_train:,} training images"
    )
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=config.epochs,
        callbacks=callbacks,
        checkpoint_dir=out / "checkpoints",
        verbose=(1 if sys.stdout.isatty() else 2) if verbose is None else verbose,  # a bar, or a line an epoch
    ).history
    if chief:
        write_history(out / "history.csv", history)
        model.save(out / "unfinished.keras")
        os.replace(out / "unfinished.keras", out / "model.keras")
    figures = evaluate(model, judged_images(data), data.info)
    if chief:
        write_json(out / "results.json", figures)
    return model, figures


def judged_images(data: training.Data) -> tf.data.Dataset:
    """The test set, or the next best: `judged_on` says which."""
    return data.test or data.validation or data.train.at_epoch(0)


def judged_on(info: training.DataInfo) -> str:
    """The split of `judged_images`."""
    return "test" if info.num_test else "validation" if info.num_validation else "training"


def _nothing(_: str) -> None:
    """What all workers but the chief say."""


def read_info(out: Path) -> training.DataInfo:
    """Returns the facts of the data set that a run was trained on."""
    saved = read_json(out / "run.json")["info"]
    info: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
    return training.DataInfo(**info)


def load_run(out: Path) -> tuple[keras.Model, RunConfig, training.DataInfo]:
    """The model, config and data set's facts of a finished run."""
    if not (out / "run.json").exists() or not (out / "model.keras").exists():
        raise ValueError(
            f"{out} holds no finished run; make one with: "
            f"dropzoo train MODEL --data DATA --out {quote(str(out))}. "
            "To evaluate another model, say on what: --data DATA"
        )
    saved = read_json(out / "run.json")
    model = keras.models.load_model(out / "model.keras")
    return model, RunConfig.from_json(saved["config"]), read_info(out)


def load_run_data(config: RunConfig, out: Path, *facts: str) -> training.Data:
    """The data of a config, which must still be those of the run in `out`, if there is one.

    A folder that is not found by the name given, as from another working directory, is where the run found it.

    Args:
        config: of the run.
        out: the run's folder.
        *facts: names of `DataInfo` that must not have changed either; the task and the classes never may.

    Raises:
        ValueError: if they have: to the model, an output is a class by its place.
    """
    data = dataclasses.replace(config, data=_folder(config, out) or config.data).load_data()
    if (out / "run.json").exists():
        advice = "Bring the data back as they were, or train another run"
        _check_same_data(out, data.info, ("task", "class_names", *facts), advice)
    return data


def load_model_for(
    path: Path, data: str, manual_dir: str | None = None
) -> tuple[keras.Model, RunConfig, training.Data]:
    """A model from wherever, and data as it takes them: its channels, and its size where that is fixed.

    Of a folder, the images that training would leave for the test, the last fifth, are the test set here too.

    Args:
        path: a `.keras` file, or a folder with a `model.keras`: a run, or a reference model.
        data: as for `load_data`.
        manual_dir: the same.

    Raises:
        ValueError: if there is no such file, or the model does not fit the data.
    """
    file = path if path.suffix == ".keras" else path / "model.keras"
    if not file.is_file():
        raise ValueError(f"Expected a .keras file, or a folder with a model.keras in it. Received: {path}")
    model = keras.models.load_model(file)
    check_single(model)
    if len(model.input_shape) != 4:
        raise ValueError(f"{file} does not take (batch, height, width, channels). Received: {model.input_shape}")
    if takes_integers(model):
        raise ValueError(f"Images are in [0, 1] here. Received: {file}, which takes {model.inputs[0].dtype}")
    height, width, channels = model.input_shape[1:]
    config = RunConfig(
        model=str(path),
        data=data,
        image_size=height if height == width else None,
        num_channels=channels if channels in (1, 3) else None,
        manual_dir=manual_dir,
    )
    loaded = config.load_data()
    _check_fit(model, config, loaded.info, "Choose another model", "Only square ones are resized to fit")
    if (path / "run.json").is_file():
        advice = f"If its outputs mean the same, pass {file}, which does not know their names"
        _check_same_data(path, loaded.info, ("class_names",), advice)
    return model, config, loaded


def _folder(config: RunConfig, out: Path) -> str | None:
    """The absolute folder of a run's data; where there is none of that name, as the run in `out` has it."""
    saved = read_json(out / "run.json") if (out / "run.json").exists() else {}
    return _absolute(config.data) or saved.get("folder")


def _absolute(data: str) -> str | None:
    folder = find_folder(data)
    return os.path.abspath(folder) if folder is not None and folder.is_dir() else None


def _check_folder(out: Path, wanted: dict[str, Any]) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "run.json").exists()):
        raise ValueError(f"{out} holds something that is not a run; choose another folder with --out")
    if (out / "run.json").exists():
        # What a run of an earlier version did not know is at its default.
        defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
        saved = read_json(out / "run.json")
        held = defaults | saved["config"]
        folder = _absolute(wanted["data"])
        if folder and folder == saved.get("folder"):  # whatever it is called here
            held["data"] = wanted["data"]
        changed = _differences(held, wanted)
        if changed:
            raise ValueError(
                f"{out} holds another run; choose another folder with --out, or delete it. Differences: {changed}"
            )


def _check_same_data(out: Path, info: training.DataInfo, facts: tuple[str, ...], advice: str) -> None:
    """Refuses data that differ in `facts`, names of `DataInfo`, from those of the run in `out`."""
    now = json.loads(json.dumps({name: getattr(info, name) for name in facts}))
    changed = _differences(read_json(out / "run.json")["info"], now)
    if changed:
        raise ValueError(
            f"{out} was trained on other data than {info.name!r} holds now. {advice}. Differences: {changed}"
        )


def _differences(held: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What of `wanted` is not as it was: empty if all is."""
    return "; ".join(f"{k}: {held.get(k)!r} -> {v!r}" for k, v in wanted.items() if held.get(k) != v)


def _check_fit(
    model: keras.Model,
    config: RunConfig,
    info: training.DataInfo,
    classes: str = "Leave the option `num_classes` out",
    size: str = "Leave the option `input_shape` out, or resize them with --image-size",
) -> None:
    """Refuses a model that cannot be meant for the data, and says what to do about its classes and its size."""
    dense = len(model.output_shape) == 4
    if dense != (info.task == "segmentation"):
        raise ValueError(
            f"Model {config.model!r} gives {'a mask' if dense else 'one label an image'}, but {info.name!r} "
            f"is a {info.task} data set"
        )
    if model.output_shape[-1] != info.num_classes:
        given = model.output_shape[-1]
        raise ValueError(f"{info.name!r} has {info.num_classes} classes. Received: a model of {given}. {classes}")
    pairs = zip(model.input_shape[1:], info.input_shape, strict=True)
    if any(n is not None and n != given for n, given in pairs):
        raise ValueError(
            f"The images of {info.name!r} have the shape {info.input_shape}, but the model takes "
            f"{model.input_shape[1:]}. {size}"
        )
