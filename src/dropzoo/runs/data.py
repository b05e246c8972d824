"""The data of a run: where they are, whether they are still the same, and which of them judge the model."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo import training
from dropzoo.common.checks import unknown
from dropzoo.common.words import count_of
from dropzoo.runs.config import RunConfig
from dropzoo.runs.files import read_json
from dropzoo.training.data.sources import find_folder

#: The values of `split`: the images to judge on.
SPLITS = ("test", "validation", "training", "all")


def check_split(split: str | None) -> None:
    """Raises a ValueError if `split` is not one of `SPLITS`, or None."""
    if split is not None and split not in SPLITS:
        raise unknown("split", split, SPLITS)


def judged_images(data: training.Data, split: str | None = None) -> tf.data.Dataset:
    """Returns the images to judge on, without augmentations.

    Args:
        data: The result of `load_data`.
        split: One of `SPLITS`; None means: first the test images, then the validation images, otherwise the
            training images. Data for "all" were loaded with `test_split=1`.

    Raises:
        ValueError: If there are no images in the split.
    """
    stored = getattr(data.train, "as_stored", None)  # custom batches have only `at_epoch`
    train = stored() if stored else data.train.at_epoch(0)
    if split is None:
        return data.test or data.validation or train
    found = {"test": data.test, "all": data.test, "validation": data.validation, "training": train}[split]
    if found is None:
        raise ValueError(f"There are no {split} images in {data.info.name!r}. Choose another --split")
    return found


def judged_on(info: training.DataInfo, split: str | None = None) -> str:
    """Returns the name of the split that `judged_images` returns; it is empty for all images."""
    if split is not None:
        return "" if split == "all" else split
    return "test" if info.num_test else "validation" if info.num_validation else "training"


def judged_files(data: training.Data, split: str | None = None) -> list[str] | None:
    """Returns the files of `judged_images`, in their order; None if they are not those of a folder."""
    summary = data.summary
    if summary is None:
        return None
    name = judged_on(data.info, split) or "test"
    files = summary.files("train" if name == "training" else name)
    count = {"test": data.info.num_test, "validation": data.info.num_validation, "training": data.info.num_train}
    return files if len(files) == count[name] else None


def judged_objects(data: training.Data, split: str | None = None) -> Callable[[int], np.ndarray] | None:
    """Returns the function from the place of one of `judged_images` to its mask with a number for each object.

    It is None if the masks do not keep objects apart.
    """
    summary = data.summary
    if summary is None or summary.objects is None or judged_files(data, split) is None:
        return None
    read, name = summary.objects, judged_on(data.info, split) or "test"
    numbers = summary.numbers("train" if name == "training" else name)
    return lambda place: read(numbers[place])


def how_many_are_judged(data: training.Data, split: str | None) -> str:
    """Returns a line that says how many images of a folder without a split of its own are judged, or ""."""
    info, summary = data.info, data.summary
    if summary is None or summary.is_split or split is not None or not info.num_train or not info.num_test:
        return ""
    every = info.num_train + info.num_validation + info.num_test
    judged = count_of(info.num_test, f"of {every:,} images is", f"of {every:,} images are")
    return (
        f"{judged} evaluated: the test set that `dropzoo train` would leave out. To evaluate all images, pass "
        "--split all\n"
    )


def read_info(out: Path) -> training.DataInfo:
    """Returns the facts of the data set that the run in `out` was trained on."""
    saved = read_json(out / "run.json")["info"]
    info: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
    return training.DataInfo(**info)


def load_run_data(config: RunConfig, out: Path, *facts: str) -> training.Data:
    """Loads the data of a config. If `out` holds a run, they must still be the data that it was trained on.

    If there is no folder of the config's name, because the working directory has changed, the data are read from
    the folder that the run found.

    Args:
        config: The run's config.
        out: Path of the run's folder, which may be missing.
        *facts: Names of fields of `DataInfo` that must not have changed, besides the task and the class names.

    Returns:
        The result of `load_data`.

    Raises:
        ValueError: If the task, the class names or `facts` have changed. A model knows classes by number only, so
            it would give them wrong names.
    """
    data = dataclasses.replace(config, data=data_folder(config, out) or config.data).load_data()
    if (out / "run.json").exists():
        advice = "Restore the data, or train another run"
        check_same_data(out, data.info, ("task", "class_names", *facts), advice)
    return data


def data_folder(config: RunConfig, out: Path) -> str | None:
    """Returns the absolute path of the folder that the config names, or else of the one that the run found."""
    saved = read_json(out / "run.json") if (out / "run.json").exists() else {}
    return absolute(config.data) or saved.get("folder")


def absolute(data: str) -> str | None:
    """Returns the absolute path of a folder of images; None if `data` is not a folder."""
    folder = find_folder(data)
    return os.path.abspath(folder) if folder is not None and folder.is_dir() else None


def under_one_name(
    held: Mapping[str, object], wanted: Mapping[str, object], folder: str | None
) -> dict[str, object]:
    """Returns settings that a file holds, with the wanted name of the data if both names are of one folder.

    Args:
        held: The settings of a run.
        wanted: The settings of another run.
        folder: The absolute path of the folder that the first run was trained on; None for other data.
    """
    here = absolute(str(wanted["data"]))
    return {**held, "data": wanted["data"]} if here is not None and here == folder else dict(held)


def check_same_data(out: Path, info: training.DataInfo, facts: tuple[str, ...], advice: str) -> None:
    """Raises a ValueError if `facts`, fields of `DataInfo`, differ from those that the run in `out` recorded."""
    # Through JSON, which makes lists of tuples, as in the file.
    now = json.loads(json.dumps({name: getattr(info, name) for name in facts}))
    changed = differences(read_json(out / "run.json")["info"], now)
    if changed:
        raise ValueError(
            f"The data in {info.name!r} differ from the data that {out} was trained on. {advice}. "
            f"Differences: {changed}"
        )


def differences(held: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """Returns text that lists the wanted values that are held differently; an empty string if there is none."""
    return "; ".join(f"{k}: {held.get(k)!r} -> {v!r}" for k, v in wanted.items() if held.get(k) != v)
