"""The promise about the class of an image, `set`, and the promise about the images to defer, `error`."""

import math
from collections.abc import Callable

import numpy as np

from dropzoo.serving.calibration import grids
from dropzoo.serving.calibration.answers import KEEP_ALL, class_probabilities, doubt
from dropzoo.serving.calibration.fitting import bounds
from dropzoo.serving.calibration.fitting.heldout import VOID
from dropzoo.serving.calibration.fitting.promise import Answers, Promise, Terms
from dropzoo.serving.calibration.guarantee import Guarantee
from dropzoo.serving.calibration.temperature import is_coins


class SetPromise(Promise):
    """`set`: the true class is missing from the set of classes in at most this share of images.

    Args:
        terms: The terms of the promise.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__("set", terms)
        self._grid = grids.probability_grid()
        self._true: list[np.ndarray] = []
        self._sizes = np.zeros(len(self._grid))

    def add(self, out: Answers, labels: np.ndarray) -> None:
        p = class_probabilities(out["mean"]).numpy()
        self._true.append(np.take_along_axis(p, labels, -1)[:, 0])  # an image has one position
        self._sizes += grids.count_at_least(p, self._grid)

    def settle(self) -> Guarantee:
        true = np.concatenate(self._true)
        self.check(len(true))
        threshold = bounds.conformal_threshold(true, self.terms.level)
        place = np.searchsorted(self._grid, threshold)
        return Guarantee(
            "set",
            self.terms.level,
            (threshold,),
            n=(len(true),),
            figures={"mean_size": float(self._sizes[place] / len(true))},
        )


class ErrorPromise(Promise):
    """`error`: at most this share of the answers that are not deferred is wrong.

    The loss of an image is 1 if its class is wrong and else 0; for masks and labels it is the share that is wrong.

    Args:
        terms: The terms of the promise.
        binary: Bool, whether each image has a single answer, right or wrong.
    """

    def __init__(self, terms: Terms, binary: bool) -> None:
        super().__init__("error", terms)
        self._binary = binary
        self._first: list[tuple[np.ndarray, np.ndarray]] = []
        self._then: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def confidence(self) -> float:
        return self.terms.confidence

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        self._first.append(self._of(out, labels))

    def add(self, out: Answers, labels: np.ndarray) -> None:
        self._then.append(self._of(out, labels))

    def settle(self) -> Guarantee:
        terms = self.terms
        doubts, losses = (np.concatenate(each) for each in zip(*self._then, strict=True))
        first_doubts, first_losses = (np.concatenate(each) for each in zip(*self._first, strict=True))
        self.check(len(doubts))

        def threshold(level: float) -> float | None:
            start = bounds.best_start(first_doubts, first_losses, level)
            return bounds.selective_threshold(doubts, losses, level, terms.confidence, self._binary, start)

        found = threshold(terms.level)
        if found is None:
            raise ValueError(
                f"`error` cannot be guaranteed at the level {terms.level:g}, because too many of the most "
                f"certain answers are wrong. The lowest level for these {len(doubts)} images is about "
                f"{_least(threshold, terms.level):.2g}. If you choose the level by looking at these images, it "
                f"is not guaranteed: calibrate with other held-out images"
            )
        kept = float((doubts < found).mean())
        return Guarantee(
            "error",
            terms.level,
            (min(found, KEEP_ALL),),
            n=(len(doubts),),
            confidence=terms.confidence,
            figures={"kept": kept, "error_of_all": float(losses.mean())},
        )

    def _of(self, out: Answers, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = out["mean"].numpy().reshape(len(labels), -1, self.terms.width)
        if is_coins(self.terms.kind, self.terms.width):
            wrong = (mean >= 0.5) != (labels.reshape(mean.shape) == 1)
        else:
            wrong = mean.argmax(-1) != labels
        counts = (labels != VOID).reshape(wrong.shape)
        wrong, counts = ((wrong & counts).reshape(len(labels), -1), counts.reshape(len(labels), -1))
        return doubt(out["mean"], self.terms.kind).numpy(), wrong.sum(1) / counts.sum(1)


def _least(threshold: Callable[[float], float | None], level: float) -> float:
    """Approximately the lowest level at which a threshold exists, above a level at which none does."""
    low, high = level, 1.0
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if threshold(min(middle, 0.999)) is not None else (middle, high)
    return high
