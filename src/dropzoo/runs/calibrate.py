"""The calibration of a trained model on images that it has not seen, as `dropzoo calibrate` makes it."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from dropzoo import serving, training
from dropzoo.common.checks import unknown
from dropzoo.common.words import count_of
from dropzoo.runs.calibrations import keep_calibration
from dropzoo.runs.config import RunConfig
from dropzoo.runs.data import absolute, check_same_data, judged_images, load_run_data, read_info
from dropzoo.runs.inputs import check_bits, fed, settle_range
from dropzoo.runs.loading import load_model_for, load_run, load_to_judge
from dropzoo.runs.members import ensemble_of, first_run, load_members
from dropzoo.runs.settings import READING, READING_ELSEWHERE
from dropzoo.serving.calibration.sites import can_set, named_sites
from dropzoo.serving.montecarlo.active import NothingDraws

_SAMPLES = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """The settings of a calibration.

    Attributes:
        guarantee: Dict from names of guarantees to levels, as for `calibrate`.
        data: Str, a data set or a folder of held-out images; None for the validation images of the run.
        manual_dir: Str or None, as for `load_data`.
        reading: Dict of fields of `Settings` that say how the folder `data` is read; the others are as for the
            run. None for a command without such options.
        temperature: As for `calibrate`.
        sites: As for `calibrate`; None to search if the model has dropout whose rate can be set, and
            `num_samples` is not 0.
        num_samples: Int, the number of Monte-Carlo samples, or 0 for one pass. None for 30 samples, or for one
            pass if nothing in the model drops. Several members draw this number together; None or 0 averages them
            without dropout.
        classes: List of names or numbers of classes, as for `calibrate`; None for all.
        confidence: Float in (0, 1), as for `calibrate`.
        input_range: `(low, high)`, the range of the pixels that the model takes. If None, the model shows it.
        from_logits: Bool, as for `MonteCarlo`. If None, the model shows it.
    """

    guarantee: Mapping[str, float] = dataclasses.field(default_factory=dict)
    data: str | None = None
    manual_dir: str | None = None
    reading: Mapping[str, Any] | None = None
    temperature: bool | Literal["per_class"] = True
    sites: Literal["as_is", "search"] | None = None
    num_samples: int | None = None
    classes: list[str] | None = None
    confidence: float = 0.9
    input_range: tuple[float, float] | None = None
    from_logits: bool | None = None


class Calibrated(NamedTuple):
    """A calibration and the images that it was fitted on.

    Attributes:
        calibration: The calibration.
        images: Batches of the held-out images in [0, 1], with their labels.
        info: The facts of their data.
    """

    calibration: serving.Calibration
    images: tf.data.Dataset
    info: training.DataInfo


def calibrate_run(
    path: Path, wanted: CalibrationConfig, say: Callable[[str], None] = print, verbose: int = 1
) -> Calibrated:
    """Calibrates a model on its held-out images, and writes the calibration beside it.

    The images are all images of `wanted.data` except its test images, which judge the result. If `wanted.data` is
    None, they are the validation images of the run. A warning says if the run was trained on some of the images.

    Args:
        path: Path of a run's folder, or of a `.keras` file.
        wanted: The settings.
        say: Function that prints a line.
        verbose: 1 for progress bars, 0 for none.

    Returns:
        The calibration, which `calibration_file(path)` now holds, with its images.

    Raises:
        ValueError: If there are no held-out images, or as `calibrate` does. Nothing is written then.
    """
    members, images, info, name = held_out(path, wanted, say)
    model = members[0]
    check_bits(settle_range(model, wanted.input_range, say), info)
    searched = len(members) == 1 and any(map(can_set, named_sites(model).values()))
    calibration = serving.calibrate(
        _predictor(members, wanted),
        fed(images, model),
        temperature=wanted.temperature,
        sites=wanted.sites or ("search" if searched and wanted.num_samples != 0 else "as_is"),
        guarantee=wanted.guarantee,
        confidence=wanted.confidence,
        classes=_classes(wanted.classes, info),
        data=name,
        ignore_class=info.ignore_class,
        verbose=verbose,
    )
    keep_calibration(path, calibration)
    return Calibrated(calibration, images, info)


def held_out(
    path: Path, wanted: CalibrationConfig, say: Callable[[str], None], *, own_size: bool = False
) -> tuple[list[keras.Model], tf.data.Dataset, training.DataInfo, str]:
    """Returns a model or its members, images that it has not seen, the facts of their data, and their name.

    Args:
        path: Path of a run's folder, or of a `.keras` file.
        wanted: The settings, of which only the data count here.
        say: Function that prints a line.
        own_size: Bool, whether images keep the size of their files, one in a batch, in place of the run's size.

    Raises:
        ValueError: If there are no such images.
    """
    if wanted.manual_dir and wanted.data is None:
        raise ValueError("`--manual-dir` is the folder with the archives of `--data`. Pass --data too")
    run = path.parent if path.name == "model.keras" and (path.parent / "run.json").is_file() else first_run(path)
    if not (run / "run.json").is_file():
        if not (path if path.suffix == ".keras" else path / "model.keras").is_file():
            raise ValueError(f"Expected a run's folder or a .keras file. Received: {path}")
        if wanted.data is None:
            raise ValueError(f"{path} does not say what it was trained on. Pass held-out images: --data DATA")
        model, config, data = load_model_for(path, wanted.data, wanted.manual_dir, reading=wanted.reading)
        data = _in_own_size(config).load_data() if own_size else data
        say(f"{path} does not say what it was trained on: the images of {wanted.data} must be new to the model")
        return [model], _all_but_test(data), data.info, data.info.name
    members = load_members(path) if path.is_dir() else [load_run(run)[0]]
    config = _in_own_size(load_run(run)[1]) if own_size else load_run(run)[1]
    own = load_run_data(config, run)
    if wanted.data is None or _same(wanted.data, config):
        if wanted.reading:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in wanted.reading)
            raise ValueError(f"The images of {run} are read as in its training. Leave out {flags}")
        if own.validation is None:
            raise ValueError(
                f"{run} has no validation images to calibrate on. Pass other held-out images: --data DATA; or "
                "train again with a larger --validation-split"
            )
        return members, own.validation, own.info, f"{own.info.name}, validation images"
    changed = {**_reading_of(run, config, wanted.data), **(wanted.reading or {})}
    _, data = load_to_judge(dataclasses.replace(config, data=wanted.data, manual_dir=wanted.manual_dir, **changed))
    advice = "If the classes mean the same, give them the same names"
    check_same_data(run, data.info, ("task", "class_names"), advice)
    images = _all_but_test(data)
    _warn_of_training_images(images, own, wanted.data)
    return members, images, data.info, data.info.name


def _reading_of(run: Path, config: RunConfig, data: str) -> dict[str, Any]:
    """Returns the fields of a run's config that change for other data.

    Files of other data mean the same as those of the run. The places of the files of the run, and the parts of its
    data, are not those of other data.
    """
    kept = {"data_dir"} if absolute(data) is None else {*READING_ELSEWHERE, "broken"}
    fields = {*READING, "split_file", "group_by", "limit", "fold", "test_split", "data_dir", "broken"}
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    found = {name: defaults[name] for name in fields - kept}
    if config.class_names is not None and "class_names" in kept:  # a file of names may be in the run's own folder
        found["class_names"] = ",".join(read_info(run).class_names)
    return found


def _in_own_size(config: RunConfig) -> RunConfig:
    """A config that loads the same images, without changes of their size."""
    return dataclasses.replace(config, image_size=None, batch_size=1, augment=False, cache="auto")


def _same(data: str, config: RunConfig) -> bool:
    """Whether a name or a folder refers to the data of a run."""
    return data == config.data or (absolute(data) is not None and absolute(data) == absolute(config.data))


def _all_but_test(data: training.Data) -> tf.data.Dataset:
    """All images of a data set except its test images, without augmentations."""
    images = judged_images(dataclasses.replace(data, validation=None, test=None))
    return images if data.validation is None else images.concatenate(data.validation)


def _warn_of_training_images(images: tf.data.Dataset, own: training.Data, name: str) -> None:
    """Warns if a run was trained on some of the images."""
    known = set(_keys(judged_images(dataclasses.replace(own, validation=None, test=None))))
    keys = list(_keys(images))
    if seen := sum(key in known for key in keys):
        every = f"of the {count_of(len(keys), 'image')} of {name}"
        were = count_of(seen, f"{every} was a training image", f"{every} were training images")
        warnings.warn(
            f"{were} of the run, so no guarantee holds, and the temperature is too low. Calibrate on images "
            f"that are new to the model",
            stacklevel=3,
        )


def _keys(images: tf.data.Dataset) -> Iterator[bytes]:
    """Yields a key of the content of each image."""
    for batch, _ in images:
        for image in batch.numpy():
            yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _predictor(members: list[keras.Model], wanted: CalibrationConfig) -> serving.MonteCarlo | serving.Ensemble:
    """The predictor to calibrate: an ensemble, samples, or one pass."""
    if len(members) > 1:
        return ensemble_of(members, wanted.num_samples or None, from_logits=wanted.from_logits)
    model = members[0]
    if wanted.num_samples != 0:
        num_samples = wanted.num_samples or _SAMPLES
        try:
            return serving.MonteCarlo(model, num_samples, from_logits=wanted.from_logits)
        except NothingDraws:
            if wanted.num_samples is not None:
                raise
    return serving.Ensemble([model], from_logits=wanted.from_logits)


def _classes(names: list[str] | None, info: training.DataInfo) -> list[int] | None:
    """The numbers of classes that are named, or given by their numbers."""
    if names is None:
        return None
    found = []
    for name in names:
        if name in info.class_names:
            found.append(info.class_names.index(name))
        elif name.isdigit() and int(name) < info.num_classes:
            found.append(int(name))
        else:
            raise unknown("class", name, info.class_names)
    return found
