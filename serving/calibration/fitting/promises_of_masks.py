"""The promises about masks and labels: `miss` and `false`."""

import numpy as np

from dropzoo.serving.calibration import grids
from dropzoo.serving.calibration.answers import NEVER, by_size, sees
from dropzoo.serving.calibration.fitting import bounds
from dropzoo.serving.calibration.fitting.heldout import VOID, truth_of
from dropzoo.serving.calibration.fitting.promise import Answers, Promise, Terms
from dropzoo.serving.calibration.guarantee import Guarantee


class MaskPromise(Promise):
    """`miss`: the share of a class that the outer mask misses. `false`: the share of the inner mask that is wrong.

    `miss` is about the images that hold the class, and `false` is about the images in which the model sees it.
    Each class has a threshold of its own. The outer mask holds the pixels whose `by_size` score reaches the
    threshold; the floor of the score is a quarter of the usual size of the class. The inner mask holds the pixels
    whose probability reaches the threshold.

    Args:
        name: `"miss"` or `"false"`.
        terms: The terms of the promise.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        super().__init__(name, terms)
        self._grid = grids.probability_grid()
        self._total = np.zeros((terms.width, len(self._grid)))
        self._areas = np.zeros((terms.width, len(self._grid)))  # of the masks, as shares of the image
        self._n = np.zeros(terms.width, int)
        self._sizes: list[list[float]] = [[] for _ in range(terms.width)]

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        for k in self.terms.classes:
            shares = truth_of(labels, k, self.terms.width).mean(1)
            self._sizes[k] += shares[shares > 0].tolist()

    @property
    def floors(self) -> tuple[float, ...]:
        """A quarter of the median share of an image that each class takes up; 1 if that share is not known."""
        if self.name == "false" or not self.terms.maps:
            return (1.0,) * self.terms.width
        return tuple(0.25 * float(np.median(each)) if each else 1.0 for each in self._sizes)

    def add(self, out: Answers, labels: np.ndarray) -> None:
        mean = by_size(out["mean"], self.floors).numpy()
        seen = sees(out["mean"], self.terms.kind).numpy().reshape(len(mean), -1)
        p = mean.reshape(len(mean), -1, self.terms.width)
        counts = labels != VOID if labels.ndim == 2 else np.ones(labels.shape[:2], bool)
        for k in self.terms.classes:
            truth = truth_of(labels, k, self.terms.width)
            here = truth.any(1) if self.name == "miss" else seen[:, k]
            share = grids.missed_share if self.name == "miss" else grids.false_share
            for i in np.flatnonzero(here):
                values = np.ascontiguousarray(p[i, :, k])
                self._total[k] += share(values[counts[i]], truth[i][counts[i]], self._grid)
                self._areas[k] += grids.count_at_least(values, self._grid) / len(values)
                self._n[k] += 1

    def settle(self) -> Guarantee:
        terms, thresholds, areas = self.terms, [NEVER] * self.terms.width, {}
        for k in terms.classes:
            n = int(self._n[k])
            if not n:
                which = "of" if self.name == "miss" else "in which the model finds"
                raise ValueError(
                    f"`{self.name}` needs held-out images {which} each class. Received: none for class {k}. Add "
                    f"images of this class, or leave it out with `classes`"
                )
            self.check(n, f" for class {k}" if terms.width > 1 else "")
            if self.name == "miss":
                place = bounds.risk_control(self._total[k], n, terms.level)
            else:
                place = len(self._grid) - 1 - bounds.risk_control(self._total[k][::-1], n, terms.level)
            thresholds[k] = float(self._grid[place])
            areas[f"area_of_class_{k}"] = float(self._areas[k, place] / n)
        n_each = tuple(int(self._n[k]) for k in terms.classes)
        return Guarantee(
            self.name, terms.level, tuple(thresholds), terms.classes, n_each, floors=self.floors, figures=areas
        )
