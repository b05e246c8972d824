"""Tversky and focal losses against Keras' own, `Dice`, and values by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo.training import Dice, FocalCrossEntropy, Trainer, Tversky

RNG = np.random.default_rng(0)
MASKS = RNG.integers(0, 3, (4, 5, 7))  # (batch, height, width)
LOGITS = RNG.normal(size=(4, 5, 7, 3)).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[MASKS]


def test_tversky_of_halves_is_dice():
    for ignored in (None, 2):
        half = Tversky(0.5, 0.5, smooth=0.3, ignore_class=ignored)(MASKS, LOGITS)
        assert float(half) == pytest.approx(float(Dice(smooth=0.3, ignore_class=ignored)(MASKS, LOGITS)), rel=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 0.75])
def test_tversky_by_hand(gamma):
    mask = np.array([[[1, 1, 1, 0, 0]]])
    logits = np.array([[[9e9, -9e9, -9e9, 9e9, -9e9]]], "float32")[..., None]  # 1 hit, 2 missed, 1 false alarm
    loss = Tversky(alpha=0.2, beta=0.8, gamma=gamma, smooth=1e-6)(mask, logits)
    assert float(loss) == pytest.approx((1 - 1 / (1 + 0.2 * 1 + 0.8 * 2)) ** gamma, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_is_that_of_keras(gamma):
    ours = FocalCrossEntropy(gamma, alpha=[0.2, 0.5, 1.0])(MASKS, LOGITS)
    theirs = keras.losses.CategoricalFocalCrossentropy([0.2, 0.5, 1.0], gamma, from_logits=True)(ONE_HOT, LOGITS)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)
    of_array = FocalCrossEntropy.from_config(FocalCrossEntropy(gamma, np.array([0.2, 0.5, 1.0])).get_config())
    assert float(of_array(MASKS, LOGITS)) == float(ours)
    foreground, logit = (MASKS == 1)[..., None].astype("float32"), LOGITS[..., :1]
    options = {"apply_class_balancing": True, "alpha": 0.25, "gamma": gamma, "from_logits": True}
    theirs = keras.losses.BinaryFocalCrossentropy(**options)(foreground, logit)
    ours = FocalCrossEntropy(gamma, alpha=0.25)(foreground.astype("int32"), logit)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize("loss", [Tversky(gamma=0.75, ignore_class=2), FocalCrossEntropy(0.5, ignore_class=2)])
def test_ignored_pixels_and_perfect_ones_have_finite_gradients(loss):
    logits = tf.Variable(np.where(ONE_HOT > 0, 200.0, -200.0).astype("float32"))
    with tf.GradientTape() as tape:
        value = loss(MASKS, logits)
    gradient = tape.gradient(value, logits).numpy()
    assert np.isfinite(gradient).all() and float(value) < 1e-3
    other = np.where((MASKS == 2)[..., None], -LOGITS, LOGITS)
    assert float(loss(MASKS, LOGITS)) == pytest.approx(float(loss(MASKS, other)), rel=1e-5)


@pytest.mark.parametrize("loss", [Tversky(0.1, 0.9, 0.75), FocalCrossEntropy(alpha=[0.1, 0.2, 0.7])])
def test_round_trip_and_training(loss):
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(copy(MASKS, LOGITS)) == float(loss(MASKS, LOGITS))
    model = keras.Sequential([keras.Input((5, 7, 3)), keras.layers.Conv2D(3, 3, padding="same")])
    data = tf.data.Dataset.from_tensor_slices((ONE_HOT + 0.1 * LOGITS, MASKS)).batch(2)
    losses = Trainer(model, keras.optimizers.Adam(0.05), loss).fit(data, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tversky(alpha=-1.0), "`alpha` and `beta`"),
        (lambda: Tversky(alpha=0.0, beta=0.0), "`alpha` and `beta`"),
        (lambda: Tversky(gamma=0.0), "`gamma` must be a positive number"),
        (lambda: FocalCrossEntropy(gamma=-1.0), "`gamma` must not be negative"),
        (lambda: FocalCrossEntropy(alpha=1.5), "`alpha` must be None, a float in"),
        (lambda: FocalCrossEntropy(alpha=[0.5, 0.5])(MASKS, LOGITS), "a list of 3 weights"),
        (lambda: FocalCrossEntropy(alpha=0.5)(MASKS, LOGITS), "a list of 3 weights"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
