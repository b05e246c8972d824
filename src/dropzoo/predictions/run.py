"""`dropzoo predict`: answers for many images, as files and a table, in a run that can be stopped and continued."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropzoo.common.files import RealPaths
from dropzoo.predictions.answers import Answer, answers
from dropzoo.predictions.behind import written_behind
from dropzoo.predictions.paths import Found, Names, find_images
from dropzoo.predictions.reading import Page, pages_of
from dropzoo.predictions.summary import Row, urgency
from dropzoo.predictions.table import Journal, check_table, check_writable, write_table
from dropzoo.predictions.writing import check_given, files_of, kinds_for, writing
from dropzoo.runs.predictor import Predictor


@dataclass(frozen=True)
class Plan:
    """The settings of a run of predictions: which files it writes, and how it processes images.

    It has nothing to do with plans of dropout.

    Attributes:
        out: Path of the folder of outputs.
        kinds: What is saved for a model that predicts masks: names from `KINDS`. None saves the default for the
            output of the model.
        form: One of `FORMATS`. None is `"tiff"` for images with a geographic position, which PNG cannot hold, and
            `"png"` for all others.
        table: Path of the table; None for none.
        batch_size: Int or None, as for `answers`.
        tile: Int or None, as for `answers`.
        overlap: Int, as for `answers`.
        overwrite: Bool, whether to replace what is there.
        settings: The other settings that the answers depend on: the model and its options.
    """

    out: Path
    kinds: tuple[str, ...] | None = None
    form: str | None = None
    table: Path | None = None
    batch_size: int | None = None
    tile: int | None = None
    overlap: int = 64
    overwrite: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The outcome of a run of predictions.

    Attributes:
        rows: The rows of the table, by what a person should look at first.
        written: For each image of a model of masks, its key and the path of its first file.
        skipped: Int, how many images were done already.
        failed: For each image without an answer, its key and the reason.
        table: Path of the table, or None.
        left_out: The number of files in the folders that are not images, by their endings.
    """

    rows: list[Row] = field(default_factory=list)
    written: list[tuple[str, Path]] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, Exception]] = field(default_factory=list)
    table: Path | None = None
    left_out: Counter[str] = field(default_factory=Counter)


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
    """Predicts images, writes the files that the plan asks for, and returns a report.

    An image whose files and row are there is skipped. If the process is stopped, the table holds what is done.

    Args:
        predictor: The model.
        paths: Files, folders and patterns.
        plan: The settings of the run.
        shown: Function that shows the progress.
        seen: Function that is called with the key and the first file of each image for which files were written.

    Raises:
        ValueError: If there are no images, the model does not give what is to be saved, an output would overwrite
            an image or a file of another origin, or the folder holds predictions with other settings.
    """
    if plan.out.is_file():
        raise ValueError(f"`out` (--out) must be a folder. Received the file {plan.out}")
    if not predictor.is_map and (plan.kinds or plan.form):
        raise ValueError(
            "This model gives one answer for an image, and files are only written for maps. Leave out `kinds` and "
            "`form` (--save, --format); the answers are in the table (--table)"
        )
    sampled = predictor.num_samples > 1
    kinds = kinds_for(predictor.task, plan.kinds, sampled) if predictor.is_map else ()
    check_given(kinds, predictor)
    report = Report(table=None if plan.table is None else check_table(plan.table))
    check_writable(plan.out if kinds else None, plan.table)
    journal = None if plan.table is None else _journal(plan, plan.table, bool(kinds))
    found = find_images(paths, plan.out, report.left_out)
    pages, report.failed = list_pages(found, predictor.input_shape[-1])
    done = {} if journal is None else journal.done
    names = Names((name, key) for key, entry in done.items() if (name := entry.get("name")))
    keys = {page.key: _key(page) for page, _ in pages}
    named = {(key := keys[page.key]): names.of(key, wanted) for page, wanted in pages}
    forms = {keys[page.key]: plan.form or ("tiff" if page.tags.geo else "png") for page, _ in pages}
    files = {key: files_of(plan.out, *name, kinds, forms[key], predictor.task) for key, name in named.items()}
    _check_inputs_stay(found, files, plan.table)
    stamps = {keys[page.key]: _stamp(page.path) for page, _ in pages}  # of the files as they will be read
    left = [page for page, _ in pages if not _is_done(done.get(k := keys[page.key]), stamps[k], files[k])]
    if not plan.overwrite:
        _check_files_stay(plan.table, journal, [files[keys[page.key]] for page in left])
    report.skipped = len(pages) - len(left)
    found_answers = answers(predictor, left, batch_size=plan.batch_size, tile=plan.tile, overlap=plan.overlap)
    book = _Book(journal, plan.table, files, stamps)
    book.forget(report.failed)
    rows: dict[str, Row] = {key: done[key]["row"] for key in files if key in done}

    def write(answer: Answer) -> Row:
        return _written(predictor, answer, files[keys[answer.page.key]])

    try:
        for answer, row in written_behind(shown(found_answers, len(left)), write, book.claim):
            key = keys[answer.page.key]
            if isinstance(row, Exception):
                report.failed.append((answer.page.key, row))
                rows.pop(key, None)  # of the image that was there before
                book.forget([(key, row)])
                continue
            rows[key] = row
            if answer.is_map and files[key]:
                report.written.append((answer.page.key, next(iter(files[key].values()))))
                seen(*report.written[-1])
            book.add(key, named[key], row)
    finally:
        report.rows = sorted(rows.values(), key=urgency, reverse=True)
        book.close()
    return report


