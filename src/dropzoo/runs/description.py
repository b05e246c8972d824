"""What was understood of a data set on disk, as tables and lines for the terminal."""

from collections.abc import Callable

from rich.markup import escape
from rich.table import Column, Table

from dropzoo import training
from dropzoo.training.data.files.summary import Summary

_MOST_CLASSES = 30


def show(
    data: training.Data, table: Callable[[Table], None], say: Callable[[str], None], every: bool = False
) -> None:
    """Prints what was understood of the data of a folder; nothing for other data.

    Args:
        data: What `load_data` returns.
        table: Function that prints a table.
        say: Function that prints a line.
        every: Bool. Whether to print also the doubts of which `load_data` has warned.
    """
    if (summary := data.summary) is None:
        return
    table(_counts(summary))
    for line in (*_facts(summary), *summary.notes):
        say(line)
    wrong = [*(summary.doubts if every else ()), *summary.hints]
    if wrong:
        say("Looks wrong:" if len(wrong) > 1 else f"Looks wrong: {wrong[0]}")
    for line in wrong if len(wrong) > 1 else ():
        say(f"- {line}")


def _counts(summary: Summary) -> Table:
    """Returns a table with a row for each class and a column for each split."""
    splits = [name for name in ("train", "validation", "test") if name in summary.counts]
    what = "pixels of class" if summary.task == "segmentation" else "images of class"
    heads = [Column(name if name != "train" else "training", justify="right") for name in splits]
    found = Table(Column(what, overflow="fold"), *heads, title=escape(str(summary.place)))
    names = list(dict.fromkeys(name for split in splits for name in summary.counts[split]))
    totals = {split: sum(summary.counts[split].values()) or 1 for split in splits}
    for name in names[:_MOST_CLASSES]:
        cells = []
        for split in splits:
            count = summary.counts[split].get(name, 0)
            share = f"{100 * count / totals[split]:.1f} %"
            cells.append(share if summary.task == "segmentation" else f"{count:,}")
        found.add_row(escape(name), *cells)
    if len(names) > _MOST_CLASSES:
        found.add_row(f"and {len(names) - _MOST_CLASSES} more classes", *["" for _ in splits])
    images = {split: sum(sample.split == split for sample in summary.samples) for split in splits}
    found.add_section()
    found.add_row("images", *(f"{images[split]:,}" for split in splits))
    return found


def _facts(summary: Summary) -> list[str]:
    common = [
        f"{h}x{w}x{c}" + (f" ({n:,})" if len(summary.sizes) > 1 else "")
        for (h, w, c), n in summary.sizes.most_common(3)
    ]
    sizes = ", ".join(common) + (f" and {len(summary.sizes) - 3} more sizes" if len(summary.sizes) > 3 else "")
    lines = [f"{summary.task.capitalize()}; height x width x channels {sizes}; {', '.join(summary.dtypes)}"]
    if summary.is_split:
        lines.append("The split is the one that the folder gives")
    if summary.groups:
        lines.append(f"{summary.groups:,} groups, each within one split")
    return lines
