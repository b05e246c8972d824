"""The calibrated intervals of a model: fitted on known images, kept beside the model, and loaded again."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from dropzoo.common.files import whole_file
from dropzoo.predictions.identity import digest_of
from dropzoo.predictions.intervals import Interval
from dropzoo.predictions.measuring import Measure, check_masks, fit_measurements
from dropzoo.runs.calibrate import CalibrationConfig, held_out
from dropzoo.runs.calibrations import calibration_file
from dropzoo.runs.predictor import Predictor


def save_intervals(
    predictor: Predictor, model: Path, intervals: Mapping[str, Interval], how: Measure, data: str
) -> Path:
    """Writes the calibrated intervals of a model beside its calibration, as `measurements.json`.

    Args:
        predictor: The model as it answered.
        model: Path of a run's folder, a `.keras` file or a SavedModel.
        intervals: The result of `fit_measurements`.
        how: What counted as an object.
        data: Str, the name of the known images.
    """
    content = {
        "data": data,
        "answers": _answers(predictor, model),
        "how": asdict(how),
        "intervals": {key: each.to_json() for key, each in intervals.items()},
    }
    path = intervals_file(model)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def calibrate_intervals(
    predictor: Predictor, model: Path, data: str, how: Measure, say: Callable[[str], None] = print
) -> Path:
    """Calibrates the intervals of a model on images whose masks are known, and writes them beside it.

    Args:
        predictor: The model, loaded with `sampling="fixed"` and `votes`.
        model: Path of a run's folder or a `.keras` file.
        data: Str, a folder or a data set that is new to the model, or "validation" for a run's validation images.
        how: What counts as an object.
        say: Function that prints a line.

    Raises:
        ValueError: If the model has no masks, or there are too few images.
    """
    check_masks(predictor)
    wanted = CalibrationConfig(data=None if data == "validation" else data)
    _, batches, _, name = held_out(model, wanted, say, own_size=True)
    return fit_intervals(predictor, model, batches, name, how)


def fit_intervals(
    predictor: Predictor, model: Path, batches: Iterable[tuple[tf.Tensor, tf.Tensor]], name: str, how: Measure
) -> Path:
    """Fits the intervals of a model on images whose masks are known, and writes them beside it.

    Args:
        predictor: The model, loaded with `sampling="fixed"` and `votes`.
        model: Path of a run's folder or a `.keras` file.
        batches: Batches of images in [0, 1] that are new to the model, with their masks, in the size of their
            files: areas are counted in pixels of the files.
        name: Str, the name of the images.
        how: What counts as an object.

    Raises:
        ValueError: If there are too few images.
    """
    pairs = (
        (image.numpy(), mask.numpy())
        for images, masks in batches
        for image, mask in zip(images, masks, strict=True)
    )
    known = ((image, mask.reshape(mask.shape[:2])) for image, mask in pairs)
    pixels = dataclasses.replace(how, pixel_size=1.0)
    return save_intervals(predictor, model, fit_measurements(predictor, known, pixels), pixels, name)


def objects_of_intervals(model: Path) -> Measure | None:
    """Returns what counted as an object when the intervals of a model were calibrated; None if they were not."""
    path = intervals_file(model)
    return Measure(**json.loads(path.read_text(encoding="utf-8"))["how"]) if path.is_file() else None


def load_intervals(predictor: Predictor, model: Path, how: Measure) -> dict[str, Interval]:
    """Returns the calibrated intervals of a model; none if it was not calibrated.

    Args:
        predictor: The model as it answers now.
        model: Path of a run's folder, a `.keras` file or a SavedModel.
        how: What counts as an object.

    Raises:
        ValueError: If the intervals were calibrated for other objects, another level or other answers.
    """
    path = intervals_file(model)
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    there, now = content["how"], asdict(how)
    scale = now.pop("pixel_size") / there.pop("pixel_size")
    if changed := [name for name in now if now[name] != there[name]]:
        said = ", ".join(f"{name}={there[name]!r} there, {now[name]!r} now" for name in changed)
        raise ValueError(
            f"The intervals in {path} were calibrated with other options ({said}). Use those options, pass "
            "--intervals samples, or calibrate again"
        )
    before, here = content.get("answers", {}), _answers(predictor, model)
    if changed := [name for name in {**here, **before} if before.get(name) != here.get(name)]:
        raise ValueError(
            f"The intervals in {path} were calibrated with other settings (what differs: "
            f"{', '.join(changed).replace('_', ' ')}). Use the settings of the calibration ({_in_words(before)}), "
            "pass --intervals samples, or calibrate again"
        )
    found = {key: Interval.from_json(each) for key, each in content["intervals"].items()}
    return found if scale == 1 else {key: _in_unit(key, each, scale) for key, each in found.items()}


def _answers(predictor: Predictor, model: Path) -> dict[str, Any]:
    """Returns the settings that the answers of a model depend on, and so its intervals too."""
    return {
        "model": digest_of(model),
        "num_samples": predictor.num_samples,
        "calibration": predictor.calibration is not None,
        "input_range": list(predictor.pixels.range),
        **({"members_drop": True} if predictor.members_drop else {}),
    }


def _in_words(answers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in answers.items() if name != "model") or "unknown"


def export_counts(
    model: Path, export: Path, num_samples: int, calibrated: bool, members_drop: bool = False
) -> bool:
    """Writes the intervals of counts into an export, for the page of a server; returns whether they hold there.

    They hold if the export answers as the model did when its intervals were calibrated, and if an object is a
    connected part of the mask.

    Args:
        model: Path of the run's folder or `.keras` file.
        export: Path of the export.
        num_samples: Int, the number of samples of the export.
        calibrated: Bool, whether the export answers by a calibration.
        members_drop: Bool, whether the samples are those of the members of an ensemble, with their dropout on.
    """
    path = intervals_file(model)
    if not path.is_file():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    before, how = content.get("answers", {}), Measure(**content["how"])
    answers = (num_samples, calibrated, members_drop)
    same = (before.get("num_samples"), before.get("calibration"), before.get("members_drop", False)) == answers
    if not same or before.get("model") != digest_of(model) or how.split or how.min_area > 1:
        return False
    ending = " bare count"
    counts = {key.removesuffix(ending): x for key, x in content["intervals"].items() if key.endswith(ending)}
    text = json.dumps({"data": content["data"], "counts": counts}, indent=2) + "\n"
    with whole_file(export / "assets.extra" / "counts.json") as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return bool(counts)


def intervals_file(model: Path) -> Path:
    """Returns the path of the calibrated intervals of a model: `measurements.json` beside its calibration."""
    file = calibration_file(model)
    return file.with_name(file.name.replace("calibration.json", "measurements.json"))


def _in_unit(key: str, interval: Interval, scale: float) -> Interval:
    """An interval of pixels as one of another unit of length."""
    factor = {"count": 1.0, "area": scale**2, "perimeter": scale}[key.rpartition(" ")[2]]
    first, second, third = interval.weights
    weights = (first * factor, second, third * factor**0.5)
    return Interval(interval.level, interval.quantile, weights, interval.bias * factor, interval.n)
