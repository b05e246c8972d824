"""`dropzoo predict`: many images into files and a table, in a way that can be stopped and goes on."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropzoo.predictions.answers import Answer, answers
from dropzoo.predictions.paths import Found, Names, find_images
from dropzoo.predictions.reading import Page, pages_of
from dropzoo.predictions.summary import Row, urgency
from dropzoo.predictions.table import Journal, check_table, write_table
from dropzoo.predictions.writing import files_of, writing
from dropzoo.runs.predictor import Predictor


@dataclass(frozen=True)
class Plan:
    """What is written, and how images are computed.

    Attributes:
        out: Path of the folder of outputs.
        kinds: Names of `KINDS`, what is saved for a model of masks.
        form: One of `FORMATS`.
        table: Path of the table; None for none.
        batch_size: Int or None, as for `answers`.
        tile: Int or None, as for `answers`.
        overlap: Int, as for `answers`.
        overwrite: Bool, whether to replace what is there.
        settings: What the answers depend on besides this plan: the model and its options.
    """

    out: Path
    kinds: tuple[str, ...] = ("mask", "picture")
    form: str = "png"
    table: Path | None = None
    batch_size: int | None = None
    tile: int | None = None
    overlap: int = 64
    overwrite: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """What became of the images.

    Attributes:
        rows: The rows of the table, by what a person should look at first.
        written: For each image of a model of masks, its key and the path of its first file.
        skipped: Int, how many images were done already.
        failed: For each image without an answer, its key and the reason.
        table: Path of the table, or None.
    """

    rows: list[Row] = field(default_factory=list)
    written: list[tuple[str, Path]] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, Exception]] = field(default_factory=list)
    table: Path | None = None


#: A function that shows the progress: it takes pages and returns them, counted.
Shown = Callable[[Iterable[Answer], int], Iterable[Answer]]


def list_pages(
    found: Sequence[Found], channels: int
) -> tuple[list[tuple[Page, Path]], list[tuple[str, Exception]]]:
    """Returns the pages of files with the names of their outputs, and the files that cannot be opened.

    Args:
        found: The files.
        channels: Int, the number of channels that the model takes.
    """
    pages: list[tuple[Page, Path]] = []
    failed: list[tuple[str, Exception]] = []
    for each in found:
        try:
            of_file = pages_of(each.path, channels)
        except (ValueError, OSError) as error:
            failed.append((str(each.path), error))
            continue
        digits = len(str(len(of_file)))
        for page in of_file:
            number = "" if page.index is None else f"_{page.index + 1:0{digits}}"
            pages.append((page, each.name.with_name(f"{each.name.name}{number}")))
    return pages, failed


def predict_into(
    predictor: Predictor,
    paths: Sequence[Path | str],
    plan: Plan,
    shown: Shown = lambda found, total: found,
    seen: Callable[[str, Path], None] = lambda key, path: None,
) -> Report:
    """Predicts images, writes what the plan asks for, and returns what became of them.

    An image whose files and row are there is skipped. If the process is stopped, the table holds what is done.

    Args:
        predictor: The model.
        paths: Files, folders and patterns.
        plan: What to write.
        shown: Function that shows the progress.
        seen: Function that is called with the key and the first file of each image of which files were written.

    Raises:
        ValueError: If there are no images, an output would overwrite an image, or the folder holds predictions
            with other settings.
    """
    found = find_images(paths, plan.out if plan.out.is_dir() else None)
    pages, failed = list_pages(found, predictor.input_shape[-1])
    report = Report(failed=failed, table=None if plan.table is None else check_table(plan.table))
    journal = None
    if plan.table is not None:
        settings = {**plan.settings, "tile": plan.tile, "overlap": plan.overlap if plan.tile else None}
        journal = Journal(plan.table, settings, plan.overwrite)
    done = {} if journal is None else journal.done
    names = Names((name, key) for key, entry in done.items() if (name := entry.get("name")))
    files: dict[str, dict[str, Path]] = {}
    taken: dict[str, str] = {}
    for page, wanted in pages:
        key = _key(page)
        name, again = names.of(key, wanted)
        files[key], taken[key] = files_of(plan.out, name, again, plan.kinds, plan.form), f"{name}{again}"
    _check_inputs_stay(found, files, plan.table)
    left = [page for page, _ in pages if not _is_done(done.get(_key(page)), page, files[_key(page)])]
    report.skipped = len(pages) - len(left)
    computing = {"batch_size": plan.batch_size, "tile": plan.tile}
    found_answers = answers(predictor, left, overlap=plan.overlap, **computing)
    rows: dict[str, Row] = {key: done[key]["row"] for key in (_key(page) for page, _ in pages) if key in done}
    try:
        for answer in shown(found_answers, len(left)):
            key = _key(answer.page)
            try:
                row = _written(predictor, answer, files[key])
            except (ValueError, OSError) as error:
                report.failed.append((answer.page.key, error))
                continue
            rows[key] = row
            if answer.is_map and files[key]:
                report.written.append((answer.page.key, next(iter(files[key].values()))))
                seen(*report.written[-1])
            if journal is not None:
                journal.add({"key": key, "name": taken[key], "stamp": _stamp(answer.page.path), "row": row})
    finally:
        report.rows = sorted(rows.values(), key=urgency, reverse=True)
        if journal is not None and plan.table is not None:
            journal.close()
            every = {key: entry["row"] for key, entry in done.items()} | rows
            if every:
                write_table(plan.table, every.values(), urgency)
    return report


def _written(predictor: Predictor, answer: Answer, files: dict[str, Path]) -> Row:
    """Writes the files of an answer, and returns its row."""
    if answer.error is not None:
        raise answer.error if isinstance(answer.error, (ValueError, OSError)) else ValueError(str(answer.error))
    page = answer.page
    row: Row = {"image": str(page.path)}
    if page.index is not None:
        row["page"] = page.index + 1
    if not answer.is_map:
        return row | answer.row(predictor)
    with writing(answer, files) as add:
        return row | answer.row(predictor, add)


def _key(page: Page) -> str:
    """What identifies a page in a journal, from whichever folder the command is given."""
    return dataclasses.replace(page, path=Path(os.path.abspath(page.path))).key


def _stamp(path: Path) -> list[int]:
    """What changes when a file is replaced."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _is_done(entry: dict[str, Any] | None, page: Page, files: dict[str, Path]) -> bool:
    if entry is None or entry["stamp"] != _stamp(page.path):
        return False
    return "class" in entry["row"] or all(path.exists() for path in files.values())


def _check_inputs_stay(found: Sequence[Found], files: dict[str, dict[str, Path]], table: Path | None) -> None:
    """Raises a ValueError if an output would overwrite an image."""
    inputs = {each.path.resolve() for each in found}
    outputs = [path for each in files.values() for path in each.values()] + ([] if table is None else [table])
    for path in outputs:
        if path.resolve() in inputs:
            raise ValueError(
                f"{path} is one of the images, which is not overwritten: choose another folder with --out"
            )
