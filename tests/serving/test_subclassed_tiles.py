"""`predict_tiled` takes a subclassed model that has seen no batch: the first tile shows its inputs and outputs."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from dropzoo import serving


class Net(keras.Model):
    def __init__(self, rank, several=False):
        super().__init__()
        self.conv = (kl.Conv2D if rank == 2 else kl.Conv3D)(2, 3, padding="same", activation="softmax")
        self.drop, self.several = kl.Dropout(0.5), several

    def call(self, x, training=None):
        x, shift = (x["image"], x["shift"]) if self.several else (x, 0.0)
        shift = keras.ops.reshape(shift, (-1, 1, 1, 1)) if self.several else shift
        return self.conv(self.drop(x + shift, training=training))


IMAGES = {
    "image": (2, np.ones((20, 14, 1), "float32")),
    "short image": (2, np.ones((6, 7, 1), "float32")),
    "volume": (3, np.ones((10, 9, 12, 1), "float32")),
    "list": (2, np.ones((12, 12, 1)).tolist()),
}


@pytest.mark.parametrize(("rank", "image"), IMAGES.values(), ids=IMAGES)
def test_a_subclassed_model_needs_no_call_first(rank, image):
    mc = serving.MonteCarlo(Net(rank), 2, sampling="fixed")
    shape = np.shape(image)
    assert serving.predict_tiled(mc, image, 8, 2)["mean"].shape == (*shape[:-1], 2)


def test_several_inputs_and_an_ensemble():
    image = {"image": np.ones((12, 12, 1), "float32"), "shift": np.ones(1, "float32")}
    mc = serving.MonteCarlo(Net(2, several=True), 2, sampling="fixed")
    assert serving.predict_tiled(mc, image, 8, 2)["mean"].shape == (12, 12, 2)
    both = serving.Ensemble([Net(2), Net(2)])
    assert serving.predict_tiled(both, image["image"], 8, 2)["mean"].shape == (12, 12, 2)


def test_a_bad_tile_is_told_first():
    mc = serving.MonteCarlo(Net(2), 2, sampling="fixed")
    with pytest.raises(ValueError, match="`tile` must be a positive int, or 2 of them"):
        serving.predict_tiled(mc, np.ones((12, 12, 1)), (8, 8, 8))
