"""How often calibrated intervals hold, and how long they are, over random halves of known images."""

import numpy as np

from dropzoo.predictions.intervals import fit


def over_splits(numbers: np.ndarray, splits: int) -> dict[str, float]:
    """The share of images whose number lies in its interval, and widths, on average over random halves.

    Args:
        numbers: Float array `(images, 3)`: the estimate, the deviation of the samples, and the truth.
        splits: Int, how many halves.

    Returns:
        `covered`; `width` of the intervals; and `bare`, the width of split conformal intervals on the estimate
        alone.
    """
    e, s, t = numbers.T
    random = np.random.default_rng(0)
    covered, widths, bare = [], [], []
    for _ in range(splits):
        order = random.permutation(len(e))
        known, new = order[: len(e) // 2], order[len(e) // 2 :]
        interval = fit(e[known], s[known], t[known])
        low, high = np.array([interval.around(*each) for each in zip(e[new], s[new], strict=True)]).T
        covered.append(np.mean((low <= t[new]) & (t[new] <= high)))
        widths.append((high - low).mean())
        errors = np.sort(np.abs(t[known] - e[known]))
        bare.append(2 * errors[int(np.ceil((len(known) + 1) * 0.9)) - 1])
    return {"covered": np.mean(covered), "width": np.mean(widths), "bare": np.mean(bare)}
