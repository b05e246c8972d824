"""Tiles, flips and turns of signals and volumes.

Rule: any number of spatial axes; what acts on height and width acts on the last two of them.
"""

import keras
import numpy as np
import pytest
from keras import layers as kl

from dropzoo import layers, serving

CONVS = {1: kl.Conv1D, 2: kl.Conv2D, 3: kl.Conv3D}
DROPS = {1: layers.SpatialDropout1D, 2: layers.SpatialDropout2D, 3: layers.SpatialDropout3D}


def net(rank, classes=2, size=None):
    keras.utils.set_random_seed(rank)
    inputs = keras.Input((*[size] * rank, 1))
    x = CONVS[rank](4, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, CONVS[rank](classes, 1)(DROPS[rank](0.4)(x)))


def image(rank, size):
    return np.random.default_rng(0).random((*size, 1), "float32")


SIZES = {1: (50,), 2: (30, 22), 3: (20, 14, 9)}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_tiles_are_the_whole(rank):
    mc, x = serving.MonteCarlo(net(rank), 3, "fixed"), image(rank, SIZES[rank])
    out, whole = serving.predict_tiled(mc, x, tile=12, overlap=(4,) * rank), mc(x[None])
    for name, value in whole.items():
        np.testing.assert_allclose(out[name], value[0], atol=1e-5, err_msg=name)


def test_a_volume_of_fixed_size_is_mirrored():
    mc = serving.MonteCarlo(net(3, size=8), 2, "fixed")
    out = serving.predict_tiled(mc, image(3, (10, 8, 5)), tile=8, overlap=2)
    assert out["mean"].shape == (10, 8, 5, 2) and out["mutual_information"].shape == (10, 8, 5)


@pytest.mark.parametrize(
    ("rank", "names"), [(1, ["flip_horizontal"]), (3, ["flip_horizontal", "flip_vertical", "rotate_90"])]
)
def test_transforms(rank, names):
    model, x = net(rank), image(rank, SIZES[rank])[None]
    flips = {
        "flip_horizontal": (lambda v: v[..., ::-1, :],) * 2,
        "flip_vertical": (lambda v: v[..., ::-1, :, :],) * 2,
        "rotate_90": (lambda v: np.rot90(v, axes=(-3, -2)), lambda v: np.rot90(v, -1, axes=(-3, -2))),
    }
    seen = [model(x).numpy()] + [
        back(model(np.ascontiguousarray(forth(x))).numpy()) for forth, back in map(flips.get, names)
    ]
    out = serving.TestTimeAugmentation(model, ["identity", *names], task="regression")(x)
    np.testing.assert_allclose(out["mean"], np.mean(seen, 0), atol=1e-5)


def test_bad_input():
    mc, x = serving.MonteCarlo(net(3), 2, "fixed"), image(3, (8, 8, 8))
    with pytest.raises(
        ValueError, match=r"`image` must have the shape \(depth, height, width, 1\). Received: \(8, 8, 1\)"
    ):
        serving.predict_tiled(mc, x[0])
    with pytest.raises(ValueError, match="`tile` must be a positive int, or 3 of them. Received: tile=.8, 8."):
        serving.predict_tiled(mc, x, tile=(8, 8))
    with pytest.raises(ValueError, match=r"\['rotate_90'\] need two spatial axes"):
        serving.TestTimeAugmentation(net(1), ["rotate_90"])
    with pytest.raises(ValueError, match="swap height and width"):
        serving.TestTimeAugmentation(
            keras.Model(i := keras.Input((4, 8, 6, 1)), kl.Conv3D(1, 1)(i)), ["transpose"]
        )
