"""The console of the commands, whose tables can also be printed as JSON."""

import contextlib
import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


class TableConsole(Console):
    """A console that keeps tables for the end, where they become JSON, and shows everything else on stderr."""

    kept: list[Table] | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as a console of Rich does; under `as_json`, keeps tables."""
        if self.kept is None:
            super().print(*objects, **options)
            return
        self.kept += [each for each in objects if isinstance(each, Table)]
        if rest := [each for each in objects if not isinstance(each, Table)]:
            super().print(*rest, **options)

    @contextlib.contextmanager
    def as_json(self) -> Iterator[None]:
        """Prints the tables of the block as JSON on stdout when it ends, and everything else on stderr.

        Tables are also printed if the block ends with an exit status, or with an error after its tables: both
        report files that cannot be read.
        """
        kept: list[Table] = []
        self.kept, self.file = kept, sys.stderr
        ended: Exception | None = None
        try:
            yield
        except Exception as error:
            if not kept:  # a command whose workers print, or an error before any table
                raise
            ended = error
        finally:
            self.kept, self.file = None, None  # type: ignore[assignment]  # the stdout of the moment
        tables = [{"title": str(table.title or ""), "rows": rows_of(table)} for table in kept]
        print(json.dumps({"tables": tables}, indent=2, ensure_ascii=False, allow_nan=False))
        if ended is not None:
            raise ended


# A file or a pipe has no width, so no table is cut there.
console = TableConsole(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def say(text: str) -> None:
    """Prints a line as it is: square brackets are not markup, and a long line is not broken."""
    console.print(text, soft_wrap=True, markup=False)


# Columns of names, which may look like numbers: the classes of digits do.
_TRUTHS = {"True": True, "False": False, None: None}
_NAMES = ("class", "label", "labels", "predicted", "set", "true")


def rows_of(table: Table) -> list[dict[str, Any]]:
    """Returns the rows of a table as dicts, with numbers in the columns that have nothing but numbers.

    The first column and columns of names stay text. An empty cell in the first column repeats the one above it.
    """
    heads = [" ".join(_plain(column.header).split()) for column in table.columns]
    names: list[str] = []
    for place, head in enumerate(heads):
        name = head or ("name" if place == 0 else f"column {place + 1}")
        alike = sum(each == name or each.startswith(f"{name} (") for each in names)
        names.append(f"{name} ({alike + 1})" if name in names else name)
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    first: list[str] = []
    for cell in columns[0] if columns else ():
        first.append(cell or (first[-1] if first else ""))
    cells: list[list[Any]] = [first]
    cells += [_values(column, head in _NAMES) for head, column in zip(heads[1:], columns[1:], strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def with_json(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the option `--json` to a command that prints tables."""
    signature = inspect.signature(command)
    text = "Print the tables as JSON, and everything else on stderr."
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=keyword) for each in signature.parameters.values()]
    annotation = Annotated[bool, typer.Option("--json", help=text)]
    parameters.append(inspect.Parameter("as_json", keyword, default=False, annotation=annotation))

    @functools.wraps(command)
    def run(*, as_json: bool, **given: Any) -> None:
        with console.as_json() if as_json else contextlib.nullcontext():
            command(**given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell or "")).plain


def _values(cells: list[str], are_names: bool) -> list[Any]:
    """Reads a column: bools, numbers, numbers with their uncertainty, or texts; None where there is nothing."""
    given = [None if cell in ("", "-") else cell for cell in cells]
    if not are_names and any(given) and all(cell in _TRUTHS for cell in given):
        return [_TRUTHS[cell] for cell in given]
    with contextlib.suppress(ValueError):
        return given if are_names else [cell and _number(cell) for cell in given]
    return given


def _number(text: str) -> float | dict[str, float | None] | None:
    """Reads a number; JSON has neither infinity nor NaN."""
    middle, sign, width = text.partition(" ± ")
    if sign:
        return {"value": _finite(middle), "plus_minus": _finite(width)}
    return _finite(middle)


def _finite(text: str) -> int | float | None:
    text = text.replace(",", "")
    if text.isdecimal():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None
