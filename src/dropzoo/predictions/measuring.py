"""Measures the objects of an image, each with the probability that it exists, from samples of the whole image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from dropzoo import serving
from dropzoo.predictions.answers import in_size
from dropzoo.predictions.intervals import Interval, fit, of_samples
from dropzoo.predictions.objects import Objects, find_objects
from dropzoo.predictions.summary import Row, names_of
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.statistics import check_finite

#: The numbers of an image that get an interval, for each class.
NUMBERS = ("count", "area", "perimeter")
_SAME = 0.5  # objects of two masks are the same if their intersection over union is above this


@dataclass(frozen=True)
class Measure:
    """The rules of measuring: which parts of a mask count as objects, and the unit of lengths.

    Attributes:
        split: Bool, whether to cut objects that touch.
        min_area: Int, pixels; smaller objects are left out.
        pixel_size: Float above 0, the length of a side of a pixel.
        level: Float in (0, 1), the level of the intervals.
    """

    split: bool = False
    min_area: int = 1
    pixel_size: float = 1.0
    level: float = 0.9

    def objects(self, labels: np.ndarray, number: int, image: np.ndarray) -> Objects:
        """Returns the objects of a class in a mask of class ids."""
        return find_objects(labels == number, image, split=self.split, min_area=self.min_area)


@dataclass(frozen=True)
class Measured:
    """The measurements of one image.

    Attributes:
        rows: A row for each class except the background.
        objects: A row for each object.
        labels: Int32 array `(height, width)`: 0, or the number of the object in `objects` from 1.
        certainty: Float array `(objects,)`, the probability that each object exists.
    """

    rows: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    certainty: np.ndarray = field(default_factory=lambda: np.zeros(0))


def classes_of(predictor: Predictor) -> list[str]:
    """Returns the names of the classes of a model whose sampler is known."""
    width = 2 if predictor.sampler is None else predictor.sampler.reader.outputs[0].shape[-1]
    return names_of(predictor.class_names, max(2, width or 2))


def masks_of_samples(predictor: Predictor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class ids of the mean, `(height, width)`, and of each sample, `(samples, height, width)`.

    Args:
        predictor: A model of masks, whose sampler keeps its samples; or an ensemble, whose samples are those of
            its members or, without dropout, the members; or one pass, which is its only sample.
        image: Float32 array in [0, 1], `(height, width, channels)`.
    """
    size = (image.shape[0], image.shape[1])
    sampler, feed = predictor.sampler, predictor.feed
    if sampler is None or feed is None:
        raise ValueError("Measurements need the Keras model: pass the run or the .keras file")
    given = feed(tf.constant(predictor.sized(image)[None]))
    out = sampler(given)
    mean = likeliest(out["mean"][0].numpy(), size)
    if isinstance(sampler, serving.Ensemble) and sampler.num_samples > 1:
        return mean, np.stack([likeliest(outputs[0][0].numpy(), size) for outputs in sampler.each(given)])
    if "samples" not in out:
        return mean, mean[None]
    return mean, np.stack([likeliest(each, size) for each in out["samples"][0].numpy()])


