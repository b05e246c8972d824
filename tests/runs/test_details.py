"""Scores by class, image and object: equal to scikit-learn's, and to distances that are computed one by one."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn import metrics

from dropzoo.runs.details import Details, detail_tables, parse_per
from dropzoo.runs.objects import boundary_distances, compare_objects, hd95, surface_dice
from dropzoo.training.data.dataset import DataInfo

RANDOM = np.random.default_rng(0)


def info(task: str, classes: int, ignore_class: int | None = None) -> DataInfo:
    names = tuple(f"c{n}" for n in range(classes))
    return DataInfo("made", task, classes, names, (24, 24, 1), 0, 0, 6, ignore_class=ignore_class)


def blobs(seed: int, classes: int = 2) -> np.ndarray:
    """Masks `(6, 24, 24)` of smooth shapes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(6, 24, 24)), (0, 2, 2))
    return np.digitize(noise, np.quantile(noise, np.linspace(0.6, 1, classes)[:-1]))


def log_p(said: np.ndarray, classes: int) -> np.ndarray:
    scores = RANDOM.normal(size=(*said.shape, classes)) + 6 * np.eye(classes)[said]
    return tf.nn.log_softmax(scores).numpy()


def details(true, p, facts, per=("class", "image", "object")) -> Details:
    found = Details(facts, per)
    for start in range(0, len(true), 4):
        found.add(tf.constant(true[start : start + 4]), tf.constant(p[start : start + 4]))
    return found


@pytest.mark.parametrize("classes, ignored", [(2, None), (3, None), (3, 255)])
def test_masks_as_scikit_learn_scores_them(classes, ignored):
    true, said = blobs(1, classes), blobs(1, classes)
    said[:, :, 5:9] = blobs(2, classes)[:, :, 5:9]
    p = log_p(said, classes)
    said = p.argmax(-1)
    if ignored:
        true[:, :3] = ignored
    kept = true != (ignored or -1)
    found = details(true, p, info("segmentation", classes, ignored))
    y, z = true[kept], said[kept]
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(y, z))
    rows = found.classes()
    for name, other in (
        ("iou", metrics.jaccard_score),
        ("dice", metrics.f1_score),
        ("recall", metrics.recall_score),
        ("precision", metrics.precision_score),
    ):
        np.testing.assert_allclose([row[name] for row in rows], other(y, z, average=None))
    for n, row in enumerate(found.images):
        here = kept[n]
        iou = metrics.jaccard_score(true[n][here], said[n][here], average=None)
        assert row["mean_iou"] == pytest.approx(iou.mean())
        assert row["accuracy"] == pytest.approx((true[n] == said[n])[here].mean())
        chosen = np.take_along_axis(p[n], np.where(here, true[n], 0)[..., None], -1)[..., 0]
        assert row["nll"] == pytest.approx(-chosen[here].mean(), rel=1e-5)
    if classes == 2:
        score = np.exp(p[..., 1]).ravel()
        found = found.binary()
        assert found["AUROC"] == pytest.approx(metrics.roc_auc_score(y, score))
        assert found["AUPR"] == pytest.approx(metrics.average_precision_score(y, score))


@pytest.mark.parametrize("void", [slice(2, 3), slice(0, 5), slice(None)])
def test_an_image_of_void_pixels_alone_is_not_the_worst(void):
    """It has no score, and changes no interval, though some draws of the images hold nothing else."""
    true = blobs(1)
    p = log_p(true, 2)
    true[1] = 1 - true[1]
    true[void] = 255
    found = details(true, p, info("segmentation", 2, 255))
    rows, count = found.worst(), len(true[void])
    assert [row["mean_iou"] is None for row in rows] == [False] * (6 - count) + [True] * count
    assert [row["accuracy"] is None for row in rows] == [False] * (6 - count) + [True] * count
    assert void != slice(2, 3) or rows[0]["image"] == 1
    assert np.isfinite(list(found.intervals().values())).all() and detail_tables(found)
    kept = [n for n in range(6) if n not in range(6)[void]]
    if kept:
        assert found.intervals() == details(true[kept], p[kept], found.info).intervals()


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_as_all_pairs_of_pixels_give_them(seed):
    one, other = blobs(seed)[0] > 0, np.roll(blobs(seed)[0] > 0, 2, 0)
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) for mask in (one, other)]
    pairs = cdist(*edges)
    found = boundary_distances(one, other)
    assert hd95(found) == pytest.approx(max(np.percentile(pairs.min(1), 95), np.percentile(pairs.min(0), 95)))
    near = (pairs.min(1) <= 1).sum() + (pairs.min(0) <= 1).sum()
    assert surface_dice(found) == pytest.approx(near / sum(pairs.shape))
    assert boundary_distances(one, np.zeros_like(one)) is None
    assert hd95(boundary_distances(one, one)) == 0 and surface_dice(boundary_distances(one, one)) == 1


def test_objects_are_each_others_above_half():
    true = np.zeros((12, 30), bool)
    true[1:5, 1:5] = true[1:5, 8:12] = true[8:11, 1:9] = True
    said = np.zeros_like(true)
    said[1:5, 1:5] = said[1:5, 10:14] = said[8:11, 1:7] = said[8:11, 20:25] = True  # IoU 1, 1/3, 3/4, and none
    found = compare_objects(said, true)
    assert found[:3] == (2, 2, 1) and found.overlap == pytest.approx(1.75)
    assert found.f1 == pytest.approx(4 / 7) and found.quality == pytest.approx(1.75 / 3.5)
    assert compare_objects(true, ~true & False) == (0, 3, 0, 0.0)
    assert compare_objects(true, true).quality == 1


def test_classification_and_its_intervals(tmp_path):
    true = RANDOM.integers(0, 3, 60)
    p = log_p(np.where(RANDOM.random(60) < 0.7, true, 0), 3)
    found = details(true, p, info("classification", 3), ("class", "image"))
    value, low, high = found.intervals()["accuracy"]
    assert value == pytest.approx((p.argmax(-1) == true).mean()) and low < value < high
    normal = 1.96 * np.sqrt(value * (1 - value) / 60)
    assert (high - low) / 2 == pytest.approx(normal, rel=0.2)
    assert [row["accuracy"] for row in found.worst()[:3]] == [0, 0, 0]
    names = [path.name for path in found.write(tmp_path)]
    assert names == ["confusion.csv", "classes.csv", "images.csv"]
    with open(tmp_path / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {"image", "label", "predicted", "nll", "entropy"} <= rows[0].keys()
    captions = [caption for caption, _, _ in detail_tables(found)]
    assert captions[0] == "With 95 % intervals over images" and "The worst images" in captions


def test_names_of_per():
    assert parse_per(None) == () and parse_per("all") == ("class", "image", "object")
    assert parse_per("class, object") == ("class", "object")
    with pytest.raises(ValueError, match="Did you mean 'class'"):
        parse_per("clas")


@pytest.mark.parametrize("size", [(6, 8), (12, 16)])
def test_objects_that_touch_are_told_by_their_numbers(size):
    numbers = np.zeros((6, 8), int)
    numbers[1:5, 1:4], numbers[1:5, 4:7] = 3, 9
    true = np.kron(numbers > 0, np.ones((size[0] // 6, size[1] // 8), int)).astype(int)
    facts = info("segmentation", 2)
    p = log_p(true[None], 2)
    for objects, expected in ((None, (1, 0, 0)), (lambda place: numbers, (0, 1, 2))):
        found = Details(facts, ("object",), objects=objects)
        found.add(tf.constant(true[None]), tf.constant(p))
        assert found.objects[1][:3] == expected  # both are one region in the prediction
