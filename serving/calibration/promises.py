"""The promises, each of which collects a little of every held-out image and then settles its thresholds."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.serving.calibration import bounds, grids
from dropzoo.serving.calibration.answers import (
    KEEP_ALL,
    NEVER,
    by_size,
    class_probabilities,
    deviation,
    doubt,
    sees,
)
from dropzoo.serving.calibration.guarantee import Guarantee
from dropzoo.serving.calibration.heldout import truth_of
from dropzoo.serving.calibration.temperature import is_coins

#: What `MonteCarlo` returns, as tensors by name.
Answers = Mapping[str, tf.Tensor]


class Terms(NamedTuple):
    """What a promise is about.

    Attributes:
        level: Float in (0, 1), the risk that is allowed.
        confidence: Float in (0, 1), for promises that need one.
        kind: The output kind.
        width: Int, the length of the last axis of the output.
        classes: The classes (of the output's last axis) that the promise is about.
        maps: Whether an answer has several positions, as a mask has.
    """

    level: float
    confidence: float
    kind: str
    width: int
    classes: tuple[int, ...]
    maps: bool


class Promise:
    """Base of the promises.

    Args:
        name: The name of the guarantee.
        terms: What it is about.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        self.name, self.terms = name, terms

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        """Reads images that the promise does not rest on, to choose what may be chosen freely."""

    def add(self, out: Answers, labels: np.ndarray) -> None:
        """Reads images that the promise rests on."""
        raise NotImplementedError

    def settle(self) -> Guarantee:
        """Returns the guarantee, or raises a ValueError if the images do not allow it."""
        raise NotImplementedError

    def check(self, n: int, which: str = "") -> None:
        """Raises a ValueError if n images are too few for the level.

        Args:
            n: Int, the number of images that the promise rests on.
            which: What is special about these images, for the error.
        """
        least = bounds.least_level(n, self.confidence)
        if self.terms.level < least - 1e-12:
            raise ValueError(
                f"Too few images for `{self.name}` at the level {self.terms.level:g}: with {n} held-out "
                f"images{which} the least level is {math.ceil(least * 1e4) / 1e4:g}. Give more images, or ask for "
                "a higher level"
            )

    @property
    def confidence(self) -> float | None:
        """The confidence with which it holds; None if it holds on average."""
        return None


class SetPromise(Promise):
    """`set`: the true class is missing from the set of classes in at most this share of images.

    Args:
        terms: What it is about.
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


class MaskPromise(Promise):
    """`miss` or `false`: the share of a class that the outer mask misses, or of the inner mask that is wrong.

    `miss` is about the images that hold the class, `false` about those in which the model sees it. Each class has
    a threshold of its own. The outer mask is where `by_size` reaches the threshold, with a quarter of the usual
    size of the class as its floor; the inner mask is where the probability does.

    Args:
        name: `"miss"` or `"false"`.
        terms: What it is about.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        super().__init__(name, terms)
        self._grid = grids.probability_grid()
        self._total = np.zeros((terms.width, len(self._grid)))
        self._areas = np.zeros((terms.width, len(self._grid)))  # of the masks, beside the true area
        self._n = np.zeros(terms.width, int)
        self._sizes: list[list[float]] = [[] for _ in range(terms.width)]

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        for k in self.terms.classes:
            shares = truth_of(labels, k, self.terms.kind, self.terms.width).mean(1)
            self._sizes[k] += shares[shares > 0].tolist()

    @property
    def floors(self) -> tuple[float, ...]:
        """A quarter of the median share of an image that each class takes up; 1 if it is not known."""
        if self.name == "false" or not self.terms.maps:
            return (1.0,) * self.terms.width
        return tuple(0.25 * float(np.median(each)) if each else 1.0 for each in self._sizes)

    def add(self, out: Answers, labels: np.ndarray) -> None:
        mean = by_size(out["mean"], self.floors).numpy()
        seen = sees(out["mean"], self.terms.kind).numpy().reshape(len(mean), -1)
        p = mean.reshape(len(mean), -1, self.terms.width)
        for k in self.terms.classes:
            truth = truth_of(labels, k, self.terms.kind, self.terms.width)
            here = truth.any(1) if self.name == "miss" else seen[:, k]
            share = grids.missed_share if self.name == "miss" else grids.false_share
            for i in np.flatnonzero(here):
                values = np.ascontiguousarray(p[i, :, k])
                self._total[k] += share(values, truth[i], self._grid)
                self._areas[k] += grids.count_at_least(values, self._grid) / len(values)
                self._n[k] += 1

    def settle(self) -> Guarantee:
        terms, thresholds, areas = self.terms, [NEVER] * self.terms.width, {}
        for k in terms.classes:
            n = int(self._n[k])
            if not n:
                which = "of" if self.name == "miss" else "in which the model sees"
                raise ValueError(
                    f"`{self.name}` needs held-out images {which} each class. Received: none for class {k}. Give "
                    "images of it, or leave it out with `classes`"
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


class ErrorPromise(Promise):
    """`error`: at most this share of the answers that are not deferred is wrong.

    The loss of an image is 1 if its class is wrong; for masks and labels, the share that is wrong.

    Args:
        terms: What it is about.
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
                f"`error` cannot be promised at the level {terms.level:g}: too many of the surest answers are "
                f"wrong. The least level for these {len(doubts)} images is about "
                f"{_least(threshold, terms.level):.2g}"
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
        return doubt(out["mean"], self.terms.kind).numpy(), wrong.reshape(len(labels), -1).mean(1)


class IntervalPromise(Promise):
    """`interval`: at most this share of an image's values lies outside their intervals, for each output.

    An interval is `mean - q d` to `mean + q d`, where d is the deviation of the samples plus a floor. The floor is
    chosen on images of its own so that the intervals are short. With one value an image this is split conformal
    prediction; with a map of values it is conformal risk control.

    Args:
        terms: What it is about.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__("interval", terms)
        self._grid = grids.distance_grid()
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []
        self._floors: tuple[float, ...] | None = None
        self._scores: list[np.ndarray] = []  # of outputs without positions: exact
        self._total = np.zeros((terms.width, len(self._grid)))
        self._widths, self._n = np.zeros(terms.width), 0

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        error = np.abs(labels - out["mean"].numpy().reshape(labels.shape))
        spread = np.sqrt(out["variance"].numpy().reshape(labels.shape))
        step = -(-labels.shape[1] // 64)  # enough positions of each image
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
        """The floor of each output: the one of a few with the shortest intervals."""
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
                "`interval` needs values that the model predicts at least roughly. Received: huge errors"
            )
        widths = {f"mean_width_{k}": float(2 * q * self._widths[k] / n) for k, q in enumerate(found)}
        return Guarantee("interval", terms.level, tuple(found), n=(n,), floors=self.floors, figures=widths)


#: For each promise, the output kinds that have it.
KINDS = {
    "set": ("multi_class", "binary"),
    "miss": ("multi_class", "binary", "multi_label"),
    "false": ("multi_class", "binary", "multi_label"),
    "error": ("multi_class", "binary", "multi_label"),
    "interval": ("regression",),
}


def promises_of(
    guarantee: Mapping[str, float],
    kind: str,
    output_shape: tuple[int | None, ...],
    confidence: float,
    classes: Sequence[int],
) -> dict[str, Promise]:
    """Returns the promises that are asked, empty yet.

    Args:
        guarantee: Level by name.
        kind: The output kind.
        output_shape: The shape of the model's output, with the batch.
        confidence: Float in (0, 1).
        classes: The classes that the promises are about.

    Raises:
        ValueError: If a name is unknown, does not fit the output, or a level is not in (0, 1).
    """
    made: dict[str, Promise] = {}
    maps = len(output_shape) > 2
    for name, level in guarantee.items():
        if name not in KINDS:
            raise unknown("guarantee", name, KINDS)
        if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
            raise ValueError(f"The level of `{name}` must be in (0, 1). Received: {level!r}")
        _check_fits(name, kind, maps)
        terms = Terms(float(level), confidence, kind, output_shape[-1] or 1, tuple(classes), maps)
        if name == "set":
            made[name] = SetPromise(terms)
        elif name == "error":
            made[name] = ErrorPromise(terms, binary=not maps and kind != "multi_label")
        elif name == "interval":
            made[name] = IntervalPromise(terms)
        else:
            made[name] = MaskPromise(name, terms)
    return made


def _check_fits(name: str, kind: str, maps: bool) -> None:
    fitting = [each for each, kinds in KINDS.items() if kind in kinds]
    if not maps and kind in ("multi_class", "binary"):
        fitting = [each for each in fitting if each not in ("miss", "false")]
    if maps and "set" in fitting:
        fitting.remove("set")  # pixels are not exchangeable
    if name not in fitting:
        what = "masks" if maps and kind != "regression" else {"regression": "values"}.get(kind, f"{kind} images")
        raise ValueError(f"`{name}` is not a guarantee for {what}, which have: {', '.join(fitting)}")


def _floor(error: np.ndarray, spread: np.ndarray, level: float) -> float:
    """The floor with the shortest intervals, as a share of the typical error."""
    typical = max(float(np.sqrt(np.mean(error**2))), 1e-12)
    choices = [typical * share for share in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)]
    lengths = [np.quantile(error / (spread + each), 1 - level) * (spread + each).mean() for each in choices]
    return choices[int(np.argmin(lengths))]


def _least(threshold: Callable[[float], float | None], level: float) -> float:
    """About the least level above one that failed at which a threshold exists."""
    low, high = level, 1.0
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if threshold(min(middle, 0.999)) is not None else (middle, high)
    return high
