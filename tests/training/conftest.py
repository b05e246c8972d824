"""The embedded sets, prepared once, and one strategy for two devices."""

from pathlib import Path

import pytest
import tensorflow as tf

from dropzoo.training.data.load import list_data, load_data


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """The embedded sets, prepared once for all tests."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in list_data():
        load_data(name, data_dir=folder)
    return folder


@pytest.fixture
def load(data_dir):
    return lambda name="digits", **options: load_data(name, data_dir=data_dir, **options)


@pytest.fixture(scope="session")
def two_devices() -> tf.distribute.Strategy:
    """The one mirrored strategy of a process: TensorFlow mixes up the gradients of two of them."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
