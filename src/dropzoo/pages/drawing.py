"""Draws a network with its dropout sites: a bar for each site, a row for each size of the maps."""

import collections
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path as MplPath

from dropzoo.models.blocks.resize import CropLike, FitTo
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.walk import shapes_at
from dropzoo.models.sites import as_site, is_listed
from dropzoo.pages.style import INK, PALETTE

_PLAIN, _EDGE, _SOFT = "#eef0f3", "#c9ced6", "#5b626d"
_BAR, _COLUMN = 0.34, 0.56  # widths in inches


@dataclass(eq=False)
class _Bar:
    """A site, an input or an output, with its place in the drawing."""

    name: str
    shape: tuple[int | None, ...]
    spec: str | None = None
    sources: list["_Bar"] = field(default_factory=list)
    column: int = 0
    row: int = 0


def draw_sites(
    model: keras.Model, size: tuple[int, int] = (128, 128), shares: Mapping[str, float] | None = None
) -> Figure:
    """Draws the sites of a model in the order of the forward pass, with the dropout layers at them.

    Args:
        model: A built Functional or Sequential model.
        size: Pair of ints `(height, width)`, the size of the images for a model that takes any size. The height is
            also the length of a signal.
        shares: Dict from sites to the share of the uncertainty that comes from each, in [0, 1]. Its bar is filled
            to this share, which is also written below it.

    Returns:
        A matplotlib figure whose width grows with the depth of the network.
    """
    bars = _bars(model, size)
    kinds = list(dict.fromkeys(bar.spec.partition(":")[0] for bar in bars if bar.spec))
    colours = {kind: PALETTE[i % len(PALETTE)] for i, kind in enumerate(kinds)}
    tall = max(1.0, 0.075 * max(len(bar.name) for bar in bars) + 0.1)
    step = tall + 0.62
    columns, rows = 1 + max(bar.column for bar in bars), 1 + max(bar.row for bar in bars)
    width, height = columns * _COLUMN + 1.0, rows * step + (0.3 if kinds else 0.0)
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-1.0, columns * _COLUMN), ylim=(-rows * step, height - rows * step))
    axis.axis("off")

    places_of = {bar: (bar.column * _COLUMN, -(bar.row + 1) * step + 0.3) for bar in bars}
    taken = {(bar.column, bar.row) for bar in bars}
    for bar in bars:
        for source in bar.sources:
            over = any((column, bar.row) in taken for column in range(source.column + 1, bar.column))
            _arrow(axis, places_of[source], places_of[bar], tall, over and source.row == bar.row)
    for bar in bars:
        x, y = places_of[bar]
        colour = colours[bar.spec.partition(":")[0]] if bar.spec else _PLAIN
        rounded = "round,pad=0,rounding_size=0.05"
        share = None if shares is None or not bar.spec else shares.get(bar.name)
        ground = colour if share is None else to_rgba(colour, 0.25)
        axis.add_patch(FancyBboxPatch((x, y), _BAR, tall, rounded, facecolor=ground, edgecolor=_EDGE, zorder=2))
        middle = x + _BAR / 2
        ink = "white" if bar.spec and share is None else INK
        if share is not None:
            axis.add_patch(Rectangle((x, y), _BAR, tall * min(max(share, 0.0), 1.0), facecolor=colour, zorder=3))
            axis.text(middle, y - 0.2, f"{share:.0%}", ha="center", va="top", fontsize=7, color=INK)
        axis.text(
            middle, y + tall / 2, bar.name, rotation=90, ha="center", va="center", fontsize=7, color=ink, zorder=4
        )
        axis.text(middle, y + tall + 0.05, str(bar.shape[-1]), ha="center", va="bottom", fontsize=6.5, color=_SOFT)
        if bar.spec:
            rate = bar.spec.partition(":")[2].partition(",")[0].removeprefix("rate=")
            axis.text(middle, y - 0.06, rate, ha="center", va="top", fontsize=7.5, weight="bold", color=colour)
    for row in range(rows):
        first = min((bar for bar in bars if bar.row == row), key=lambda bar: bar.column)
        label = " x ".join(str(n) for n in first.shape[1:-1]) or "vector"
        axis.text(-0.95, -(row + 1) * step + 0.3 + tall / 2, label, va="center", fontsize=7.5, color=_SOFT)
    if kinds:
        handles = [Patch(facecolor=colours[kind], label=kind) for kind in kinds]
        axis.legend(handles=handles, loc="upper left", ncols=len(kinds), frameon=False, fontsize=8)
    return figure


