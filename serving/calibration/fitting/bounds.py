"""The theorems behind the promises, as functions of arrays. Nothing here knows about models or images.

They hold for any model, in finite samples, if the held-out images and the images to come are exchangeable: drawn
from the same source, in an order that carries no information. The p-values also need independent images, and
`selective_threshold` states one more condition. Nothing holds for images from another source.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

_ROUNDING = 1e-9  # level * (n + 1) may be a whole number except for the rounding of floats


def least_level(n: int, confidence: float | None = None) -> float:
    """Returns the least level that can be promised from n held-out images.

    Without a confidence it is `1 / (n + 1)`: the next image may be the worst of all n + 1, whatever the others
    are. With a confidence it is the level at which n images without an error have a p-value of `1 - confidence`,
    which is `1 - (1 - confidence) ** (1 / n)`.

    Args:
        n: Int, the number of held-out images.
        confidence: Float in (0, 1), for promises that hold with a confidence. None for those on average.
    """
    if confidence is None:
        return 1.0 / (n + 1)
    return 1.0 - (1.0 - confidence) ** (1.0 / n) if n else 1.0


def conformal_threshold(scores: np.ndarray, level: float) -> float:
    """Returns a threshold below which the score of a new image lies with a probability of at most `level`.

    Split conformal prediction. The rank of the new score among all n + 1 scores is uniform, so it is below the
    k-th smallest of the n held-out ones with probability `k / (n + 1)`, or less if scores are tied. With
    `k = floor(level * (n + 1))` this is at most `level`, and more than `level - 1 / (n + 1)` without ties.

    Args:
        scores: Array `(n,)` of the scores of held-out images; larger is better.
        level: Float, at least `least_level(n)`.

    Reference:
        Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005. With the probability of the
        true class as the score: Sadinle, Lei and Wasserman, 2019, arXiv:1609.00451.
    """
    k = math.floor(level * (len(scores) + 1) + _ROUNDING)
    return float(np.partition(scores, k - 1)[k - 1])


def risk_control(total: np.ndarray, n: int, level: float) -> int:
    """Returns the boldest setting whose expected loss on a new image is at most `level`.

    Conformal risk control. Each image has a loss in [0, 1] that does not fall from one setting to the next bolder
    one, and the safest setting has a loss of 0. The loss of the new image is not known, so it counts as 1, the
    largest loss. The boldest setting at which the mean over the n + 1 images is at most the level is then not
    bolder than the setting that the true loss would give. That setting has an expected loss of at most the level,
    because the images are exchangeable. The unknown loss costs up to `1 / (n + 1)` of the level.

    Args:
        total: Array `(settings,)`, the sum over held-out images of the losses, from the safest setting to the
            boldest.
        n: Int, the number of held-out images.
        level: Float, at least `least_level(n)`.

    Returns:
        The index of the setting.

    Reference:
        Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2022, arXiv:2208.02814, theorem 1.
        A loss that may fall must be replaced by its running maximum first.
    """
    allowed = total + 1.0 <= level * (n + 1) + _ROUNDING
    return int(len(total) if allowed.all() else np.argmin(allowed)) - 1


def binomial_p_value(errors: np.ndarray, count: np.ndarray, level: float) -> np.ndarray:
    """Returns the p-values of "the error rate is above the level", for losses that are 0 or 1.

    The p-value is the probability of at most this number of errors if the error rate equals the level. It is
    exact.

    Args:
        errors: Int array, the number of errors.
        count: Int array, the number of images.
        level: Float in (0, 1).
    """
    return stats.binom.cdf(errors, count, level)


def betting_p_value(losses: np.ndarray, level: float, confidence: float) -> float:
    """Returns a p-value of "the expected loss is above the level", for losses anywhere in [0, 1].

    A gambler starts with a capital of 1 and bets on `level - loss`, image after image, with a stake that depends
    on earlier images only. If the expected loss is above the level, the capital is a supermartingale, and it
    reaches `1 / p` with a probability of at most p. Stakes follow the variance, so that losses of little spread
    need far fewer images than Hoeffding's bound.

    Args:
        losses: Array `(n,)`, in an order that does not depend on their values.
        level: Float in (0, 1).
        confidence: Float in (0, 1). The stakes are chosen for a capital that has to reach `1 / (1 - confidence)`.

    Reference:
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2020,
        arXiv:2010.09686; the stakes are those of the predictable plug-in, limited so that no bet can lose the
        whole capital.
    """
    n = len(losses)
    if not n:
        return 1.0
    before = np.arange(1, n + 1)
    means = (0.5 * level + np.cumsum(losses)) / (before + 0.5)
    spread = (level * (1 - level) + np.cumsum((losses - means) ** 2)) / (before + 1)
    variance = np.concatenate([[level * (1 - level)], spread[:-1]])  # the estimate before each bet
    stakes = np.sqrt(2 * math.log(1 / (1 - confidence)) / (n * np.maximum(variance, 1e-12)))
    stakes = np.minimum(stakes, 0.99 / (1 - level))
    capital = np.cumsum(np.log1p(stakes * (level - losses)))
    return float(min(1.0, math.exp(-max(capital.max(), 0.0))))


def fixed_sequence(p_value: Callable[[int], float], count: int, confidence: float) -> int:
    """Returns how many settings, starting with the safest, are shown to keep the level.

    Learn then Test with fixed-sequence testing: settings are tested in an order that is fixed beforehand, each
    with the full `1 - confidence`, and the first setting that fails its test ends the tests. A setting that does
    not keep the level is accepted only if the first such setting in the sequence passes its test, which has a
    probability of at most `1 - confidence`.

    Args:
        p_value: Function from the number of a setting, counted from 0, to its p-value.
        count: Int, the number of settings.
        confidence: Float in (0, 1).

    Reference:
        Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test", 2021, arXiv:2110.01052, proposition 2.
    """
    return next((i for i in range(count) if p_value(i) > 1 - confidence), count)


def best_start(doubts: np.ndarray, losses: np.ndarray, level: float) -> float:
    """Returns the doubt at which `selective_threshold` starts, from images that it does not use.

    Among all doubts, the images below this one are better than the level by the largest number of standard errors.

    Args:
        doubts: Array `(n,)`, larger for images that are less certain; at least one.
        losses: Array `(n,)` in [0, 1].
        level: Float in (0, 1).
    """
    order = np.argsort(doubts, kind="stable")
    counts = np.arange(1, len(order) + 1)
    margin = (level - np.cumsum(losses[order]) / counts) * np.sqrt(counts)
    ends = np.append(np.diff(doubts[order]) > 0, True)  # images of equal doubt are kept or deferred together
    best = int(np.argmax(np.where(ends, margin, -np.inf)))
    return float(np.append(doubts[order], np.inf)[best + 1])


def selective_threshold(
    doubts: np.ndarray, losses: np.ndarray, level: float, confidence: float, binary: bool, start: float
) -> float | None:
    """Returns a doubt below which images can be kept: their expected loss is then at most the level.

    The held-out images are sorted by doubt. For each m, the m images below the (m + 1)-th doubt are independent
    draws from all images below that doubt, so their losses give a p-value, which is exact if losses are 0 or 1.
    `fixed_sequence` tests each m in turn, from the number of images below `start` upwards. The promise holds with
    the confidence, over draws of the held-out images, if the error rate of the images that are kept crosses the
    level only once as more images are kept. This is so if the error rate rises with the doubt.

    Args:
        doubts: Array `(n,)`, larger for images that are less certain.
        losses: Array `(n,)` in [0, 1].
        level: Float in (0, 1).
        confidence: Float in (0, 1).
        binary: Bool, whether all losses are 0 or 1.
        start: Float, the first doubt to test. It was chosen on other images, see `best_start`.

    Returns:
        A float; images with a smaller doubt are kept. Infinity keeps all images. None if no threshold is shown to
        keep the level.
    """
    n = len(doubts)
    order = np.argsort(doubts, kind="stable")
    ranked = np.append(doubts[order], np.inf)
    first = int(np.searchsorted(ranked[:n], start, side="left"))  # the number of images below the start
    later = np.arange(first + 1, n + 1)
    later = later[ranked[later] > ranked[later - 1]]  # images of equal doubt are kept or deferred together
    if not binary:  # each test reads all images again
        later = later[:: -max(1, len(later) // 300)][::-1] if len(later) else later
    counts = np.append(first, later).astype(int)
    thresholds = np.append(start, ranked[later])
    sums = np.append(0.0, np.cumsum(losses[order]))

    if binary:
        p_values = binomial_p_value(sums[counts], counts, level)
        shown = fixed_sequence(lambda i: float(p_values[i]), len(counts), confidence)
    else:  # as they came, for the bets

        def p_value(i: int) -> float:
            return betting_p_value(losses[np.sort(order[: counts[i]])], level, confidence)

        shown = fixed_sequence(p_value, len(counts), confidence)
    return float(thresholds[shown - 1]) if shown else None
