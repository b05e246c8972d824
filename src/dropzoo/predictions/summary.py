"""The row of an image in the table: what was predicted, how certain the model is, how well its samples agree."""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

#: A row of the table: numbers, texts, truths, or None for what is not known.
Row = dict[str, str | int | float | bool | None]
Arrays = Mapping[str, np.ndarray]

_UNCERTAINTY = ("predictive_entropy", "mutual_information")


def names_of(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """Returns the names of classes, or their numbers if they have none."""
    return list(class_names) if class_names else [str(i) for i in range(classes)]


def row_of_classes(answer: Arrays, class_names: Sequence[str] | None) -> Row:
    """Returns the row of an image that has one class.

    Args:
        answer: The statistics of the image: `mean`, `(classes,)`, and others by name.
        class_names: The names of the classes, or None.
    """
    mean = answer["mean"]
    names = names_of(class_names, len(mean))
    best = int(mean.argmax())
    row: Row = {"class": names[best], "probability": float(mean[best])}
    return _finished(row, answer, names)


def row_of_labels(answer: Arrays, names: Sequence[str] | None) -> Row:
    """Returns the row of an image that may have several labels.

    Args:
        answer: The statistics of the image: `mean`, `(labels,)`, and others by name.
        names: The names of the labels, or None.
    """
    mean = answer["mean"]
    known = names_of(names, len(mean))
    row: Row = {"labels": "; ".join(name for name, p in zip(known, mean, strict=True) if p > 0.5)}
    return _finished(row, answer, known)


def _finished(row: Row, answer: Arrays, names: Sequence[str]) -> Row:
    """Returns a row with what follows the answer: promises, the uncertainty, and all probabilities."""
    if "defer" in answer:
        row["defer"] = bool(answer["defer"])
    if "set" in answer:
        row["set"] = "; ".join(name for name, there in zip(names, answer["set"], strict=True) if there)
    row |= {name: float(answer[name]) for name in _UNCERTAINTY if name in answer}
    return row | {f"p_{name}": float(p) for name, p in zip(names, answer["mean"], strict=True)}


class MaskSummary:
    """Collects the row of an image that has a class for each pixel, from strips of the image.

    A pixel may have any number of several labels; each has a share of the pixels, and none is the background.

    The pairwise Dice score of a class compares every two samples of an image: the number of pixels that both give
    to the class, divided by the mean number that each of them gives to it. Both numbers are summed over all pairs
    before the division. With `n` of T samples for the class at a pixel, it is `sum n (n - 1) / ((T - 1) sum n)`.
    The score of the image is the mean over the classes, except for the background 0, that any sample sees.

    Args:
        class_names: The names of the classes, or None.
        num_samples: Int, the number T of samples.
        promised: The classes that a calibration is about, by `"inner"` and `"outer"`; all classes if this is not
            known. The masks of others are empty, so their rows have no areas.
        several: Bool, whether a pixel may have several labels.

    Reference:
        Roy et al., "Bayesian QuickNAT", 2019, arXiv:1811.09800, for the agreement of samples as quality control.
    """

    def __init__(
        self,
        class_names: Sequence[str] | None,
        num_samples: int,
        promised: Mapping[str, Collection[int]] = MappingProxyType({}),
        several: bool = False,
    ) -> None:
        self._names, self._samples, self._promised = class_names, num_samples, promised
        self._several = several
        self._counts = np.zeros(0)
        self._pixels = 0
        self._sums: dict[str, float] = {}
        self._most: dict[str, float] = {}
        self._pairs: np.ndarray | None = None
        self._votes: np.ndarray | None = None
        self._areas: dict[str, np.ndarray] = {}
        self._defer: bool | None = None

    def add(self, strip: Arrays) -> None:
        """Adds rows of the image.

        Args:
            strip: Statistics `(rows, width, ...)` by name.
        """
        classes = strip["mean"].shape[-1]
        if self._several:
            counts = labels_of(strip, True).reshape(-1, classes).sum(0, dtype=np.float64)
        else:
            counts = np.bincount(labels_of(strip).ravel(), minlength=classes).astype(np.float64)
        self._counts = counts if not self._pixels else self._counts + counts
        self._pixels += strip["mean"][..., 0].size
        for name in _UNCERTAINTY:
            if name in strip:
                self._sums[name] = self._sums.get(name, 0.0) + float(strip[name].sum(dtype=np.float64))
                self._most[name] = max(self._most.get(name, 0.0), float(strip[name].max()))
        if "votes" in strip:
            n = strip["votes"].reshape(-1, classes).astype(np.float64)
            ones = np.ones(len(n))  # a product is much faster than a sum over the first axis
            pairs, votes = ones @ np.maximum(n * (n - 1), 0), ones @ n
            self._pairs = pairs if self._pairs is None else self._pairs + pairs
            self._votes = votes if self._votes is None else self._votes + votes
        for name in ("inner", "outer"):
            if name in strip:
                area = strip[name].reshape(-1, strip[name].shape[-1]).sum(0, dtype=np.float64)
                self._areas[name] = area + self._areas.get(name, 0.0)
        if "defer" in strip:
            self._defer = bool(strip["defer"])

    def row(self, size: tuple[int, int]) -> Row:
        """Returns the row.

        Args:
            size: `(height, width)` of the image.
        """
        names = names_of(self._names, len(self._counts))
        row: Row = {"height": size[0], "width": size[1]}
        if self._defer is not None:
            row["defer"] = self._defer
        for name in self._sums:
            row |= {f"{name}_mean": self._sums[name] / self._pixels, f"{name}_max": self._most[name]}
        dice = self._dice()
        if dice is not None:
            found = [each for each in dice[0 if self._several else 1 :] if each is not None]
            row["pairwise_dice"] = sum(found) / len(found) if found else None
        row |= {f"share_{name}": float(n) / self._pixels for name, n in zip(names, self._counts, strict=True)}
        for kind, areas in self._areas.items():
            first = len(names) - len(areas)  # one unit is the second of two classes
            there = range(len(areas)) if first else self._promised.get(kind, range(len(areas)))
            row |= {f"{kind}_{names[first + i]}": float(areas[i]) / self._pixels for i in there}
        if dice is not None:
            row |= {f"dice_{name}": each for name, each in zip(names, dice, strict=True)}
        return row

    def _dice(self) -> list[float | None] | None:
        if self._pairs is None or self._votes is None or self._samples < 2:
            return None
        pairs = zip(self._pairs, self._votes, strict=True)
        return [float(both / ((self._samples - 1) * n)) if n else None for both, n in pairs]


def labels_of(strip: Arrays, several: bool = False) -> np.ndarray:
    """Returns the likeliest class of each pixel, uint8, or uint16 where there are more than 256 classes.

    Args:
        strip: Statistics by name.
        several: Bool, whether a pixel may have several labels. The result is then 0 or 1 for each label.
    """
    if several:
        return (strip["mean"] > 0.5).astype(np.uint8)
    classes = strip["mean"].shape[-1]
    return strip["mean"].argmax(-1).astype(np.uint8 if classes <= 256 else np.uint16)


def urgency(row: Row) -> tuple[float, ...]:
    """Returns a key that sorts rows by what a person should look at first: the largest comes first.

    Images to defer come first; then those whose samples agree least; then those of the largest entropy. For a
    regression, the largest deviation comes first.
    """
    dice, entropy = row.get("pairwise_dice"), _entropy(row)
    doubt = 1.0 - float(dice) if isinstance(dice, (int, float)) else (0.0 if "pairwise_dice" in row else entropy)
    return float(bool(row.get("defer"))), doubt, entropy, 1.0 - float(row.get("probability") or 0.0)


def _entropy(row: Row) -> float:
    """The entropy of an image, or the largest deviation of its values."""
    for name in ("predictive_entropy", "predictive_entropy_mean"):
        value = row.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    start = "deviation_mean" if "height" in row else "deviation"
    found = [x for name, x in row.items() if name.startswith(start) and isinstance(x, (int, float))]
    return max((float(x) for x in found if math.isfinite(x)), default=0.0)
