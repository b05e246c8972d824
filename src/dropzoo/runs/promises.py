"""Measures the promises of a calibration on other images: the measured risks beside the levels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Column, Table

from dropzoo import serving
from dropzoo.serving.calibration.answers import doubt, sees


@dataclass(frozen=True)
class Measured:
    """The risk of a promise, measured on images that it was not fitted on.

    Attributes:
        name: The name of the guarantee; for masks with the class.
        level: Float, the risk that is allowed.
        risk: Float, the mean risk over images; None if no image counts.
        error: Float, the standard error of the risk.
        count: Int, the number of images that count.
        cost: The cost of the promise, in words.
    """

    name: str
    level: float
    risk: float | None
    error: float
    count: int
    cost: str


class Promises:
    """Measures the promises of a calibration image by image.

    Args:
        calibration: The calibration.
        class_names: The names of the classes.
        ignore_class: Int, the label of pixels that do not count; None if all count.
    """

    def __init__(
        self, calibration: serving.Calibration, class_names: tuple[str, ...], ignore_class: int | None = None
    ) -> None:
        self.calibration, self._names, self._ignored = calibration, class_names, ignore_class
        self._losses: dict[str, list[float]] = {}
        self._costs: dict[str, list[float]] = {}
        self._doubts: list[float] = []
        self._errors: list[float] = []

    def add(self, labels: np.ndarray, out: dict[str, Any]) -> None:
        """Adds a batch.

        Args:
            labels: Int array `(batch, ...)`, the classes.
            out: The statistics and answers of the calibrated predictor for the batch, with two classes or more.
        """
        kind = self.calibration.facts.task
        counts = np.ones(labels.shape, bool) if self._ignored is None else labels != self._ignored
        some = counts.reshape(len(labels), -1).any(1)
        if not some.all():  # an image in which nothing counts has no risk
            labels, counts = labels[some], counts[some]
            out = {name: np.asarray(value)[some] for name, value in out.items()}
        wrong = ((np.asarray(out["mean"]).argmax(-1) != labels) & counts).reshape(len(labels), -1).sum(1)
        wrong = wrong / counts.reshape(len(labels), -1).sum(1)
        self._doubts += doubt(out["mean"], kind).numpy().tolist()
        self._errors += wrong.tolist()
        for name, guarantee in self.calibration.guarantees.items():
            if name == "set":
                chosen = np.asarray(out["set"])
                self._note(name, ~np.take_along_axis(chosen, labels[:, None], -1)[:, 0], chosen.sum(-1))
            elif name == "error":
                kept = ~np.asarray(out["defer"])
                self._note(name, wrong[kept], kept)
            else:
                seen = sees(out["mean"], kind).numpy().reshape(len(labels), -1)
                masks = np.asarray(out["outer" if name == "miss" else "inner"])
                for k in guarantee.classes:
                    self._add_mask(f"{name} {k}", masks[..., k], labels == k, counts, seen[:, k])

    def _add_mask(
        self, key: str, masks: np.ndarray, truth: np.ndarray, counts: np.ndarray, seen: np.ndarray
    ) -> None:
        """Adds the masks of one class, `(batch, height, width)`."""
        name = key.partition(" ")[0]
        right = (masks & truth).sum((1, 2))
        size, area = (masks & counts).sum((1, 2)), truth.sum((1, 2))
        here = area > 0 if name == "miss" else seen
        loss = 1 - right / np.maximum(area, 1) if name == "miss" else (size - right) / np.maximum(size, 1)
        self._note(key, loss[here], masks[here].mean((1, 2)))

    def _note(self, key: str, losses: np.ndarray, costs: np.ndarray) -> None:
        self._losses.setdefault(key, []).extend(np.asarray(losses, float).tolist())
        self._costs.setdefault(key, []).extend(np.asarray(costs, float).tolist())

    def measured(self) -> list[Measured]:
        """Returns the measured risks, in the order of the guarantees."""
        words = {
            "set": "{:.2f} classes in a set",
            "error": "{:.1%} of the images are kept",
            "miss": "{:.1%} of the image",
            "false": "{:.1%} of the image",
        }
        found = []
        for key, losses in self._losses.items():
            name, _, k = key.partition(" ")
            cost = words[name].format(float(np.mean(self._costs[key]))) if self._costs[key] else "-"
            n, risk = len(losses), float(np.mean(losses)) if losses else None
            error = float(np.std(losses, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
            title = f"{name}, {self._names[int(k)] if len(self._names) > int(k) else k}" if k else name
            found.append(Measured(title, self.calibration.guarantees[name].level, risk, error, n, cost))
        return found

    def doubts_and_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the doubt of each image, by which it is kept or deferred, and its share of wrong answers."""
        return np.array(self._doubts), np.array(self._errors)


def promises_table(found: list[Measured], split: str) -> Table:
    """Returns a table of promises and of the risks that were measured.

    Args:
        found: The result of `Promises.measured`.
        split: Str, the name of the images, such as `"test"`.
    """
    heads = ("promise", "at most", "measured", "± standard error", "images", "costs")
    table = Table(*(Column(head) for head in heads), title=f"Promises, measured on {split} images")
    for each in found:
        risk = "-" if each.risk is None else f"{each.risk:.4f}"
        table.add_row(each.name, f"{each.level:g}", risk, f"{each.error:.4f}", f"{each.count:,}", each.cost)
    return table