def _journal(plan: Plan, table: Path, writes_files: bool) -> Journal:
    """The journal of a run: in the folder of outputs if files are written there, or else beside the table."""
    settings = {**plan.settings, "tile": plan.tile, "overlap": plan.overlap if plan.tile else None}
    return Journal(plan.out / "predictions.csv" if writes_files else table, settings, plan.overwrite)


class _Book:
    """The journal and the table of a run; nothing if the run has none.

    Args:
        journal: The journal, or None.
        table: Path of the table, or None.
        files: The paths of the outputs of each page, by its key and their kinds.
        stamps: The stamp of the file of each page, by its key, from before the file was read.
    """

    def __init__(
        self,
        journal: Journal | None,
        table: Path | None,
        files: Mapping[str, Mapping[str, Path]],
        stamps: Mapping[str, list[int]],
    ) -> None:
        self._journal, self._table, self._files, self._stamps = journal, table, files, stamps
        self._claimed = False

    def claim(self) -> None:
        """Says which files the run writes, before it does."""
        if self._journal is not None and self._table is not None and not self._claimed:
            self._journal.claim(self._table, _paths(self._files.values()), self._files)
            self._claimed = True

    def add(self, key: str, name: tuple[Path, str], row: Row) -> None:
        """Adds the row of an image, with its name and the kinds that each of its files holds."""
        if self._journal is None:
            return
        stamp = self._stamps[key]
        before = self._journal.done.get(key, {})
        files = (before["files"] if before and before["stamp"] == stamp else {}) | _kinds_of(self._files[key])
        self._journal.add({"key": key, "name": f"{name[0]}{name[1]}", "stamp": stamp, "row": row, "files": files})

    def forget(self, failed: Iterable[tuple[str, Exception]]) -> None:
        """Drops the rows of images that have no answer now: a path drops all pages of the file."""
        if self._journal is None:
            return
        for path in {os.path.abspath(key) for key, _ in failed}:
            for key in [key for key in self._journal.done if key == path or key.startswith(f"{path}#")]:
                self._journal.drop(key)

    def close(self) -> None:
        """Writes the table, with the rows of earlier runs that wrote it."""
        if self._journal is None or self._table is None:
            return
        keys = self._journal.tables.get(os.path.abspath(self._table), set()).union(self._files)
        rows = [entry["row"] for key, entry in self._journal.done.items() if key in keys]
        if rows:
            self.claim()
            write_table(self._table, rows, urgency)
        self._journal.close()


def _written(predictor: Predictor, answer: Answer, files: dict[str, Path]) -> Row:
    """Writes the files of an answer, and returns its row."""
    page = answer.page
    row: Row = {"image": str(page.path)}
    if page.index is not None:
        row["page"] = page.index + 1
    if not answer.is_map:
        return row | answer.row(predictor)
    with writing(answer, files, predictor.task == "multi_label") as add:
        return row | answer.row(predictor, add)


def _key(page: Page) -> str:
    """Returns the key of a page in a journal, which is the same from every working directory."""
    return dataclasses.replace(page, path=Path(os.path.abspath(page.path))).key


def _stamp(path: Path) -> list[int]:
    """Returns facts about a file that change when the file is replaced."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _kinds_of(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """The kinds that each file holds, by its absolute path."""
    kinds: dict[str, list[str]] = {}
    for kind, path in files.items():
        kinds.setdefault(os.path.abspath(path), []).append(kind)
    return kinds


def _paths(files: Iterable[Mapping[str, Path]]) -> list[Path]:
    return [path for each in files for path in each.values()]


def _is_done(entry: dict[str, Any] | None, stamp: list[int], files: Mapping[str, Path]) -> bool:
    if entry is None or entry["stamp"] != stamp:
        return False
    wanted = _kinds_of(files).items()
    return all(Path(path).exists() and set(kinds) <= set(entry["files"].get(path, ())) for path, kinds in wanted)


def _check_files_stay(table: Path | None, journal: Journal | None, left: Sequence[Mapping[str, Path]]) -> None:
    """Raises a ValueError if the run would replace a table or a file that earlier runs did not write."""
    if table is not None and table.exists() and (journal is None or os.path.abspath(table) not in journal.tables):
        raise ValueError(f"{table} exists. Pass --overwrite to replace it, or choose another name with --table")
    ours = set() if journal is None else journal.files
    for path in _paths(left):
        if path.exists() and os.path.abspath(path) not in ours:
            raise ValueError(
                f"{path} exists, and was not written by this command. Pass --overwrite to replace it, or choose "
                "another folder with --out"
            )


def _check_inputs_stay(found: Sequence[Found], files: dict[str, dict[str, Path]], table: Path | None) -> None:
    """Raises a ValueError if an output would overwrite an image."""
    real_path = RealPaths()
    inputs = {real_path(each.path) for each in found}
    for path in _paths(files.values()) + ([] if table is None else [table]):
        if real_path(path) in inputs:
            raise ValueError(
                f"{path} is one of the images and is not overwritten: choose another folder with --out"
            )
