"""The promise about the values of a regression: `interval`."""

import numpy as np

from dropzoo.serving.calibration import grids
from dropzoo.serving.calibration.answers import deviation
from dropzoo.serving.calibration.fitting import bounds
from dropzoo.serving.calibration.fitting.promise import Answers, Promise, Terms
from dropzoo.serving.calibration.guarantee import Guarantee


class IntervalPromise(Promise):
    """`interval`: at most this share of an image's values lies outside their intervals, for each output.

    An interval goes from `mean - q d` to `mean + q d`, where d is the deviation of the samples plus a floor. The
    floor is chosen on other images so that the intervals are short. If an image has one value, this is split
    conformal prediction; if it has a map of values, this is conformal risk control.

    Args:
        terms: The terms of the promise.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__("interval", terms)
        self._grid = grids.distance_grid()
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []
        self._floors: tuple[float, ...] | None = None
        self._scores: list[np.ndarray] = []  # if an image has one position; these need no grid
        self._total = np.zeros((terms.width, len(self._grid)))
        self._widths, self._n = np.zeros(terms.width), 0

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        error = np.abs(labels - out["mean"].numpy().reshape(labels.shape))
        spread = np.sqrt(out["variance"].numpy().reshape(labels.shape))
        step = -(-labels.shape[1] // 64)  # at most 64 positions of each image are enough
        self._seen.append((error[:, ::step], spread[:, ::step]))

    def add(self, out: Answers, labels: np.ndarray) -> None:
        unit = deviation(out["variance"], self.floors).numpy().reshape(labels.shape)
        scores = np.abs(labels - out["mean"].numpy().reshape(labels.shape)) / unit
        self._n += len(labels)
        self._widths += unit.mean(1).sum(0)
        if labels.shape[1] == 1:
            self._scores.append(scores[:, 0])
            return
        for k in range(self.terms.width):
            for image in scores[..., k].astype(np.float32):
                self._total[k] += grids.count_above(image, self._grid) / image.size

    @property
    def floors(self) -> tuple[float, ...]:
        """The floor of each output: the one of a few choices that gives the shortest intervals."""
        if self._floors is None:
            pairs = [
                np.concatenate([x.reshape(-1, self.terms.width) for x in each])
                for each in zip(*self._seen, strict=True)
            ]
            self._floors = tuple(
                _floor(pairs[0][:, k], pairs[1][:, k], self.terms.level) for k in range(self.terms.width)
            )
        return self._floors

    def settle(self) -> Guarantee:
        terms, n = self.terms, self._n
        self.check(n)
        found = []
        for k in range(terms.width):
            if self._scores:
                scores = np.concatenate(self._scores)[:, k]
                found.append(-bounds.conformal_threshold(-scores, terms.level))
            else:
                bold = bounds.risk_control(self._total[k][::-1], n, terms.level)
                found.append(float(self._grid[::-1][bold]))
        if not np.isfinite(found).all():
            raise ValueError(
                "`interval` needs predictions that are roughly right: check the scale of `labels`. Received: "
                "predictions with errors that are too large"
            )
        widths = {f"mean_width_{k}": float(2 * q * self._widths[k] / n) for k, q in enumerate(found)}
        return Guarantee("interval", terms.level, tuple(found), n=(n,), floors=self.floors, figures=widths)


def _floor(error: np.ndarray, spread: np.ndarray, level: float) -> float:
    """The floor that gives the shortest intervals, chosen from several shares of the typical error."""
    typical = max(float(np.sqrt(np.mean(error**2))), 1e-12)
    choices = [typical * share for share in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)]
    lengths = [np.quantile(error / (spread + each), 1 - level) * (spread + each).mean() for each in choices]
    return choices[int(np.argmin(lengths))]