def likeliest(p: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the likeliest class of each pixel of probabilities that are resized to `size`.

    Raises:
        ValueError: If a probability is not finite.
    """
    check_finite(p)
    p = in_size(p, size)
    ids = np.uint8 if p.shape[-1] <= 256 else np.uint16
    return (p.argmax(-1) if p.shape[-1] > 1 else p[..., 0] > 0.5).astype(ids)


def check_masks(predictor: Predictor) -> None:
    """Raises a ValueError if a model does not give each pixel one class."""
    if not (predictor.is_map and predictor.has_classes):
        what = "one answer for an image" if not predictor.is_map else f"maps of task={predictor.task!r}"
        raise ValueError(
            f"Objects can only be measured in masks of classes, and the model returns {what}. Use: dropzoo predict"
        )


def measure_image(
    mean: np.ndarray,
    samples: np.ndarray,
    image: np.ndarray,
    classes: Sequence[str],
    how: Measure,
    intervals: Mapping[str, Interval],
) -> Measured:
    """Returns the measurements of an image.

    An object of the mean exists in a sample if the sample has an object that overlaps it by more than half of
    their union; its probability is the share of such samples. The interval of its area holds the share `how.level`
    of its areas in these samples.

    Args:
        mean: Class ids of the mean, `(height, width)`.
        samples: Class ids of the samples, `(samples, height, width)`.
        image: Float array `(height, width, channels)`.
        classes: The names of the classes.
        how: What counts as an object.
        intervals: Calibrated intervals by `"CLASS number"`, such as `"nucleus count"`; empty for those of the
            samples.
    """
    labels = np.zeros(mean.shape, np.int32)
    rows: list[Row] = []
    every: list[Row] = []
    for number, name in enumerate(classes[1:], 1):
        found = how.objects(mean, number, image)
        in_samples = [how.objects(sample, number, image) for sample in samples]
        rows.append(_image_row(name, found, in_samples, how, intervals))
        objects = _object_rows(found, in_samples, how)
        labels[found.labels > 0] = found.labels[found.labels > 0] + len(every)
        every += [{"object": len(every) + i + 1, "class": name, **row} for i, row in enumerate(objects)]
    return Measured(rows, every, labels, np.array([row["existence"] for row in every], float))


def numbers_of(objects: Objects, how: Measure) -> dict[str, float]:
    """Returns the numbers of a mask, one for each of `NUMBERS`, in the unit of `how`."""
    return {
        "count": float(len(objects)),
        "area": float(objects.area.sum()) * how.pixel_size**2,
        "perimeter": float(objects.perimeter.sum()) * how.pixel_size,
    }


def _image_row(
    name: str, found: Objects, in_samples: Sequence[Objects], how: Measure, intervals: Mapping[str, Interval]
) -> Row:
    values = numbers_of(found, how)
    sampled = [numbers_of(each, how) for each in in_samples]
    row: Row = {"class": name}
    for number in NUMBERS:
        each = np.array([one[number] for one in sampled])
        interval = intervals.get(f"{name} {number}")
        low, high = interval.around(values[number], float(each.std())) if interval else of_samples(each, how.level)
        if number == "count":  # whole numbers within the interval
            low, high = np.ceil(low), max(np.floor(high), np.ceil(low))
        row |= {number: values[number], f"{number}_low": float(low), f"{number}_high": float(high)}
        row[f"{number}_deviation"] = float(each.std())
    total = found.area.sum()
    mean = (found.intensity * found.area[:, None]).sum(0) / max(total, 1)
    return row | _intensities(mean if total else np.full_like(mean, np.nan))


def _object_rows(found: Objects, in_samples: Sequence[Objects], how: Measure) -> list[Row]:
    matched: list[list[float]] = [[] for _ in range(len(found))]
    for sample in in_samples:
        for i, area in _matches(found, sample):
            matched[i].append(area)
    centres = _centres(found)
    rows: list[Row] = []
    for i in range(len(found)):
        low, high = of_samples(np.array(matched[i] or [found.area[i]]), how.level)
        square = how.pixel_size**2
        row: Row = {"existence": len(matched[i]) / len(in_samples), "x": centres[i][1], "y": centres[i][0]}
        row |= {"area": float(found.area[i]) * square, "area_low": low * square, "area_high": high * square}
        row["perimeter"] = float(found.perimeter[i]) * how.pixel_size
        rows.append(row | _intensities(found.intensity[i]))
    return rows


def _matches(found: Objects, sample: Objects) -> Iterable[tuple[int, float]]:
    """The objects that a sample has too, with their area there."""
    if not len(found) or not len(sample):
        return
    both = (found.labels > 0) & (sample.labels > 0)
    each = np.stack([found.labels[both], sample.labels[both]])
    pairs, counts = np.unique(each, axis=1, return_counts=True)
    i, j = pairs[0] - 1, pairs[1] - 1
    # Above a half, an object has one partner at most.
    same = counts / (found.area[i] + sample.area[j] - counts) > _SAME
    yield from zip(i[same].tolist(), sample.area[j[same]].tolist(), strict=True)


def _centres(found: Objects) -> list[tuple[float, float]]:
    flat, (height, width) = found.labels.ravel(), found.labels.shape
    y = np.bincount(flat, np.repeat(np.arange(height), width), len(found) + 1)[1:] / found.area
    x = np.bincount(flat, np.tile(np.arange(width), height), len(found) + 1)[1:] / found.area
    return list(zip(y.tolist(), x.tolist(), strict=True))


def _intensities(values: np.ndarray) -> Row:
    shown = [None if np.isnan(value) else float(value) for value in values]
    return {"intensity": shown[0]} if len(shown) == 1 else {f"intensity_{i}": v for i, v in enumerate(shown)}


def fit_measurements(
    predictor: Predictor,
    known: Iterable[tuple[np.ndarray, np.ndarray]],
    how: Measure,
    see: Callable[[int], None] = lambda count: None,
) -> dict[str, Interval]:
    """Returns the calibrated intervals of a model, by `"CLASS number"`, from images whose masks are known.

    Those of `"CLASS bare count"` need no samples: they follow from the count in the mask of the mean.

    Args:
        predictor: The model, loaded with `sampling="fixed"` and its samples kept.
        known: Pairs of an image, float32 in [0, 1] `(height, width, channels)`, and its mask of class ids,
            `(height, width)`.
        how: What counts as an object; measurements that use the intervals must use the same.
        see: Function that is called with the number of images that are done.

    Raises:
        ValueError: If there are too few images for the level.
    """
    triples: dict[str, list[tuple[float, float, float]]] = {}
    for done, (image, mask) in enumerate(known, 1):
        mean, samples = masks_of_samples(predictor, image)
        classes = classes_of(predictor)
        for i, name in enumerate(classes[1:], 1):
            estimate, truth = (numbers_of(how.objects(each, i, image), how) for each in (mean, mask))
            sampled = [numbers_of(how.objects(each, i, image), how) for each in samples]
            for number in NUMBERS:
                spread = float(np.std([one[number] for one in sampled]))
                triples.setdefault(f"{name} {number}", []).append((estimate[number], spread, truth[number]))
        see(done)
    found = {}
    for key, each in triples.items():
        estimates, deviations, truths = np.array(each).T
        found[key] = fit(estimates, deviations, truths, how.level)
        if key.endswith(" count"):  # for an export, which gives no single samples
            found[f"{key.removesuffix(' count')} bare count"] = fit(estimates, 0 * deviations, truths, how.level)
    return found
