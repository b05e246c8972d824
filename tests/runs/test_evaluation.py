"""What `dropzoo evaluate` reports: against scikit-learn, on predictors whose answers are known."""

import csv
import re

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from dropzoo import training
from dropzoo.pages.calibration import corruptions, draw, save_plots
from dropzoo.runs import evaluation, tables
from dropzoo.runs.scores import Scores


def labelled(shape, classes=4, true=1.0, seed=0):
    """Log-probabilities, and labels drawn from them at the temperature `true`."""
    rng = np.random.default_rng(seed)
    log_p = log_softmax(rng.normal(0, 2, (*shape, classes)), -1).astype("float32")
    p = np.exp(log_softmax(log_p / true, -1))
    return log_p, (p.cumsum(-1) < rng.random((*shape, 1))).sum(-1).clip(0, classes - 1).astype("int32")


def info(task="classification", classes=4, **counts):
    sizes = {"num_train": 9, "num_validation": 9, "num_test": 9, **counts}
    names = tuple(map(str, range(classes)))
    return training.DataInfo("set", task, classes, names, (8, 8, 1), **sizes)


def dataset(log_p, labels, batch=16):
    """Images are what is predicted of them."""
    return tf.data.Dataset.from_tensor_slices((log_p, labels)).batch(batch)


def score(log_p, labels, task="classification"):
    classes = log_p.shape[-1]
    return evaluation.score(tf.identity, dataset(log_p, labels), Scores(info(task, classes)))


@pytest.mark.parametrize(
    ("task", "shape", "classes"),
    [("classification", (203,), 4), ("segmentation", (20, 9, 7), 4), ("segmentation", (20, 9, 7), 2)],
)
def test_figures_are_scikit_learns(task, shape, classes):
    log_p, labels = labelled(shape, classes)
    figures = score(log_p, labels, task).figures()
    flat, truth = log_p.reshape(-1, classes).astype("float64"), labels.ravel()
    p = np.exp(flat) / np.exp(flat).sum(-1, keepdims=True)
    wrong, entropy = p.argmax(-1) != truth, -(p * flat).sum(-1)
    expected = {
        "accuracy": accuracy_score(truth, p.argmax(-1)),
        "nll": log_loss(truth, p),
        "brier": brier_score_loss(truth, p),
        "error_auroc": roc_auc_score(wrong, entropy),
        "aurc": np.mean(np.cumsum(wrong[np.argsort(entropy)]) / np.arange(1, len(wrong) + 1)),
        "count": shape[0],
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=2e-5), name
    assert {"ece", "ece_adaptive", "ece_classwise"} < set(figures)
    assert ("mean_iou" in figures) == (task == "segmentation")


def test_of_large_masks_a_sample_is_ranked_and_all_else_is_whole():
    log_p, labels = labelled((4, 100, 120))
    scores = score(log_p, labels, "segmentation")
    assert len(scores.uncertainty_and_errors()[0]) == 4 * 4096
    flat = np.exp(log_p.reshape(-1, 4))
    wrong, entropy = flat.argmax(-1) != labels.ravel(), -(flat * np.log(flat)).sum(-1)
    figures = scores.figures()
    assert figures["accuracy"] == pytest.approx(1 - wrong.mean())
    assert figures["error_auroc"] == pytest.approx(roc_auc_score(wrong, entropy), abs=0.02)
    assert figures == score(log_p, labels, "segmentation").figures()
    scores.reset()
    assert evaluation.score(tf.identity, dataset(log_p, labels), scores).figures() == figures


def test_without_errors_there_is_nothing_to_detect():
    labels = np.arange(12, dtype="int32") % 4
    sure = log_softmax(1e4 * np.eye(4, dtype="float32")[labels], -1)  # some log p are far below what exp holds
    figures = score(sure, labels).figures()
    assert figures["error_auroc"] is None and figures["aurc"] == 0 and figures["nll"] == 0
    shown = Console(width=80)
    with shown.capture() as capture:
        shown.print(tables.figures_table({"deterministic": figures}))
    assert re.search(r"error AUROC\D*-", capture.get())
    broken = score(np.full_like(sure, np.nan), labels).figures()
    assert np.isnan(broken["nll"]) and broken["aurc"] is None and broken["error_auroc"] is None
    with pytest.raises(ValueError, match="no images to evaluate on in 'set'"):
        Scores(info()).figures()


