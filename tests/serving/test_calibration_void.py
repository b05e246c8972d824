"""Pixels that do not count, in calibrations.

The rule: a label that is ignored has no part in any loss, whatever the model says there. An image without any
other label is left out. Without such labels nothing changes.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from _answers import answers
from dropzoo import serving
from dropzoo.runs.promises import Promises
from dropzoo.serving.calibration.fitting.heldout import VOID, check_labels
from dropzoo.serving.calibration.fitting.promise import Terms
from dropzoo.serving.calibration.fitting.promises_of_classes import ErrorPromise
from dropzoo.serving.calibration.fitting.promises_of_masks import MaskPromise

GUARANTEE = {"miss": 0.3, "false": 0.9, "error": 0.4}


def test_labels_that_are_ignored_change_nothing_else(masks):
    """The void frame may have any answer: the calibration is that of the model that is right there."""
    model, images, labels = masks
    void = labels.copy()
    void[:, :2] = 255
    wrong, right = images.copy(), images.copy()
    wrong[:, :2] = right[:, :2] = 0.0  # a coin, which sees no class
    right_labels = labels.copy()
    right_labels[:, :2] = 0
    cal = serving.calibrate(model, wrong, void, guarantee=GUARANTEE, ignore_class=255, verbose=0)
    small = serving.calibrate(model, images[:, 2:], labels[:, 2:], verbose=0)
    assert cal.temperature == pytest.approx(small.temperature, rel=0.1)
    assert cal.guarantees.keys() == GUARANTEE.keys() and cal.n == 60
    counted = serving.calibrate(model, right, right_labels, guarantee=GUARANTEE, verbose=0)
    assert counted.figures["one_pass"]["nll"] > cal.figures["one_pass"]["nll"] + 0.05  # the coins count there


def test_without_such_labels_nothing_changes(masks):
    model, images, labels = masks
    plain, given = (
        serving.calibrate(model, images, labels, guarantee=GUARANTEE, ignore_class=each, verbose=0)
        for each in (None, 255)
    )
    assert (plain.temperature, plain.guarantees) == (given.temperature, given.guarantees)


def test_images_of_which_nothing_counts_are_left_out(identity):
    images, labels = answers(90)
    labels[::3] = 9
    cal = serving.calibrate(identity, images, labels, ignore_class=9, guarantee={"set": 0.2}, verbose=0)
    some = labels != 9
    again = serving.calibrate(identity, images[some], labels[some], guarantee={"set": 0.2}, verbose=0)
    assert cal.n == 60 and (cal.temperature, cal.guarantees) == (again.temperature, again.guarantees)


@pytest.mark.parametrize("kind", ["multi_class", "binary"])
def test_losses_are_those_of_the_pixels_that_count(kind):
    random = np.random.default_rng(0)
    width = 2 if kind == "multi_class" else 1
    p = random.dirichlet([1, 1], (5, 12)).astype("float32")
    labels = random.integers(0, 2, (5, 12))
    void = random.random((5, 12)) < 0.4
    void[:, :2] = False
    mean, hidden = (p if width == 2 else p[..., 1:]), np.where(void, VOID, labels)
    terms = Terms(0.5, 0.9, kind, width, tuple(range(width)), True)
    _, losses = ErrorPromise(terms, binary=False)._of({"mean": tf.constant(mean)}, hidden)
    wrong = p.argmax(-1) != labels
    np.testing.assert_allclose(losses, [w[~v].mean() for w, v in zip(wrong, void, strict=True)])
    promise = MaskPromise("false", terms)
    promise.add({"mean": tf.constant(mean)}, hidden)
    changed = MaskPromise("false", terms)
    changed.add({"mean": tf.constant(mean)}, np.where(void, 0, labels))
    assert promise._total.sum() != changed._total.sum() and promise._n.tolist() == changed._n.tolist()


def test_measured_promises_leave_out_void_pixels():
    mean = np.float32([[[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]]).reshape(1, 2, 2, 2)
    guarantee = serving.Calibration(
        1.0,
        {},
        {"false": SimpleNamespace(classes=(1,), level=0.1), "error": SimpleNamespace(level=0.1)},
        SimpleNamespace(task="multi_class"),
    )
    promises = Promises(guarantee, ("a", "b"), 255)
    out = {"mean": mean, "inner": mean >= 0.5, "defer": np.array([False])}
    both = {name: np.concatenate([value, value]) for name, value in out.items()}
    promises.add(np.array([[[0, 1], [255, 1]], [[255, 255], [255, 255]]]), both)
    risks = {each.name: (each.risk, each.count) for each in promises.measured()}
    assert risks == {"false, b": (0.0, 1), "error": (pytest.approx(1 / 3), 1)}


def test_what_cannot_be_ignored_is_refused(identity):
    x = keras.Input((2,))
    values = keras.Model(x, keras.layers.Identity()(x))
    with pytest.raises(ValueError, match="for one class a pixel or image, and the task is 'regression'"):
        serving.calibrate(values, np.ones((9, 2)), np.ones((9, 2)), task="regression", ignore_class=1, verbose=0)
    with pytest.raises(ValueError, match="pass it as `ignore_class`"):
        check_labels(np.array([0, 255]), "multi_class", (None, 3))
    images, labels = answers(20)
    with pytest.raises(ValueError, match="needs held-out images. Received: none"):
        serving.calibrate(identity, images, labels * 0 + 9, ignore_class=9, verbose=0)
