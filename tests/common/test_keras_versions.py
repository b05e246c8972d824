"""Files that older versions of Keras read: nothing is lost, and what an older version cannot do stays."""

import json
import zipfile

import keras
import numpy as np
import pytest

from dropzoo.common.keras_versions import NEWER_ARGUMENTS, make_readable, without_newer_arguments
from dropzoo.models.reference import FOLDER


def arguments(config: object) -> set[str]:
    """The names of all arguments in a config."""
    if isinstance(config, list):
        return set().union(*map(arguments, config))
    return set(config).union(*map(arguments, config.values())) if isinstance(config, dict) else set()


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("model.keras")), ids=lambda p: str(p.relative_to(FOLDER)))
def test_the_reference_files_have_only_what_the_oldest_keras_reads(path):
    with zipfile.ZipFile(path) as file:
        assert not arguments(json.loads(file.read("config.json"))) & set(NEWER_ARGUMENTS)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"renorm": False, "units": 3}, {"units": 3}),
        ({"renorm": True, "renorm_momentum": 0.9}, {"renorm": True, "renorm_momentum": 0.9}),
        ({"config": [{"input_axes": None}, {"input_axes": [0]}]}, {"config": [{}, {"input_axes": [0]}]}),
        ({"quantization_config": {"block_size": 8}}, {"quantization_config": {"block_size": 8}}),
        ([None, 0, "renorm", 0.99], [None, 0, "renorm", 0.99]),
    ],
)
def test_only_defaults_are_left_out(config, expected):
    assert without_newer_arguments(config) == expected


def test_a_file_is_the_same_model_afterwards(tmp_path):
    path = tmp_path / "model.keras"
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 2, kernel_initializer="he_normal")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(path)
    make_readable(path)
    loaded = keras.models.load_model(path)
    images = np.random.default_rng(0).random((2, 4, 4, 2), "float32")
    np.testing.assert_array_equal(loaded(images), model(images))
    with zipfile.ZipFile(path) as file:
        assert not arguments(json.loads(file.read("config.json"))) & set(NEWER_ARGUMENTS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
