"""Exports that the tests of the server share."""

from pathlib import Path

import pytest

from _small_cnn import small_cnn
from dropzoo import models, serving


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
