"""The settings that a search tries: which sites drop, and at which share of their rates."""

import itertools
from collections.abc import Sequence

import numpy as np

_SHARES = (1.0, 0.5, 0.25, 0.75, 1.5, 0.1, 2.0)
_HIGHEST = 0.9


def settings_of(rates: Sequence[float], most: int = 200) -> np.ndarray:
    """Returns settings of sites; the first one has all sites at their rates.

    With few sites, the settings are all combinations of some shares of the rates. With many sites, a setting turns
    on all sites from one onwards, all sites up to one, all sites except one, or only one site, at several shares.
    No rate becomes larger than 0.9 unless it was so before.

    Args:
        rates: The rate of each site, in the order of the model; 0 counts as 0.1.
        most: Int above 0, the largest number of settings.

    Returns:
        A float array `(settings, sites)` of rates, 0 where a site is off. No setting has all sites off, and no
        setting occurs twice.
    """
    own, count = np.array([rate or 0.1 for rate in rates]), len(rates)
    shares = next((n for n in range(len(_SHARES), 1, -1) if (n + 1) ** count <= most), 0)
    if shares:
        tried = np.array(list(itertools.product((*_SHARES[:shares], 0.0), repeat=count)))
    else:
        subsets = _subsets(count)
        tried = np.concatenate([share * subsets for share in _SHARES])
    settings = np.minimum(tried * own, np.maximum(own, _HIGHEST))
    settings = settings[settings.any(1)]
    _, first = np.unique(settings, axis=0, return_index=True)
    return settings[np.sort(first)][:most]


def _subsets(count: int) -> np.ndarray:
    """Choices of sites, `(choices, sites)`, each 1 where a site is on."""
    after = np.triu(np.ones((count, count)))
    only = np.eye(count)
    return np.concatenate([after[:1], after[1:], only, 1 - only, np.tril(np.ones((count, count)))[:-1]])
