"""`dropzoo measure`: counts, areas and objects of many images, each with an interval, into files."""

import contextlib
import errno
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from dropzoo.common.files import whole_file
from dropzoo.pages.measurements import Outlined, save_page
from dropzoo.predictions.intervals import Interval
from dropzoo.predictions.measuring import (
    Measure,
    Measured,
    check_masks,
    classes_of,
    masks_of_samples,
    measure_image,
)
from dropzoo.predictions.paths import Names, find_images
from dropzoo.predictions.polygons import outlines, write_geojson
from dropzoo.predictions.reading import Page
from dropzoo.predictions.run import list_pages
from dropzoo.predictions.summary import Row
from dropzoo.predictions.table import check_table, claim_files, write_table
from dropzoo.runs.predictor import Predictor

#: The outputs of `dropzoo measure` beside its table.
SAVED = ("objects", "labels", "geojson", "page")
_FULL = (errno.ENOSPC, errno.EDQUOT)  # no image after this one could be written either
_SHOWN = 24  # images on the page, those with the least certain objects first


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
    """Measures images, writes the table and the other files that are asked for, and returns a report.

    If the disk is full or the process is stopped, the tables and the page hold what is done.

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
    check_masks(predictor)
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
    try:
        for page, _ in shown(pages, len(pages)):
            files = _files(targets[page.key], saved)
            try:
                image = predictor.converted(page.read(predictor.value_range), page.key)
                found = measure_image(*masks_of_samples(predictor, image), image, classes, how, intervals)
                _write(files, page, found)
            except (ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _FULL:
                    raise
                report.failed.append((page.key, error))
                continue
            of: Row = {"image": str(page.path)} | ({} if page.index is None else {"page": page.index + 1})
            report.rows += [of | row for row in found.rows]
            objects += [of | row for row in found.objects]
            report.written += files.values()
            if "page" in saved:
                outlined.append(_outlined(page, image, found))
                outlined = sorted(outlined, key=lambda each: each.doubt, reverse=True)[:_SHOWN]
    finally:  # a run that ends early keeps what it has measured
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
        if os.path.exists(path) and not overwrite:
            raise ValueError(f"{path} exists. Pass --overwrite to replace it, or choose another name with --out")


def _write(files: Mapping[str, Path], page: Page, found: Measured) -> None:
    """Writes the files of an image, all or none."""
    with contextlib.ExitStack() as stack:
        if path := files.get("labels"):
            labels = found.labels.astype(np.uint16) if len(found.objects) < 65536 else found.labels
            unfinished = stack.enter_context(whole_file(path))
            tags = page.tags.of_tiff()
            tifffile.imwrite(unfinished, labels, photometric="minisblack", compression="zlib", **tags)
        if path := files.get("geojson"):
            write_geojson(path, found.labels, found.objects, page.tags)


def _outlined(page: Page, image: np.ndarray, found: Measured) -> Outlined:
    rings = outlines(found.labels, len(found.objects))
    doubt = float((1 - np.abs(2 * found.certainty - 1)).sum()) if len(found.certainty) else 0.0
    return Outlined(page.key, image, rings, found.certainty, doubt)
