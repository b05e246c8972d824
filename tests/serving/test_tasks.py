"""What a model's output means: the figures of each task, against NumPy."""

import keras
import numpy as np
import pytest

from _small_cnn import images, small_cnn
from dropzoo import layers, models, serving


def coins(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def classes(p):
    return -(p * np.log(p)).sum(-1)


FROM_LOGITS = {  # probabilities, entropies
    "multi_class": (lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True), classes),
    "binary": (lambda z: 1 / (1 + np.exp(-z)), lambda p: coins(p)[..., 0]),
    "multi_label": (lambda z: 1 / (1 + np.exp(-z)), lambda p: coins(p).sum(-1)),
}


def outputs_of(model, **options):
    """The model's raw outputs in every sample, (batch, samples, ...)."""
    out = serving.MonteCarlo(model, task="regression", return_samples=True, **options)(images())
    return out["samples"].numpy().astype("float64")


@pytest.mark.covering("task", "dense")
@pytest.mark.parametrize(("task", "num_classes"), [("multi_class", 4), ("binary", 1), ("multi_label", 4)])
@pytest.mark.parametrize("dense", [False, True])
def test_figures(task, num_classes, dense):
    if dense:
        plan = {"bottleneck*": 0.4}
        model = models.build_model(
            "unet", input_shape=(8, 8, 1), num_classes=num_classes, depth=1, filters=4, dropout=plan
        )
    else:
        model = small_cnn(num_classes=num_classes, scale=1.5)
    to_p, entropy = FROM_LOGITS[task]
    p = to_p(outputs_of(model, num_samples=6))
    assert p.std(1).max() > 1e-3
    out = serving.MonteCarlo(model, num_samples=6, task=task, return_samples=True)(images())
    np.testing.assert_allclose(out["samples"], p, atol=1e-5)
    np.testing.assert_allclose(out["mean"], p.mean(1), atol=1e-5)
    np.testing.assert_allclose(out["variance"], p.var(1), atol=1e-5)
    np.testing.assert_allclose(out["predictive_entropy"], entropy(p.mean(1)), atol=1e-5)
    np.testing.assert_allclose(out["mutual_information"], entropy(p.mean(1)) - entropy(p).mean(1), atol=1e-5)


def test_the_default_of_one_logit_is_binary():
    model = small_cnn(num_classes=1)
    default, binary = (serving.MonteCarlo(model, 4, **kw)(images()) for kw in ({}, {"task": "binary"}))
    for name, value in default.items():
        np.testing.assert_array_equal(binary[name], value)


def test_regression_has_no_entropies_and_keeps_a_small_variance_beside_a_large_mean():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dropout(0.5)(inputs) + 5000.0)
    x = np.full((3, 2), 0.01, "float32")
    out = serving.MonteCarlo(model, 64, task="regression")(x)
    assert set(out) == {"mean", "variance"}
    assert out["mean"].dtype == out["variance"].dtype == "float32"
    np.testing.assert_allclose(out["mean"], 5000.01, atol=1e-2)
    # 0 or 0.02, of which float32 beside 5000 keeps steps of 5e-4
    np.testing.assert_allclose(out["variance"], 1e-4, rtol=0.05)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_as_many_samples_as_it_takes(task):
    model = small_cnn()
    out = serving.MonteCarlo(model, "auto", "independent", tolerance=0.05, max_samples=64, task=task)(images())
    plain = serving.MonteCarlo(model, 64, "independent", task=task, return_samples=True)(images())
    counts = out["num_samples"].numpy()
    assert counts.min() >= 8
    for i, n in enumerate(counts):
        p = plain["samples"].numpy()[i, :n].astype("float64")
        np.testing.assert_allclose(out["mean"][i], p.mean(0), atol=1e-4)
        np.testing.assert_allclose(out["variance"][i], p.var(0), atol=1e-4)
        assert n == 64 or np.sqrt((p.var(0) / (n - 1)).mean()) <= 0.0501


def test_bad_tasks():
    with pytest.raises(ValueError, match="Unknown task 'multilabel'. Did you mean 'multi_label'"):
        serving.MonteCarlo(small_cnn(), task="multilabel")
    with pytest.raises(ValueError, match="one output unit.*Received: an output of the shape .None, 4."):
        serving.MonteCarlo(small_cnn(), task="binary")
