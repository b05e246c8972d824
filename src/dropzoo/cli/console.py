"""The console of the commands, whose tables can also be printed as JSON."""

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


class TableConsole(Console):
    """A console that keeps tables for the end, where they become JSON, and shows all else on stderr meanwhile."""

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
        """Prints the tables of the block as JSON on stdout when it ends, and everything else on stderr."""
        self.kept, self.file = [], sys.stderr
        try:
            yield
            tables = [{"title": str(table.title or ""), "rows": rows_of(table)} for table in self.kept]
        finally:
            self.kept, self.file = None, None  # type: ignore[assignment]  # the stdout of the moment
        print(json.dumps({"tables": tables}, indent=2, ensure_ascii=False))


# A file or a pipe has no width, so no table is cut there.
console = TableConsole(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def rows_of(table: Table) -> list[dict[str, Any]]:
    """Returns the rows of a table as dicts, with numbers where the cells are numbers."""
    heads = [" ".join(_plain(column.header).split()) for column in table.columns]
    names = [head or ("name" if place == 0 else f"column {place + 1}") for place, head in enumerate(heads)]
    cells = [[_value(_plain(cell)) for cell in column.cells] for column in table.columns]
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


def _value(text: str) -> Any:
    """Reads a cell: a number, a number with its uncertainty, nothing, or a text."""
    if text in ("", "-"):
        return None
    middle, sign, width = text.partition(" ± ")
    try:
        number = float(middle.replace(",", ""))
        return {"value": number, "plus_minus": float(width)} if sign else number
    except ValueError:
        return text
