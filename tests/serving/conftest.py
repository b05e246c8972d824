"""Exports that the tests of the server share, and models that those of calibration share."""

from pathlib import Path

import keras
import numpy as np
import pytest

from _small_cnn import small_cnn
from dropzoo import layers, models, serving


@pytest.fixture(scope="session")
def cnn_export(tmp_path_factory) -> Path:
    """The folder of a classifier of 8x8 images, version 1."""
    folder = tmp_path_factory.mktemp("served") / "cnn"
    serving.export_model(small_cnn(), folder, 4, class_names=["zero", "one", "two", "three"])
    return folder


@pytest.fixture(scope="session")
def plain_export(tmp_path_factory) -> Path:
    """The same without Monte-Carlo samples, which loads faster: for tests that are not about answers."""
    folder = tmp_path_factory.mktemp("plain") / "cnn"
    serving.export_model(small_cnn(), folder, 0, class_names=["zero", "one", "two", "three"])
    return folder


@pytest.fixture(scope="session")
def unet_export(tmp_path_factory) -> Path:
    """The folder of a U-Net of RGB images of any size and type uint8."""
    folder = tmp_path_factory.mktemp("served") / "cells"
    options = {"input_shape": (None, None, 3), "num_classes": 3, "depth": 1, "filters": 4}
    model = models.build_model("unet", dropout={"encoder*": "spatial_dropout2d:0.3", "head": 0.2}, **options)
    serving.export_model(model, folder, 4, image_dtype="uint8", class_names=["background", "cell", "edge"])
    return folder


@pytest.fixture(scope="module")
def identity():
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Identity(name="logits")(x))


@pytest.fixture(scope="module")
def dropping():
    """A small classifier with two sites, one of ours with a live rate and one of Keras."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    y = layers.Dropout(0.2, name="first_dropout")(keras.layers.Dense(8, name="first", activation="relu")(x))
    y = keras.layers.Dropout(0.4, name="second_dropout")(keras.layers.Dense(8, name="second")(y))
    return keras.Model(x, keras.layers.Dense(4, name="logits")(y))


@pytest.fixture(scope="module")
def masks():
    """A model of maps and images: the value of a pixel is its logit."""
    x = keras.Input((None, None, 2))
    model = keras.Model(x, keras.layers.Identity()(x))
    random = np.random.default_rng(1)
    labels = np.zeros((60, 8, 8), int)
    for each in labels:
        row, column = random.integers(0, 4, 2)
        each[row : row + 4, column : column + 4] = 1
    other = np.where(labels, 2.0, -2.0) + 1.5 * random.normal(size=labels.shape)
    return model, np.stack([np.zeros_like(other), other], -1).astype("float32"), labels
