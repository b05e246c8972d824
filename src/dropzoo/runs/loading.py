"""Finished runs and files of models, loaded with the data to judge them on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from dropzoo import training
from dropzoo.common.pixels import Pixels
from dropzoo.common.shell import quote
from dropzoo.models.graph.order import shape_of_images
from dropzoo.models.graph.record import load_model, recorded, remember
from dropzoo.runs.config import RunConfig, check_fit
from dropzoo.runs.data import absolute, check_same_data, data_folder, load_run_data, read_info
from dropzoo.runs.files import read_json
from dropzoo.runs.settings import READING_ELSEWHERE
from dropzoo.serving.montecarlo.reader import check_single
from dropzoo.training.data.load import SizesVary
from dropzoo.training.data.sources import find_folder


def load_run(out: Path) -> tuple[keras.Model, RunConfig, training.DataInfo]:
    """Loads the model, the config and the data set's facts of a finished run.

    Raises:
        ValueError: If `out` holds no finished run.
    """
    if not (out / "run.json").exists() or not (out / "model.keras").exists():
        if (out / "model.keras").exists():
            raise ValueError(f"{out} holds no run, but a model. Pass its file: {quote(str(out / 'model.keras'))}")
        if (out / "run.json").exists():
            raise ValueError(f"The run in {out} is not finished. Repeat the command that started it")
        if out.suffix == ".keras":
            raise ValueError(
                f"{out} is not the folder of a run. To use a model's file, pass data too: --data DATA"
            )
        raise ValueError(
            f"{out} holds no finished run; make one with: dropzoo train MODEL --data DATA --out {quote(str(out))}"
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
    if split == "all" and data_folder(config, out) is None:
        _check_all(config.data)
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
        reading: Fields of `Settings` that say how a folder is read, and replace those of the run. None for a
            command without such options, which errors then do not suggest.

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
    height, width, channels = shape_of_images(model)
    config = RunConfig(
        model=str(path),
        data=data,
        image_size=height if height == width else None,
        num_channels=channels if channels in (1, 3) else None,
        manual_dir=manual_dir,
        **(_reading_of(path, model) if absolute(data) else {}) | dict(reading or {}),
    )
    if split == "all":
        _check_all(data)
        config = dataclasses.replace(config, test_split=1)
    config, loaded = load_to_judge(config)
    check_fit(
        model,
        config.model,
        loaded.info,
        "Choose another model, or other data" if reading is None else _all_classes(path),
        "Pass data that fit, or resize the images first: `evaluate` and `calibrate` resize them only to squares"
        if config.num_channels is not None
        else f"Pass data whose images have {channels} channels, or choose another model",
    )
    if (path / "run.json").is_file():
        advice = f"If the classes mean the same, pass {file}: then the names of classes are not compared"
        check_same_data(path, loaded.info, ("class_names",), advice)
    return model, config, loaded


def load_to_judge(config: RunConfig) -> tuple[RunConfig, training.Data]:
    """Loads data for a model that is not trained on them: images of different sizes are alone in their batches.

    Returns:
        The config that says how the data were loaded, and the data.
    """
    try:
        return config, config.load_data()
    except SizesVary:
        config = dataclasses.replace(config, batch_size=1)
        return config, config.load_data()


def _check_all(data: str) -> None:
    """Raises a ValueError for data whose splits cannot be joined: those of a data set with a name."""
    if find_folder(data) is None:
        raise ValueError(
            f"--split all is for folders of files. Received: the data set {data!r}. Choose another --split"
        )


def _all_classes(path: Path) -> str:
    """Returns the advice for data of fewer classes than the model, which may be some of its own."""
    names = ",".join(read_info(path).class_names) if (path / "run.json").is_file() else "NAME,NAME,..."
    return (
        "Choose another model; or, if the data hold only some of its classes, pass the names of all classes of "
        f"the model: --class-names {names}"
    )


def _reading_of(path: Path, model: keras.Model) -> dict[str, Any]:
    """Returns how the folder of a run was read; for a model without a run, what its file says about that."""
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
