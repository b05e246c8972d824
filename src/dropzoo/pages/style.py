"""The colours, lines and axes that all pictures share."""

from collections.abc import Iterable

from matplotlib.axes import Axes

# The palette of Okabe and Ito, whose colours readers with colour blindness can tell apart.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY = "#222831", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, INK)
#: A colour and a dash for each line, so that no line is known by its colour alone. Only the baseline is dotted.
LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, (0, (5, 1, 1, 1, 1, 1))))


def plain(axes: Iterable[Axes], labelsize: float | None = None) -> None:
    """Gives axes a pale grid and no frame above and to the right; the tick labels get `labelsize` points."""
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if labelsize is not None:
            axis.tick_params(labelsize=labelsize)
