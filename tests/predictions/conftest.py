"""A model that several tests share."""

import keras
import numpy as np
import pytest

from dropzoo import layers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of masks whose logit is the pixel: a grey pixel is an object in some of the samples."""
    x = keras.Input((None, None, 1))
    dropped = layers.SpatialDropout2D(0.5, name="grey_dropout")(keras.layers.Identity(name="grey")(x))
    y = keras.layers.Concatenate()([x, dropped])
    one = keras.layers.Conv2D(2, 1, name="logits")
    net = keras.Model(x, one(y))
    one.set_weights([np.float32([[[[0, 20], [0, 2]]]]), np.float32([0, -10])])  # 20 x + 2 * (0 or 2 x) > 10
    path = tmp_path_factory.mktemp("model") / "grey.keras"
    net.save(path)
    return path
