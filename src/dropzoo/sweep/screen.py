"""The screen of a running sweep: the leaders, the progress and the time left."""

import time
from collections.abc import Iterable

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dropzoo.common.words import count_of
from dropzoo.sweep.stats import Candidate, candidates, figure, interval_text, names, ranking_metric, title
from dropzoo.sweep.trials import Record, Trial

_ROWS = 8


class Screen:
    """Shows a live table in a terminal, and elsewhere a line for each trial.

    Args:
        console: Rich console to print to.
        total: Int, the largest number of trials that there can be.
        epochs: Int, the epochs of all these trials together.
        done: Records of the trials that were run before.
    """

    def __init__(self, console: Console, total: int, epochs: int, done: Iterable[Record]) -> None:
        self._console, self._total, self._epochs = console, total, epochs
        self._records = list(done)
        self._start, self._spent = time.monotonic(), 0
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        self._live = None

    def add(self, record: Record) -> None:
        """Shows one more record."""
        self._records.append(record)
        self._spent += record.trial.config.epochs
        if self._live:
            progress = Text(self._progress(), style="bold")
            self._live.update(Group(leaders_table(candidates(self._records)[:_ROWS]), progress))
        else:
            self._console.print(f"{self._progress()}. {self._line(record)}", soft_wrap=True, markup=False)

    def fewer(self, trials: int, epochs: int) -> None:
        """Subtracts trials that will not be run, and the sum of their epochs."""
        self._total -= trials
        self._epochs -= epochs

    def _progress(self) -> str:
        left = self._epochs - sum(record.trial.config.epochs for record in self._records)
        seconds = (time.monotonic() - self._start) * left / max(self._spent, 1)
        failed = sum(bool(record.error) for record in self._records)
        text = f"{len(self._records)} of {self._total} trials"
        text += f", {failed} failed" if failed else ""
        return f"{text}, about {_duration(seconds)} left" if left > 0 else text

    def _line(self, record: Record) -> str:
        config, candidate = record.trial.config, Candidate([record])
        fold = f", fold {config.fold[0] + 1}" if config.fold else ""
        what = f"{candidate.full_label}, seed {config.seed}{fold}, {count_of(config.epochs, 'epoch')}"
        if record.error:
            return f"{what}: FAILED: {record.first_line}"
        figures = record.outcome.validation
        score = f"{title(candidate.score)} {figure(figures, candidate.score):.4f}"
        return f"{what}: NLL {figures['nll']:.4f}, {score}, {record.outcome.seconds:.1f} s"


def leaders_table(found: list[Candidate]) -> Table:
    """Returns candidates as a table, in their order, with 95 % intervals over seeds."""
    table = Table(Column("validation images", overflow="fold"), box=box.SIMPLE, padding=(0, 1, 0, 0))
    if not found:
        return table
    name = found[0].score
    ranked = ranking_metric([record for each in found for record in each.records])
    for head in ("runs", title(ranked), title(name), "ECE"):
        table.add_column(head, justify="right", overflow="fold")
    for label, each in zip(names(found), found, strict=True):
        figures = (interval_text(each.interval(metric)) for metric in (ranked, name, "ece"))
        table.add_row(Text(label), str(len(each.scored)), *figures)
    return table


def trials_and_epochs(trials: Iterable[Trial]) -> tuple[int, int]:
    """Returns the number of trials, and the sum of their epochs."""
    listed = list(trials)
    return len(listed), sum(trial.config.epochs for trial in listed)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