@pytest.mark.costly(keep=0)
def test_a_temperature_is_fitted_on_the_validation_images_and_said():
    validation, test = (labelled((4000,), true=2.0, seed=seed) for seed in (1, 2))
    data = training.Data(dataset(*test), dataset(*validation), dataset(*test), info())
    temperatures = evaluation.fit_temperatures({"one": tf.identity}, data)
    assert temperatures["one"] == pytest.approx(2.0, rel=0.06)
    scores = evaluation.score_all({"one": tf.identity, "two": tf.identity}, data.test, data.info, temperatures)
    assert list(scores) == ["one", f"one, T = {temperatures['one']:.2f}", "two"]
    before, after, other = (each.figures() for each in scores.values())
    assert after["nll"] < before["nll"] and after["ece"] < 0.03 < before["ece"]
    assert after["accuracy"] == before["accuracy"] and other == before == score(*test).figures()
    for missing in ({"validation": None}, {"test": None}):
        rest = training.Data(**{**data.__dict__, **missing})
        with pytest.raises(ValueError, match="fitted on validation images and evaluated on test images"):
            evaluation.fit_temperatures({"one": tf.identity}, rest)


@pytest.mark.costly(keep=0)
def test_corruptions_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((24, 8, 8, 1)).astype("float32")
    pairs = dataset(images, (images.mean((1, 2, 3)) > 0.5).astype("int32"), 7)

    def by_mean(images):  # brighter than one half
        odds = 40 * (tf.reduce_mean(images, (1, 2, 3)) - 0.5)
        return tf.math.log_sigmoid(tf.stack([-odds, odds], -1))

    predictors = {"deterministic": by_mean, "Monte Carlo, 3 samples": lambda images: by_mean(images) / 2}
    scores = Scores(info(classes=2))
    clean = {t: evaluation.score(p, pairs, scores.reset()).figures() for t, p in predictors.items()}
    names = ["brightness", "gaussian_noise"]
    found = evaluation.score_corruptions(predictors, pairs, info(classes=2), names)
    assert list(found) == [(name, severity) for name in names for severity in range(1, 6)]
    once_more = evaluation.corrupted(pairs, "gaussian_noise", 4)
    again = evaluation.score(by_mean, once_more, scores.reset()).figures()
    assert again == found["gaussian_noise", 4]["deterministic"]
    assert clean["deterministic"]["accuracy"] == 1 and found["brightness", 5]["deterministic"]["accuracy"] < 0.5
    shown = Console(width=80)
    with shown.capture() as capture:
        for table in tables.corruption_tables(clean, found):
            shown.print(table)
    text = capture.get()
    titles = [line.strip() for line in text.splitlines() if "by severity" in line]
    assert titles == ["accuracy by severity", "NLL by severity", "ECE by severity"]
    accuracy = [found["gaussian_noise", s]["deterministic"]["accuracy"] for s in range(1, 6)]
    row = re.search(r"gaussian_noise\s+deterministic\s+([\d. ]+)\n\s+MC, 3 ", text)
    assert row and [float(x) for x in row[1].split()] == pytest.approx([1.0, *accuracy], abs=6e-4)
    assert "mean of all" in text and "…" not in text

    with open(tables.write_figures(tmp_path / "figures.csv", clean, found), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + len(found)) and [row["severity"] for row in rows[:3]] == ["0", "0", "1"]
    told = {(row["corruption"], row["severity"], row["predictor"]): float(row["accuracy"]) for row in rows}
    assert told["gaussian_noise", "4", "deterministic"] == again["accuracy"]
    assert told["", "0", "deterministic"] == 1

    found["brightness", 5]["deterministic"]["ece"] = float("nan")  # a model may give NaN on what it never saw
    drawn = corruptions(clean, found)
    shown = [axis for axis in drawn.axes if axis.lines]
    assert [axis.get_title() for axis in shown[:2]] == ["brightness", "gaussian noise"] and len(shown) == 4
    np.testing.assert_array_equal(shown[1].lines[0].get_ydata(), [1.0, *accuracy])


def test_corruptions_by_name():
    assert evaluation.parse_corruptions("all") == training.list_corruptions()
    assert evaluation.parse_corruptions("blur, contrast,blur") == ["blur", "contrast"]
    for text in ("blurr", "blur,,contrast", ""):
        with pytest.raises(ValueError, match="Unknown corruption"):
            evaluation.parse_corruptions(text)


@pytest.mark.costly(keep=0)
def test_plots_are_written_and_equal_for_equal_scores(tmp_path):
    scores = {
        "deterministic": score(*labelled((300,))),
        "Monte Carlo, 3 samples": score(*labelled((300,), seed=1)),
    }
    names = ["reliability.svg", "reliability.png", "risk_coverage.svg", "risk_coverage.png"]
    for folder in ("a", "b"):
        assert [path.name for path in save_plots(draw(scores), tmp_path / folder)] == names
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes() and len(content) > 5000
    assert len(list((tmp_path / "a").iterdir())) == 4
    save_plots(draw({"perfect": score(np.float32([[0, -99]] * 3), np.zeros(3, "int32"))}), tmp_path / "c")
