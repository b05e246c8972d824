"""Risk and coverage, detection of errors, temperature: against definitions, scikit-learn and known answers."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score

from dropzoo.training.metrics import aurc, error_auroc, fit_temperature, ood_auroc, risk_coverage


def random(size=500, seed=0):
    """Uncertainty that says something of the errors."""
    rng = np.random.default_rng(seed)
    uncertainty = rng.random(size)
    return uncertainty, rng.random(size) < 0.6 * uncertainty


def test_risk_and_coverage_by_hand():
    coverage, risk = risk_coverage([3.0, 1.0, 2.0, 5.0], [1, 0, 1, 0])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 2, 2 / 3, 2 / 4])
    assert aurc([3.0, 1.0, 2.0, 5.0], [1, 0, 1, 0]) == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    _, risk = risk_coverage([1.0, 2.0], [0.25, 4.0])  # losses
    assert risk == pytest.approx([0.25, 2.125])


def test_the_curve_is_its_definition():
    uncertainty, errors = random()
    order = np.argsort(uncertainty)
    expected = [errors[order][:k].mean() for k in range(1, len(errors) + 1)]
    assert risk_coverage(uncertainty.reshape(5, 100), errors.reshape(5, 100))[1] == pytest.approx(expected)
    assert aurc(uncertainty, errors) == pytest.approx(np.mean(expected))


def test_ties_are_the_mean_over_their_orders():
    uncertainty, errors = np.round(random(200)[0], 1), random(200)[1]
    rng, curves = np.random.default_rng(1), []
    for _ in range(2000):
        order = np.lexsort((rng.random(200), uncertainty))
        curves.append(np.cumsum(errors[order]) / np.arange(1, 201))
    assert risk_coverage(uncertainty, errors)[1] == pytest.approx(np.mean(curves, 0), abs=0.05)
    assert aurc(uncertainty, errors) == pytest.approx(np.mean(curves), abs=2e-3)
    assert aurc(np.zeros(200), errors) == pytest.approx(errors.mean())  # it says nothing: the error rate


def test_best_and_worst():
    errors = np.arange(1000) >= 800
    e = 0.2
    assert aurc(np.arange(1000), errors) == pytest.approx(e + (1 - e) * np.log(1 - e), abs=1e-3)
    assert aurc(-np.arange(1000), errors) > 0.5 and aurc(np.arange(1000), 0 * errors) == 0.0
    assert error_auroc(np.arange(1000), errors) == 1.0 and error_auroc(-np.arange(1000), errors) == 0.0


def test_detection_is_scikit_learns():
    uncertainty, errors = random()
    for u in (uncertainty, np.round(uncertainty, 1)):
        assert error_auroc(u, errors) == pytest.approx(roc_auc_score(errors, u))
        foreign = ood_auroc(u[~errors], u[errors])
        assert foreign == pytest.approx(error_auroc(u, errors))
    pairs = uncertainty[errors][:, None] > uncertainty[~errors]
    assert error_auroc(uncertainty, errors) == pytest.approx(pairs.mean())
    assert np.isnan(error_auroc([0.1, 0.2], [0, 0])) and np.isnan(error_auroc([0.1, 0.2], [1, 1]))


def labelled(true, classes, shape=(20000,), seed=0):
    """Logits whose labels are drawn from `softmax(logits / true)`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (*shape, classes))
    p = softmax((np.concatenate([0 * logits, logits], -1) if classes == 1 else logits) / true, -1)
    return logits, (p.cumsum(-1) < rng.random((*shape, 1))).sum(-1)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_known_temperature_is_found(true, classes):
    logits, labels = labelled(true, classes)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.05)


def test_it_is_the_minimum():
    logits, labels = labelled(1.7, 5, (2000,))
    found = fit_temperature(logits, labels)
    grid = np.exp(np.linspace(-1, 2, 3001))
    losses = [log_loss(labels, softmax(logits / t, -1)) for t in grid[::10]]
    assert found == pytest.approx(grid[::10][np.argmin(losses)], rel=0.01)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * found, rel=1e-4)
    assert fit_temperature(logits - logits.max(), labels) == pytest.approx(found, rel=1e-6)
    assert fit_temperature(logits.astype("float32"), labels.astype("int32")) == pytest.approx(found, rel=1e-5)


def test_masks_and_the_ignored_label():
    logits, labels = labelled(2.0, 3, (4, 30, 20))
    void = labels.copy()
    void[:, :, 15:] = 255
    expected = fit_temperature(logits[:, :, :15], labels[:, :, :15])
    assert fit_temperature(logits, void, ignore_class=255) == pytest.approx(expected)
    assert fit_temperature(logits, void[..., None], 255) == pytest.approx(expected)
    assert expected == pytest.approx(2.0, rel=0.15)


def test_always_right_is_not_endless_certainty_and_always_wrong_stays_in_bounds():
    """40 right of 40 are as certain as 41 right of 42."""
    logits = np.eye(4)[np.arange(40) % 4]
    for certain in (1, 100):
        found = fit_temperature(certain * logits, np.arange(40) % 4)
        assert softmax(certain * logits[0] / found)[0] == pytest.approx(41 / 42, abs=1e-5)
    assert fit_temperature(logits, (np.arange(40) + 1) % 4) == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: risk_coverage([1, 2], [1]), r"must have the same shape. Received: \(2,\) and \(1,\)"),
        (lambda: aurc([], []), "`uncertainty` must be one or more finite numbers. Received: none"),
        (lambda: aurc([0.1, np.nan], [0, 1]), "Received: 1 that are not"),
        (lambda: error_auroc([0.1, 0.2], [0.5, 1]), "must be True or False .* Received: 0.5"),
        (lambda: ood_auroc([0.1], []), "`foreign` must be one or more"),
        (lambda: fit_temperature([[0, 1.0]], [0, 1]), r"labels of shape \(2,\), logits of shape \(1, 2\)"),
        (lambda: fit_temperature(1.0, 1), "one integer for each vector"),
        (lambda: fit_temperature([[0, 1.0]], [2]), r"must be in \[0, 2\). Received: 2"),
        (lambda: fit_temperature([[0, 1.0]], [255], 255), "a label that is not ignored"),
        (lambda: fit_temperature([[0, np.inf]], [0]), "must be finite. Received: 1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
