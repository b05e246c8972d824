"""`Masksembles`: its masks are few and fixed, and each is a member of an ensemble."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving


def masks_of(layer, channels=16, batch=256):
    y = np.asarray(layer(keras.ops.ones((batch, channels)), training=True))
    return np.unique(y != 0, axis=0)


@pytest.mark.parametrize(("masks", "rate"), [(4, 0.5), (4, 0.1), (1, 0.3), (7, 0.4)])
def test_the_masks_are_few_and_share_the_drops_evenly(masks, rate):
    kept = masks_of(layers.Masksembles(rate, masks, seed=0))
    assert len(kept) <= masks
    if len(kept) == masks:
        dropped = (~kept).sum(0)
        assert set(dropped) <= {int(np.floor(masks * rate)), int(np.ceil(masks * rate))}
        assert abs((~kept).mean() - rate) <= 0.5 / kept.size + 1e-9


def test_they_are_kept_and_grow_with_the_rate(tmp_path):
    layer = layers.Masksembles(0.2, 4, mask_seed=3, seed=1)
    first = masks_of(layer)
    assert np.array_equal(first, masks_of(layers.Masksembles.from_config(layer.get_config() | {"seed": 9})))
    assert not np.array_equal(first, masks_of(layers.Masksembles(0.2, 4, mask_seed=4)))
    layer.rate = 0.6
    assert all(any((more <= mask).all() for mask in first) for more in masks_of(layer))


def test_monte_carlo_takes_each_mask_once():
    x = keras.Input((3,))
    y = layers.Masksembles(0.5, 4, name="x_dropout")(keras.layers.Dense(12, name="x", bias_initializer="ones")(x))
    model = keras.Model(x, y)
    mc = serving.MonteCarlo(model, 4, return_samples=True, task="regression")
    samples = mc(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))["samples"].numpy()
    members = {tuple((each != 0).tolist()) for each in samples[0]}
    assert len(members) == 4
    assert all({tuple((each != 0).tolist()) for each in image} == members for image in samples)


def test_unknown_channels_are_refused():
    layer = layers.Masksembles(0.5)
    function = tf.function(lambda x: layer(x, training=True), autograph=False)
    with pytest.raises(ValueError, match="number of channels must be known"):
        function.get_concrete_function(tf.TensorSpec([4, None]))
