"""`dropzoo measure`: counts, areas and objects of many images, each with an interval, into files."""

import dataclasses
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile

from dropzoo.common.files import whole_file
from dropzoo.pages.measurements import Outlined, save_page
from dropzoo.predictions.identity import digest_of
from dropzoo.predictions.intervals import Interval
from dropzoo.predictions.measuring import (
    Measure,
    Measured,
    classes_of,
    fit_measurements,
    masks_of_samples,
    measure_image,
)
from dropzoo.predictions.paths import Names, find_images
from dropzoo.predictions.polygons import outlines, write_geojson
from dropzoo.predictions.reading import Page
from dropzoo.predictions.run import list_pages
from dropzoo.predictions.summary import Row
from dropzoo.predictions.table import check_table, claim_files, write_table
from dropzoo.runs.calibrate import CalibrationConfig, held_out
from dropzoo.runs.calibrations import calibration_file
from dropzoo.runs.predictor import Predictor

#: What `dropzoo measure` writes beside its table.
SAVED = ("objects", "labels", "geojson", "page")
_SHOWN = 24  # images on the page, those of the least certain objects first


@dataclass
class MeasureReport:
    """The outcome of a run of measurements.

    Attributes:
        rows: A row for each image and class.
        written: The paths of the files.
        failed: For each image without measurements, its key and the reason.
    """

    rows: list[Row] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    failed: list[tuple[str, Exception]] = field(default_factory=list)