def _arrow(axis: Axes, source: tuple[float, float], target: tuple[float, float], tall: float, over: bool) -> None:
    (x0, y0), (x1, y1) = source, target
    style: Any = {"arrowstyle": "-|>", "mutation_scale": 7, "color": "#9aa1ab", "linewidth": 0.8, "zorder": 1}
    if over:  # the arrow passes above the bars in between and their numbers
        (x0, y0), (x1, y1) = (x0 + _BAR * 0.85, y0 + tall + 0.05), (x1 + _BAR * 0.15, y1 + tall)
        corners = [(x0, y0), (x0, y0 + 0.23), (x1, y0 + 0.23), (x1, y1 + 0.01)]
        axis.add_patch(FancyArrowPatch(path=MplPath(corners), fill=False, joinstyle="round", **style))
    else:
        ends = (x0 + _BAR, y0 + tall / 2), (x1, y1 + tall / 2)
        axis.add_patch(FancyArrowPatch(*ends, shrinkA=0, shrinkB=1, **style))


def _bars(model: keras.Model, size: tuple[int, int]) -> list[_Bar]:
    """Returns the bars of a model: its inputs, its sites and its outputs, each in its place."""
    every = places(model)
    shapes = shapes_at(model, size) if any(None in tensor.shape[1:-1] for tensor in model.inputs) else {}
    by_node = {id(place.call.node): place for place in every}
    bars: dict[Place, _Bar] = {}
    behind: dict[Place, list[_Bar]] = collections.defaultdict(list)  # the nearest bars ahead of each place
    ends: dict[str, _Bar] = {}
    for place in every:
        sources = list(dict.fromkeys(behind[place]))
        is_input = isinstance(place.call.layer, keras.layers.InputLayer)
        if is_listed(place) or is_input:
            site = as_site(place)
            shape = shapes.get(id(place.tensor), site.shape)
            bars[place] = _Bar(site.name, shape, site.spec, sources)
            sources = [bars[place]]
        for reader in place.readers:
            if isinstance(reader.layer, (CropLike, FitTo)) and reader.inputs[1] is place.tensor:
                continue  # it reads only the size of the tensor
            following = by_node.get(id(reader.node))
            if following is not None:
                behind[following] += sources
            elif reader.outputs and reader.outputs[0] is not None:  # an output of the model
                shape = shapes.get(id(reader.outputs[0]), tuple(reader.outputs[0].shape))
                end = ends.setdefault(reader.name, _Bar(reader.path + reader.name, shape))
                end.sources += [source for source in sources if source not in end.sources]
    found = [*bars.values(), *ends.values()]
    _arrange(found)
    return found


def _arrange(bars: list[_Bar]) -> None:
    """Gives each bar a column by its depth, and a row by the size of its map."""
    # A tensor without a height, such as a vector, goes to the lowest row.
    top = max((bar.shape[1] or 1 for bar in bars if len(bar.shape) == 4), default=1)
    levels = {}
    for bar in bars:
        bar.column = 1 + max((source.column for source in bar.sources), default=-1)
        known = len(bar.shape) == 4 and bar.shape[1]
        levels[bar] = round(math.log2(top / bar.shape[1])) if known else 99  # type: ignore[operator]
    order = {level: i for i, level in enumerate(sorted(set(levels.values())))}
    taken: set[tuple[int, int]] = set()
    for bar in bars:
        bar.row = order[levels[bar]]
        while (bar.column, bar.row) in taken:  # parallel branches stand beside each other
            bar.column += 1
        taken.add((bar.column, bar.row))
