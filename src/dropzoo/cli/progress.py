"""The progress and the end of the commands on many images."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dropzoo.cli.errors import in_options
from dropzoo.common.words import count_of

T = TypeVar("T")
_EVERY = 10.0  # seconds between two lines of progress where there is no terminal
_errors = Console(stderr=True, highlight=False, emoji=False)


def shown(found: Iterable[T], total: int) -> Iterator[T]:
    """Shows the progress with the time left: a bar on a terminal, and elsewhere a line now and then."""
    if not _errors.is_terminal:
        start = told = time.monotonic()
        for i, answer in enumerate(found, 1):
            yield answer
            if (now := time.monotonic()) - told > _EVERY:
                told = now
                left = (now - start) / i * (total - i)
                _errors.print(f"{i} of {count_of(total, 'image')}, {left:.0f} s left")
        return
    columns = (TextColumn("Images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors, transient=True) as bar:
        task = bar.add_task("images", total=total)
        for answer in found:
            yield answer
            bar.advance(task)


def end(failed: list[tuple[str, Exception]], done: int) -> None:
    """Lists the files without an answer, and ends with the status 1, or 2 if no image has one."""
    if not failed:
        return
    if len(failed) == 1 and not done:
        raise failed[0][1]
    said_of = ((key.rpartition("#")[0] or key, in_options(str(error))) for key, error in failed)
    listed = "\n".join(dict.fromkeys(f"  {name}: {error}" for name, error in said_of))
    every = count_of(len(failed) + done, "image")
    said = count_of(len(failed), f"of {every} has no answer:", f"of {every} have no answer:")
    said += f"\n{listed}"
    _errors.print(f"[red]Error:[/red] {escape(said)}", soft_wrap=True)
    raise typer.Exit(1 if done else 2)
