"""Describes a data set on disk in tables and lines for the terminal."""

from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from dropzoo import training
from dropzoo.common.words import count_of
from dropzoo.runs.tables import text_table
from dropzoo.training.data.files.summary import Summary

_MOST_CLASSES = 30


def show(
    data: training.Data, table: Callable[[Table], None], say: Callable[[str], None], every: bool = False
) -> None:
    """Prints how the data of a folder were read; nothing for other data.

    Args:
        data: The result of `load_data`.
        table: Function that prints a table.
        say: Function that prints a line.
        every: Bool. Whether to print also the doubts about which `load_data` has warned.
    """
    if (summary := data.summary) is None:
        return
    table(_counts(summary))
    for line in (*facts(summary), *summary.notes):
        say(line)
    wrong = [*(summary.doubts if every else ()), *summary.hints]
    if wrong:
        say("Looks wrong:" if len(wrong) > 1 else f"Looks wrong: {wrong[0]}")
    for line in wrong if len(wrong) > 1 else ():
        say(f"- {line}")


def cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and the rows of a table with a row for each class and a column for each split."""
    splits = [name for name in ("train", "validation", "test") if name in summary.counts]
    masks = summary.task == "segmentation"
    heads = ["pixels of class" if masks else "images of class"]
    heads += ["training" if name == "train" else name for name in splits]
    names = list(dict.fromkeys(name for split in splits for name in summary.counts[split]))
    totals = {split: sum(summary.counts[split].values()) or 1 for split in splits}
    rows = []
    for name in names[:_MOST_CLASSES]:
        found = {split: summary.counts[split].get(name, 0) for split in splits}
        shares = [f"{100 * found[split] / totals[split]:.1f} %" for split in splits]
        rows.append([name, *(shares if masks else (f"{count:,}" for count in found.values()))])
    if len(names) > _MOST_CLASSES:
        rows.append([f"and {len(names) - _MOST_CLASSES} more classes", *("" for _ in splits)])
    images = [sum(sample.split == split for sample in summary.samples) for split in splits]
    return heads, [*rows, ["images", *(f"{count:,}" for count in images)]]


def _counts(summary: Summary) -> Table:
    heads, rows = cells(summary)
    found = text_table(escape(str(summary.place)), heads, rows)
    if len(rows) > 1:
        found.rows[-2].end_section = True  # a line above the sums
    return found


def facts(summary: Summary) -> list[str]:
    """Returns sentences about the sizes, the types and the splits of a data set."""
    several = len(summary.sizes) > 1
    common = [
        f"{height}x{width}x{channels}" + (f" ({count:,})" if several else "")
        for (height, width, channels), count in summary.sizes.most_common(3)
    ]
    sizes = ", ".join(common) + (f" and {len(summary.sizes) - 3} more sizes" if len(summary.sizes) > 3 else "")
    lines = [f"{summary.task.capitalize()}; height x width x channels {sizes}; {', '.join(summary.dtypes)}"]
    if summary.is_split:
        lines.append("The folder has its own split")
    if summary.groups:
        lines.append(f"{count_of(summary.groups, 'group')}, each within one split")
    return lines
