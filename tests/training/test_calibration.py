"""Metrics of probabilities against scikit-learn and against their definitions, worked out on all data at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import brier_score_loss, log_loss

from dropzoo.training.metrics.base import flatten
from dropzoo.training.metrics.calibration import (
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
)
from dropzoo.training.metrics.proper import BrierScore, NegativeLogLikelihood


def random(classes, shape=(400,), seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(classes, 2), shape).astype("int32")
    return labels, rng.normal(0, scale, (*shape, classes)).astype("float32")


def probabilities(logits):
    """In float64, (values, classes), two for one logit."""
    logits = logits.reshape(-1, logits.shape[-1]).astype("float64")
    if logits.shape[-1] == 1:
        logits = np.concatenate([0 * logits, logits], -1)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def ece(p, labels, weights, bins=15):
    confidence, right = p.max(-1), p.argmax(-1) == labels
    return binned(confidence, right, weights, bins)


def binned(confidence, right, weights, bins):
    error = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        w = weights * ((confidence > low) & (confidence <= high))
        if w.sum():
            gap = np.average(right, weights=w) - np.average(confidence, weights=w)
            error += w.sum() / weights.sum() * abs(gap)
    return error


def adaptive(p, labels, weights, bins=15):
    """Sorted, cut where the mass is; what lies across a cut is shared."""
    confidence, right = p.max(-1), p.argmax(-1) == labels
    order = np.argsort(confidence)
    mass = np.cumsum([0, *weights[order]])
    gap = np.cumsum([0, *(weights * (right - confidence))[order]])
    at = np.interp(mass[-1] * np.arange(bins + 1) / bins, mass, gap)
    return np.abs(np.diff(at)).sum() / mass[-1]


def classwise(p, labels, weights, bins=15):
    return np.mean([binned(p[:, c], labels == c, weights, bins) for c in range(p.shape[-1])])


def nll(p, labels, weights):
    return log_loss(labels, p, sample_weight=weights, labels=range(p.shape[-1]))


def brier(p, labels, weights):
    return brier_score_loss(labels, p, sample_weight=weights, labels=range(p.shape[-1]))


# Name: how to make the metric for some classes, its definition, the tolerance.
METRICS = {
    "nll": (lambda classes, **k: NegativeLogLikelihood(**k), nll, 1e-6),
    "brier": (lambda classes, **k: BrierScore(**k), brier, 1e-6),
    "ece": (lambda classes, **k: ExpectedCalibrationError(**k), ece, 1e-6),
    "adaptive": (lambda classes, **k: AdaptiveCalibrationError(**k), adaptive, 3e-3),
    "classwise": (ClasswiseCalibrationError, classwise, 1e-6),
    "ece of 4 bins": (lambda classes, **k: ExpectedCalibrationError(4, **k), lambda *a: ece(*a, 4), 1e-6),
    "classwise of 4": (lambda c, **k: ClasswiseCalibrationError(c, 4, **k), lambda *a: classwise(*a, 4), 1e-6),
}
each = pytest.mark.parametrize("name", METRICS)
KINDS = list(METRICS)[:5]


@pytest.mark.costly(keep=3)
@each
@pytest.mark.parametrize("classes", [1, 2, 6])
@pytest.mark.parametrize("shape", [(400,), (4, 6, 17)])
def test_streamed_it_is_its_definition_on_all_at_once(name, classes, shape):
    make, definition, tolerance = METRICS[name]
    metric = make(classes)
    assert float(metric.result()) == 0.0
    labels, logits = random(classes, shape)
    for part in (slice(0, 1), slice(1, 3), slice(3, None)):
        metric.update_state(labels[part], logits[part])
    expected = definition(probabilities(logits), labels.ravel(), np.ones(labels.size))
    assert float(metric.result()) == pytest.approx(expected, abs=tolerance)
    metric.reset_state()
    outputs = probabilities(logits)[:, 1:] if classes == 1 else probabilities(logits)
    of_probabilities = make(classes, from_logits=False)
    of_probabilities.update_state(labels.ravel(), outputs)
    metric.update_state(labels[..., None], logits)
    for one in (metric, of_probabilities):
        assert float(one.result()) == pytest.approx(expected, abs=tolerance)


@pytest.mark.costly(keep=3)
@each
@pytest.mark.parametrize("classes", [1, 3])
def test_weights_and_the_ignored_label(name, classes):
    make, definition, tolerance = METRICS[name]
    labels, logits = random(classes, (3, 5, 40))
    pixels = np.random.default_rng(1).random(labels.shape).astype("float32")
    images = np.array([0.5, 0.0, 2.0], "float32")
    void = labels.copy()
    void[:, :, 30:] = 255
    p = probabilities(logits)
    of_images = np.broadcast_to(images[:, None, None], labels.shape)
    for given, target, ignore, weights in (
        (pixels, labels, None, pixels),
        (pixels[..., None], labels, None, pixels),
        (images, labels, None, of_images),
        (images[:, None], labels, None, of_images),
        (images[:, None, None, None], labels, None, of_images),
        (2.0, labels, None, np.ones(labels.shape)),
        (None, void, 255, 1.0 * (void != 255)),
        (pixels, void, 255, pixels * (void != 255)),
        (1.0 * (labels != 1), labels, None, 1.0 * (labels != 1)),
        (None, labels, 1, 1.0 * (labels != 1)),  # a label that is a class, and is then without labels
    ):
        metric = make(classes, ignore_class=ignore)
        metric.update_state(target, logits, given)
        expected = definition(p, labels.ravel(), weights.ravel().astype("float64"))
        assert float(metric.result()) == pytest.approx(expected, abs=tolerance)
    metric = make(classes, ignore_class=255)
    metric.update_state(np.full_like(labels, 255), logits)
    assert float(metric.result()) == 0.0


@each
def test_a_label_that_is_no_class_makes_it_nan(name):
    labels, logits = random(3, (20,))
    for wrong in (-1, 3, 255):
        metric = METRICS[name][0](3)
        metric.update_state(np.array([*labels[1:], wrong]), logits)
        assert np.isnan(float(metric.result()))
        metric.reset_state()
        metric.update_state(np.array([*labels[1:], wrong]), logits, np.array([1.0] * 19 + [0.0]))
        assert np.isfinite(float(metric.result()))


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_fit_and_in_graphs(jit):
    labels, images = random(3, (64,))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    metrics = [METRICS[name][0](3) for name in KINDS]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=metrics, jit_compile=jit)
    model.fit(images, labels, batch_size=24, epochs=1, verbose=0)
    evaluated = model.evaluate(images, labels, batch_size=24, verbose=0, return_dict=True)
    logits = model.predict(images, verbose=0)
    for metric in metrics:
        metric.reset_state()
        metric.update_state(labels, logits)
        assert evaluated[metric.name] == pytest.approx(float(metric.result()), abs=1e-6)
        assert evaluated[metric.name] > 0


@pytest.mark.costly(keep=0)
def test_replicas_add_up(two_devices):
    """Two of them, each with half of a batch."""
    labels, images = random(3, (64,))
    results = []
    for strategy in (tf.distribute.get_strategy(), two_devices):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
            metrics = [METRICS[name][0](3) for name in KINDS]
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(loss=loss, metrics=metrics, jit_compile=False)
        results.append(model.evaluate(images, labels, batch_size=32, verbose=0, return_dict=True))
    assert results[0] == pytest.approx(results[1], abs=1e-6) and len(results[0]) == 1 + len(KINDS)
    assert all(value > 0 for value in results[0].values())


@each
def test_it_is_stored_as_it_is(name):
    metric = METRICS[name][0](3, from_logits=False, ignore_class=255)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric) and again.get_config() == metric.get_config()
    assert again.ignore_class == 255 and not again.from_logits


@each
def test_sums_go_on_beyond_what_float32_holds(name):
    labels, logits = random(3, (1, 1, 1))
    metric = METRICS[name][0](3)
    before = np.full(metric.count.shape, 2.0**33)
    metric.count.assign(before)
    metric.update_state(labels, logits)
    added = 3 if "classwise" in name else 1  # a prediction of each class
    assert float(np.sum(metric.count)) == before.sum() + added


@each
def test_half_precision_loses_nothing_but_its_own_rounding(name):
    labels, logits = random(4, (2, 32, 32))
    for dtype in ("float16", "bfloat16"):
        rounded = keras.ops.cast(logits, dtype)
        results = []
        for given in (rounded, keras.ops.cast(rounded, "float32")):
            metric = METRICS[name][0](4)
            metric.update_state(labels, given)
            results.append(float(metric.result()))
        assert results[0] == results[1]


def test_sure_and_right_sure_and_wrong():
    for probability, expected in ((1.0, [0] * 7), (0.0, [-np.log(1e-12), *[1] * 6])):
        for (make, _, _), value in zip(METRICS.values(), expected, strict=True):
            metric = make(1, from_logits=False)
            metric.update_state(np.ones(4), np.full((4, 1), probability))
            assert float(metric.result()) == pytest.approx(value, abs=1e-6)
    metric = NegativeLogLikelihood()
    metric.update_state(np.array([1]), np.array([[100.0, 0.0]]))
    assert float(metric.result()) == pytest.approx(100.0)  # logits are not cut
    metric.update_state(np.array([255]), np.array([[np.inf, 0.0]]), np.array([0.0]))
    assert float(metric.result()) == pytest.approx(100.0)


@pytest.mark.parametrize("bins", [1, 7, 15, 400])
def test_equal_masses_are_exact_where_confidences_are_apart(bins):
    rng = np.random.default_rng(0)
    odds = rng.permutation(np.linspace(0.1, 12, 300)).astype("float32")  # 0.04 apart; the fine steps are 0.007
    labels, weights = rng.random(300) < 0.8, rng.random(300)
    for given in (np.ones(300), weights):
        metric = AdaptiveCalibrationError(bins)
        for part in np.split(np.arange(300), 3):
            metric.update_state(labels[part], odds[part, None], given[part])
        expected = adaptive(probabilities(odds[:, None]), labels, given, bins)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_equal_masses_where_they_divide_are_the_sorted_array_split():
    rng = np.random.default_rng(0)
    odds = rng.permutation(np.linspace(0.1, 12, 600)).astype("float32")
    labels, p = rng.random(600) < 0.95, probabilities(odds[:, None])[:, 1]
    metric = AdaptiveCalibrationError(num_bins=10)
    metric.update_state(labels, odds[:, None])
    gaps = [abs(labels[i].mean() - p[i].mean()) for i in np.split(np.argsort(odds), 10)]
    assert float(metric.result()) == pytest.approx(np.mean(gaps), abs=1e-6)


def test_adaptive_bins_on_nearly_sure_predictions():
    """All confidences in (0.999, 1): one bin of equal width, yet two kinds that cancel out there."""
    confidence = np.array([0.9991] * 50 + [0.999999] * 50)
    right = np.array([True] * 50 + [True, False] * 25)  # under- and overconfident
    p = np.stack([confidence, 1 - confidence], -1)
    wide, even = ExpectedCalibrationError(15, False), AdaptiveCalibrationError(2, False)
    for metric in (wide, even):
        metric.update_state(np.where(right, 0, 1), p)
    assert float(wide.result()) == pytest.approx(abs(0.75 - confidence.mean()), abs=1e-6)
    assert float(even.result()) == pytest.approx((abs(1 - 0.9991) + abs(0.5 - 0.999999)) / 2, abs=1e-6)


def test_adaptive_bins_of_equal_confidences_do_not_depend_on_the_order():
    p = np.full((90, 1), 0.8)
    for labels in (np.arange(90) % 3 > 0, np.arange(90) < 60):
        metric = AdaptiveCalibrationError(from_logits=False)
        metric.update_state(labels, p)
        assert float(metric.result()) == pytest.approx(0.8 - 60 / 90, abs=1e-6)


def test_weights_of_the_adaptive_error_are_mass():
    labels, logits = random(3, (40,))
    times = np.random.default_rng(2).integers(0, 4, 40)
    weighted, repeated = AdaptiveCalibrationError(), AdaptiveCalibrationError()
    weighted.update_state(labels, logits, times)
    repeated.update_state(np.repeat(labels, times), np.repeat(logits, times, 0))
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), abs=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExpectedCalibrationError(num_bins=0), "`num_bins` must be a positive int. Received: num_bins=0"),
        (
            lambda: AdaptiveCalibrationError(num_bins=2.5),
            "`num_bins` must be a positive int. Received: num_bins=2.5",
        ),
        (lambda: ClasswiseCalibrationError(0), "`num_classes` must be a positive int"),
        (lambda: ClasswiseCalibrationError(4).update_state([0], [[0.0, 1.0]]), "num_classes=4 .* Received: 2"),
        (lambda: BrierScore().update_state([[0, 1]], [[0.0, 1.0]]), "one integer label for each vector"),
        (lambda: BrierScore().update_state([0, 1, 1], [[0.0, 1.0]]), r"y_true of shape \(3,\)"),
        (lambda: BrierScore().update_state([0], [[0.0, 1.0]], [1.0, 2.0]), r"sample_weight of shape \(2,\)"),
        (lambda: BrierScore().update_state([0], [[0.0, 1.0]], [[1.0, 2.0]]), "for each image or for each label"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_that_are_not_known_yet_fit():
    spec = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2, None, 3])]
    assert tf.function(lambda y, p: flatten(y, p, None), input_signature=spec).get_concrete_function()
