"""`MonteCarlo.attribute`: the shares of the variance that sites bring, against the enumeration of all masks."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, models, serving

RATES = (0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def three():
    """A model with one unit at each of three sites, whose effects interact."""
    x = keras.Input((3,))
    units = []
    for i, rate in enumerate(RATES):
        unit = keras.layers.Lambda(lambda v, i=i: v[:, i : i + 1], name=f"site{i}")(x)
        units.append(layers.Dropout(rate, name=f"site{i}_dropout")(unit))
    a, b, c = units
    both = keras.layers.Multiply()([a, b])
    return keras.Model(x, keras.layers.Concatenate()([keras.layers.Add()([both, c]), a]))


def enumerated(image):
    """First-order and total shares of the three sites, from all eight masks with their probabilities."""

    def p(mask):
        a, b, c = (image[i] * mask[i] / (1 - RATES[i]) for i in range(3))
        return tf.nn.softmax(tf.constant([a * b + c, a], tf.float64)).numpy()

    masks = list(itertools.product((0, 1), repeat=3))
    chance = {m: np.prod([(1 - r) if on else r for on, r in zip(m, RATES, strict=True)]) for m in masks}
    values = {m: p(m) for m in masks}

    def variance_of_mean(known):
        """The variance of the mean given the masks of the known sites."""
        groups = {}
        for m in masks:
            key = tuple(m[i] for i in known)
            weight, total = groups.get(key, (0.0, np.zeros(2)))
            groups[key] = (weight + chance[m], total + chance[m] * values[m])
        mean = sum(chance[m] * values[m] for m in masks)
        return sum(w * (t / w - mean) ** 2 for w, t in groups.values()).sum()

    whole = variance_of_mean((0, 1, 2))
    first = [variance_of_mean((i,)) / whole for i in range(3)]
    total = [1 - variance_of_mean(tuple({0, 1, 2} - {i})) / whole for i in range(3)]
    return np.array(first), np.array(total)


@pytest.mark.costly(keep=0)
def test_it_agrees_with_the_enumeration_of_all_masks(three):
    image = np.float32([1.5, -1.0, 2.0])
    first, total = enumerated(image)
    found = serving.MonteCarlo(three, 2000).attribute(np.tile(image, (1, 1)))
    assert found.sites == ("site0", "site1", "site2") and found.per_image.shape == (3, 1)
    assert np.abs(found.first - first).max() < 0.02 and np.abs(found.total - total).max() < 0.02
    assert (total > first).any() and np.allclose(found.per_image[:, 0], found.total)


def test_a_site_alone_brings_everything(three):
    found = serving.MonteCarlo(three, 64, sites={"site2": True}).attribute(np.float32([[1.0, 2.0, 3.0]] * 4))
    assert found.sites == ("site2",) and found.total == pytest.approx([1.0], abs=0.15)
    assert "site2" in str(found) and found.per_image.shape == (1, 4)


def test_late_sites_cost_less():
    model = models.build_model(
        "simple_cnn", input_shape=(8, 8, 1), filters=(4,), dropout={"module1": 0.2, "dense1": 0.5}
    )
    found = serving.MonteCarlo(model, 16).attribute(
        np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")
    )
    early, late = found.cost
    assert found.sites == ("module1", "dense1") and 1 <= late < early <= 16
    assert np.isfinite(found.information_total).all() and len(str(found).splitlines()) == 3


def test_what_it_cannot_do(three):
    with pytest.raises(ValueError, match="fixed number of samples"):
        serving.MonteCarlo(three, "auto").attribute(np.full((1, 3), 3.0, "float32"))