def save_intervals(
    predictor: Predictor, model: Path, intervals: Mapping[str, Interval], how: Measure, data: str
) -> Path:
    """Writes the calibrated intervals of a model beside its calibration, as `measurements.json`.

    Args:
        predictor: The model as it answered.
        model: Path of a run's folder, a `.keras` file or a SavedModel.
        intervals: What `fit_measurements` returned.
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
    _check_masks(predictor)
    wanted = CalibrationConfig(data=None if data == "validation" else data)
    _, batches, _, name = held_out(model, wanted, say, own_size=True)
    return fit_intervals(predictor, model, batches, name, how)


def _check_masks(predictor: Predictor) -> None:
    """Raises a ValueError if a model does not give each pixel one class."""
    if not (predictor.is_map and predictor.has_classes):
        what = "one answer for an image" if not predictor.is_map else f"the pixels task={predictor.task!r}"
        raise ValueError(
            f"Objects can only be measured in masks of classes, and the model returns {what}. Use: dropzoo predict"
        )


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
            f"The intervals in {path} were calibrated for other objects ({said}). Measure in that way, pass "
            "--intervals samples, or calibrate again"
        )
    before = content.get("answers", {})
    if changed := [name for name, value in _answers(predictor, model).items() if before.get(name) != value]:
        raise ValueError(
            f"The intervals in {path} were calibrated for another {', '.join(changed).replace('_', ' ')}. "
            f"Measure in that way ({_in_words(before)}), pass --intervals samples, or calibrate again"
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
    }


def _in_words(answers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in answers.items() if name != "model") or "unknown"


def export_counts(model: Path, export: Path, num_samples: int, calibrated: bool) -> bool:
    """Writes the intervals of counts into an export, for the page of a server; returns whether they hold there.

    They hold if the export answers as the model did when its intervals were calibrated, and if an object is a
    connected part of the mask.

    Args:
        model: Path of the run's folder or `.keras` file.
        export: Path of the export.
        num_samples: Int, the number of samples of the export.
        calibrated: Bool, whether the export answers by a calibration.
    """
    path = intervals_file(model)
    if not path.is_file():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    before, how = content.get("answers", {}), Measure(**content["how"])
    same = (before.get("num_samples"), before.get("calibration")) == (num_samples, calibrated)
    if not same or before.get("model") != digest_of(model) or how.split or how.min_area > 1:
        return False
    ending = " bare count"
    counts = {key.removesuffix(ending): x for key, x in content["intervals"].items() if key.endswith(ending)}
    text = json.dumps({"data": content["data"], "counts": counts}, indent=2) + "\n"
    with whole_file(export / "assets.extra" / "counts.json") as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return bool(counts)


def intervals_file(model: Path) -> Path:
    """Returns where the calibrated intervals of a model are kept: `measurements.json` beside its calibration."""
    file = calibration_file(model)
    return file.with_name(file.name.replace("calibration.json", "measurements.json"))


def _in_unit(key: str, interval: Interval, scale: float) -> Interval:
    """An interval of pixels as one of another unit of length."""
    factor = {"count": 1.0, "area": scale**2, "perimeter": scale}[key.rpartition(" ")[2]]
    first, second, third = interval.weights
    weights = (first * factor, second, third * factor**0.5)
    return Interval(interval.level, interval.quantile, weights, interval.bias * factor, interval.n)


def measure_into(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path,
    how: Measure,
    intervals: Mapping[str, Interval],
    saved: Sequence[str] = (),
    shown: Callable[[Iterable[tuple[Page, Path]], int], Iterable[tuple[Page, Path]]] = lambda found, total: found,
    overwrite: bool = False,
) -> MeasureReport:
    """Measures images, writes the table and what else is asked for, and returns what became of the images.

    Args:
        predictor: A model of masks, loaded with `sampling="fixed"` and `votes`.
        paths: Files, folders and patterns.
        out: Path of the table, .csv or .json. Other files have names that begin like it; those of single
            images lie in the folder `NAME_files`.
        how: What counts as an object.
        intervals: Calibrated intervals; empty for those of the samples.
        saved: Names of `SAVED`.
        shown: Function that shows the progress.
        overwrite: Bool, whether to replace what is there; never an image.

    Raises:
        ValueError: If there are no images, the model has no masks, or a file would be replaced.
    """
    _check_masks(predictor)
    check_table(out)
    folder = out.with_name(f"{out.stem}_files")
    pages, failed = list_pages(images := find_images(paths, folder), predictor.input_shape[-1])
    names = Names()
    targets = {page.key: folder.joinpath("{}{}".format(*names.of(page.key, wanted))) for page, wanted in pages}
    planned = [path for each in targets.values() for path in _files(each, saved).values()]
    _check_stays([*_beside(out, saved), *planned], {each.path.resolve() for each in images}, overwrite)
    report, classes, objects, outlined = MeasureReport(failed=failed), classes_of(predictor), [], []
    if planned:
        claim_files(out, planned)
    for page, _ in shown(pages, len(pages)):
        try:
            image = predictor.converted(page.read(predictor.value_range), page.key)
            mean, samples = masks_of_samples(predictor, image)
        except (ValueError, OSError) as error:
            report.failed.append((page.key, error))
            continue
        found = measure_image(mean, samples, image, classes, how, intervals)
        of: Row = {"image": str(page.path)} | ({} if page.index is None else {"page": page.index + 1})
        report.rows += [of | row for row in found.rows]
        objects += [of | row for row in found.objects]
        report.written += _of_image(_files(targets[page.key], saved), page, found)
        if "page" in saved:
            outlined.append(_outlined(page, image, found))
            outlined = sorted(outlined, key=lambda each: each.doubt, reverse=True)[:_SHOWN]
    if report.rows:
        report.written.insert(0, write_table(out, report.rows))
        if "objects" in saved:
            report.written.insert(1, write_table(_beside(out, saved)[1], objects))
        if "page" in saved:
            report.written.append(save_page(_beside(out, saved)[-1], report.rows, outlined, bool(intervals)))
    return report


def _beside(out: Path, saved: Sequence[str]) -> list[Path]:
    """The table, that of the objects, and the page."""
    names = {"objects": f"{out.stem}_objects{out.suffix}", "page": f"{out.stem}.html"}
    return [out, *(out.with_name(name) for kind, name in names.items() if kind in saved)]


def _files(target: Path, saved: Sequence[str]) -> dict[str, Path]:
    """The files of one image, by what they hold."""
    endings = {"labels": "_labels.tif", "geojson": ".geojson"}
    return {kind: target.with_name(f"{target.name}{end}") for kind, end in endings.items() if kind in saved}


def _check_stays(planned: Iterable[Path], images: Container[Path], overwrite: bool) -> None:
    """Raises a ValueError if a file would replace an image, or any other file without `overwrite`."""
    for path in planned:
        if path.resolve() in images:
            raise ValueError(f"{path} is one of the images and is not overwritten: choose another --out")
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists. To replace it pass --overwrite, or choose another name with --out")


def _of_image(files: Mapping[str, Path], page: Page, found: Measured) -> list[Path]:
    if path := files.get("labels"):
        labels = found.labels.astype(np.uint16) if len(found.objects) < 65536 else found.labels
        with whole_file(path) as unfinished:
            tags = page.tags.of_tiff()
            tifffile.imwrite(unfinished, labels, photometric="minisblack", compression="zlib", **tags)
    if path := files.get("geojson"):
        write_geojson(path, found.labels, found.objects, page.tags)
    return list(files.values())


def _outlined(page: Page, image: np.ndarray, found: Measured) -> Outlined:
    rings = outlines(found.labels, len(found.objects))
    doubt = float((1 - np.abs(2 * found.certainty - 1)).sum()) if len(found.certainty) else 0.0
    return Outlined(page.key, image, rings, found.certainty, doubt)
