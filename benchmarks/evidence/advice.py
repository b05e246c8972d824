"""The first paragraph of the page: what a practitioner can do with it, from the rows."""

import textwrap

import numpy as np
from control import CONTROL
from jobs import Row
from protocol import Rows, found_rows, value_of

_HEAD = """# Evidence: what dropout does, and what it does not

`make evidence` carries out the training runs that are missing in `benchmarks/evidence/results/trainings.csv`, and
generates this page from that file. `make evidence ARGS="--list"` only lists the missing training runs.

"""
_ALWAYS = """**If you only read one paragraph:** Train with a learning rate that falls to 0, until the training
accuracy stops rising. If the network then fits its training images, but its validation NLL is far above its
training NLL, it overfits. Then try dropout, for example 0.2 after each module and 0.5 after each dense layer. If
the network does not fit its training images, train longer before you add dropout. In any case, fit a temperature
on held-out images: it costs nothing. Use Monte-Carlo samples if you need to know where the network is unsure."""


_FIGURES = """ Here are the results for a CNN that, without dropout, fits its 2,000 training images of
Fashion-MNIST perfectly. One pass without dropout has an accuracy of {none[score_one]:.3f}, an NLL of
{none[nll_one]:.2f} and an ECE of {none[ece_one]:.3f}. With dropout, the mean of 30 samples has an accuracy of
{dropout[score_mc]:.3f}, an NLL of {dropout[nll_mc]:.2f} and an ECE of {dropout[ece_mc]:.3f} ({seeds})."""
_TEMPERATURE = """ Most of this improvement is a reduction of overconfidence, and a temperature alone achieves
it too: it lowers the NLL of the network without dropout to {none[nll_one_t]:.3f}, and its ECE to
{none[ece_one_t]:.3f}. With a temperature, the network with dropout has an NLL of {dropout[nll_one_t]:.3f} and an
ECE of {dropout[ece_one_t]:.3f} in one pass, and an NLL of {dropout[nll_mc_t]:.3f} and an ECE of
{dropout[ece_mc_t]:.3f} with samples."""


def first_paragraph(rows: Rows) -> str:
    """Returns the head of the page, with the figures of the control over the seeds that both conditions have."""
    by_name = {condition.name: (setting, condition) for setting, condition in CONTROL.each()}
    setting = by_name["none"][0]
    found = [found_rows(*by_name[name], rows) for name in ("none", "modules, dense")]
    both = sorted(set(found[0]) & set(found[1]))
    words = _ALWAYS
    if both:
        none, dropout = (_means([each[seed] for seed in both]) for each in found)
        seeds = (
            f"{len(both)} seeds" if len(both) >= setting.seeds else f"{len(both)} of {setting.seeds} seeds so far"
        )
        words += _FIGURES.format(none=none, dropout=dropout, seeds=seeds)
        if _mostly_temperature(none, dropout):
            words += _TEMPERATURE.format(none=none, dropout=dropout)
    return f"{_HEAD}{textwrap.fill(' '.join(words.split()), 115)}\n\n"


def _mostly_temperature(none: dict[str, float], dropout: dict[str, float]) -> bool:
    """Whether the temperature alone closes more than half of the gap in NLL between none and samples."""
    gap = none["nll_one"] - dropout["nll_mc"]
    return gap > 0 and none["nll_one"] - none["nll_one_t"] > gap / 2


def _means(rows: list[Row]) -> dict[str, float]:
    """Returns the means of the figures over rows."""
    names = [f"{f}_{c}" for f in ("score", "nll", "ece") for c in ("one", "one_t", "mc", "mc_t")]
    return {name: float(np.mean([value_of(row, name) for row in rows])) for name in names}
