"""What a running sweep shows: the leaders, how far it is, and how long it will take."""

import time
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dropzoo.sweep.space import Trial
from dropzoo.sweep.stats import Candidate, candidates, interval_text, names, score_name, title

_ROWS = 8


class Screen:
    """A live table in a terminal; elsewhere a line for each trial.

    Args:
        console: where to.
        total: how many trials there are at most, and their epochs.
    """

    def __init__(self, console: Console, total: int, epochs: int, done: Iterable[dict[str, Any]]) -> None:
        self._console, self._total, self._epochs = console, total, epochs
        self._records = list(done)
        self._start, self._spent = time.monotonic(), 0
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()
        self._live = None

    def add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        self._spent += record["config"]["epochs"]
        if self._live:
            progress = Text(self._progress(), style="bold")
            self._live.update(Group(leaders_table(candidates(self._records)[:_ROWS]), progress))
        else:
            self._console.print(f"{self._progress()}. {self._line(record)}", soft_wrap=True, markup=False)

    def fewer(self, trials: int, epochs: int) -> None:
        """So many trials, of so many epochs together, will not be."""
        self._total -= trials
        self._epochs -= epochs

    def _progress(self) -> str:
        left = self._epochs - sum(record["config"]["epochs"] for record in self._records)
        seconds = (time.monotonic() - self._start) * left / max(self._spent, 1)
        failed = sum("error" in record for record in self._records)
        text = f"{len(self._records)} of {self._total} trials"
        text += f", {failed} failed" if failed else ""
        return f"{text}, about {_duration(seconds)} left" if left > 0 else text

    def _line(self, record: dict[str, Any]) -> str:
        config = record["config"]
        fold = f", fold {config['fold'][0] + 1}" if config["fold"] else ""
        what = f"{Candidate([record]).full_label}, seed {config['seed']}{fold}, {config['epochs']} epochs"
        if "error" in record:
            return f"{what}: FAILED: {record['error'].splitlines()[0][:200]}"
        name = score_name([record])
        score = f"{title(name)} {record['validation'][name]:.4f}"
        return f"{what}: NLL {record['validation']['nll']:.4f}, {score}, {record['seconds']:.1f} s"


def leaders_table(found: list[Candidate]) -> Table:
    """Candidates as a table, in their order; intervals of 95 % over seeds."""
    table = Table(Column("validation images", overflow="fold"), box=box.SIMPLE, padding=(0, 1, 0, 0))
    if not found:
        return table
    name = score_name(found[0].records)
    for head in ("runs", "NLL", title(name), "ECE"):
        table.add_column(head, justify="right", overflow="fold")
    for label, each in zip(names(found), found, strict=True):
        figures = (interval_text(each.interval(metric)) for metric in ("nll", name, "ece"))
        table.add_row(Text(label), str(len(each.scored)), *figures)
    return table


def trials_and_epochs(trials: Iterable[Trial]) -> tuple[int, int]:
    listed = list(trials)
    return len(listed), sum(trial.config.epochs for trial in listed)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
