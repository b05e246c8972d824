"""Scores by class, by image and by object, with intervals over images: `dropzoo evaluate --per`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.metrics import average_precision_score, roc_auc_score

from dropzoo import training
from dropzoo.common.checks import unknown
from dropzoo.runs.files import write_rows
from dropzoo.runs.objects import Objects, boundary_distances, compare_objects, hd95, surface_dice
from dropzoo.runs.scores import Sample, entropy

#: The values of `--per`.
PER = ("class", "image", "object")
_RESAMPLES = 1000
_MOST = 2**24  # numbers in the counts of all images and classes, above which there are no intervals


def parse_per(text: str | None) -> tuple[str, ...]:
    """Reads `--per`: names of `PER`, separated by commas, or "all"; none for None.

    Raises:
        ValueError: For any other name.
    """
    names = [] if text is None else list(PER) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PER:
            raise unknown("part of --per", name, (*PER, "all"))
    return tuple(names)


class Details:
    """Counts what each image contributes to the scores.

    Args:
        info: The facts of the data set.
        per: Names of `PER`.
        names: The files of the images, in their order; None to number them.
        objects: Function that returns the true mask of an image, by its place, with a number for each object; None
            if the connected regions of a class are its objects.
    """

    def __init__(
        self,
        info: training.DataInfo,
        per: Sequence[str],
        names: Sequence[str] | None = None,
        objects: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.info, self.per, self._names, self._objects_of = info, per, names, objects
        self.images: list[dict[str, Any]] = []
        self._right: list[np.ndarray] = []
        self._true: list[np.ndarray] = []
        self._said: list[np.ndarray] = []
        self.confusion = np.zeros((info.num_classes, info.num_classes), np.int64)
        self.objects = [Objects() for _ in range(info.num_classes)]
        self._distances: list[dict[int, tuple[float, float]]] = []
        self._sample = Sample()
        self._binary: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, labels: tf.Tensor, log_p: tf.Tensor, information: np.ndarray | None = None) -> None:
        """Adds a batch.

        Args:
            labels: Int tensor `(batch, ...)`.
            log_p: Float tensor `(batch, ..., classes)`, log-probabilities.
            information: Array `(batch,)`, the mutual information of each image, or None.
        """
        true, log_p = np.asarray(labels), np.asarray(log_p)
        said, unsure = log_p.argmax(-1), np.asarray(entropy(tf.constant(log_p)))
        counts = np.ones(true.shape, bool) if self.info.ignore_class is None else true != self.info.ignore_class
        if self.info.num_classes == 2:
            kept, p, label = self._sample(counts, np.exp(log_p[..., 1]), true)
            self._binary.append((label[kept], p[kept]))
        for n in range(len(true)):
            more = {} if information is None else {"mutual_information": float(information[n])}
            self._add_one(true[n], said[n], counts[n], unsure[n], log_p[n], more)

    def _add_one(
        self,
        true: np.ndarray,
        said: np.ndarray,
        counts: np.ndarray,
        unsure: np.ndarray,
        log_p: np.ndarray,
        more: dict[str, float],
    ) -> None:
        number, classes = len(self.images), self.info.num_classes
        kept_true, kept_said = true[counts], said[counts]
        cells = np.bincount(kept_true * classes + kept_said, minlength=classes**2).reshape(classes, classes)
        self.confusion += cells
        right, of_true, of_said = cells.diagonal(), cells.sum(1), cells.sum(0)
        for kept, each in ((self._right, right), (self._true, of_true), (self._said, of_said)):
            kept.append(each)
        total = int(of_true.sum())
        likely = np.take_along_axis(log_p, np.where(counts, true, 0)[..., None], -1)[..., 0]
        nll = float(-likely[counts].mean()) if counts.any() else None
        row: dict[str, Any] = {"image": self._names[number] if self._names else number}
        if self.info.task == "classification":
            row |= {"label": self.info.class_names[int(true)], "predicted": self.info.class_names[int(said)]}
        row |= {
            "accuracy": _ratio(right.sum(), total),  # none for an image of only void pixels
            "nll": nll,
            "entropy": float(unsure[counts].mean()) if counts.any() else None,
        }
        row |= more
        if self.info.task == "segmentation":
            row |= self._of_mask(true, np.where(counts, said, -1), right, of_true, of_said)
        self.images.append(row)

    def _of_mask(
        self, true: np.ndarray, said: np.ndarray, right: np.ndarray, of_true: np.ndarray, of_said: np.ndarray
    ) -> dict[str, float | None]:
        """Returns the scores of a mask: means over its classes, and scores of objects except the background."""
        union = of_true + of_said - right
        here = union > 0
        row: dict[str, float | None] = {
            "mean_iou": float((right[here] / union[here]).mean()) if here.any() else None,
            "mean_dice": float((2 * right[here] / (of_true + of_said)[here]).mean()) if here.any() else None,
        }
        if not {"image", "object"} & set(self.per):
            return row
        found, distances = Objects(), {}
        numbers = None if self._objects_of is None else _of_size(self._objects_of(len(self.images)), true.shape)
        for label in range(1, self.info.num_classes):
            if not here[label]:
                continue
            objects = compare_objects(said == label, true == label, numbers)
            self.objects[label] = self.objects[label].plus(objects)
            found = found.plus(objects)
            if (both := boundary_distances(said == label, true == label)) is not None:
                distances[label] = hd95(both), surface_dice(both)
        self._distances.append(distances)
        means = np.mean(list(distances.values()), 0) if distances else (None, None)
        return row | {
            "object_f1": found.f1,
            "panoptic_quality": found.quality,
            "hd95": means[0],
            "surface_dice": means[1],
        }

    def intervals(self) -> dict[str, tuple[float, float, float]]:
        """Returns the accuracy, the mean IoU and the mean Dice, each with its 95 % interval.

        The images are resampled 1,000 times. Pixels of one image are not independent, so they are never resampled.
        """
        right, true, said = (np.stack(each).astype(float) for each in (self._right, self._true, self._said))
        counts = true.sum(1) > 0
        right, true, said = right[counts], true[counts], said[counts]
        if right.size > _MOST or not len(right):
            return {}
        random = np.random.default_rng(0)
        weights = random.multinomial(len(right), np.full(len(right), 1 / len(right)), _RESAMPLES)
        weights = np.concatenate([np.ones((1, len(right))), weights])
        r, t, s = weights @ right, weights @ true, weights @ said
        with np.errstate(invalid="ignore"):
            found = {"accuracy": r.sum(1) / t.sum(1)}
            if self.info.task == "segmentation":
                found |= {"mean IoU": np.nanmean(r / (t + s - r), 1), "mean Dice": np.nanmean(2 * r / (t + s), 1)}
        marks = {}
        for name, values in found.items():
            low, high = np.percentile(values[1:], (2.5, 97.5))
            marks[name] = float(values[0]), float(low), float(high)
        return marks

    def classes(self) -> list[dict[str, Any]]:
        """Returns a row of scores for each class; None for a score that would divide by 0."""
        rows = []
        for label, name in enumerate(self.info.class_names):
            right = self.confusion[label, label]
            true, said = self.confusion[label].sum(), self.confusion[:, label].sum()
            row = {
                "class": name,
                "count": int(true),
                "recall": _ratio(right, true),
                "precision": _ratio(right, said),
            }
            row |= {"iou": _ratio(right, true + said - right), "dice": _ratio(2 * right, true + said)}
            rows.append(row)
        return rows

    def of_objects(self) -> list[dict[str, Any]]:
        """Returns a row of scores of objects and boundaries for each class except the background."""
        rows = []
        for label, name in enumerate(self.info.class_names):
            if not label:
                continue
            objects = self.objects[label]
            far = [each[label] for each in self._distances if label in each]
            means = np.mean(far, 0) if far else (None, None)
            row = {"class": name, "found": objects.found, "extra": objects.extra, "missed": objects.missed}
            row |= {"object_f1": objects.f1, "panoptic_quality": objects.quality}
            rows.append(row | {"hd95": means[0], "surface_dice": means[1]})
        return rows

    def binary(self) -> dict[str, float]:
        """Returns the areas under the ROC curve and the precision-recall curve, of the second of two classes.

        For large masks, 4,096 pixels of each image represent all of them.
        """
        if not self._binary:
            return {}
        labels, p = (np.concatenate(each) for each in zip(*self._binary, strict=True))
        if len(np.unique(labels)) < 2:
            return {}
        return {"AUROC": float(roc_auc_score(labels, p)), "AUPR": float(average_precision_score(labels, p))}

    def worst(self) -> list[dict[str, Any]]:
        """Returns the rows of all images, the worst first: by mean IoU or accuracy, then by NLL.

        Images without a pixel that counts are the last.
        """
        score = "mean_iou" if self.info.task == "segmentation" else "accuracy"
        return sorted(self.images, key=lambda row: (row[score] is None, row[score] or 0, -(row["nll"] or 0)))

    def write(self, folder: Path) -> list[Path]:
        """Writes what was asked for as CSV files, and returns their paths."""
        names = self.info.class_names
        paths = []
        if "class" in self.per:
            cells = [
                {"true": name, **{f"predicted {names[n]}": int(count) for n, count in enumerate(row)}}
                for name, row in zip(names, self.confusion, strict=True)
            ]
            paths += [
                write_rows(folder / "confusion.csv", cells),
                write_rows(folder / "classes.csv", self.classes()),
            ]
        if "image" in self.per:
            paths.append(write_rows(folder / "images.csv", self.images))
        if "object" in self.per and self.info.task == "segmentation":
            paths.append(write_rows(folder / "objects.csv", self.of_objects()))
        return paths


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _of_size(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns a mask in another size, by nearest neighbours, as for the masks of batches."""
    if mask.shape == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def detail_tables(found: Details) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns tables for people: a caption, heads and rows of texts."""
    tables = []
    marks = [
        [name, f"{value:.4f}", f"{low:.4f} to {high:.4f}"]
        for name, (value, low, high) in found.intervals().items()
    ]
    marks += [[name, f"{value:.4f}", ""] for name, value in found.binary().items()]
    tables.append(("With 95 % intervals over images", ["", "", "interval"], marks))
    if "class" in found.per:
        tables.append(_table("By class", found.classes()))
        if len(found.confusion) <= 20:
            rows = [
                [name, *map(str, row)] for name, row in zip(found.info.class_names, found.confusion, strict=True)
            ]
            tables.append(("True classes and predicted classes", ["", *found.info.class_names], rows))
    if "object" in found.per and found.info.task == "segmentation":
        tables.append(_table("Objects (IoU above 0.5) and boundaries (pixels)", found.of_objects()))
    if "image" in found.per:
        tables.append(_table("The worst images", found.worst()[:10]))
        tables.append(
            _table("The most uncertain images", sorted(found.images, key=lambda row: -(row["entropy"] or 0))[:10])
        )
    return tables


def _table(caption: str, rows: Sequence[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    heads = [
        name.replace("_", " ").replace("iou", "IoU").replace("nll", "NLL").replace("hd95", "HD95")
        for name in rows[0]
    ]
    return caption, heads, [[_cell(value) for value in row.values()] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, (str, int)) else f"{value:.4f}"
