"""`value_range`: the values in files that are black and white stay with the model, its file and its exports."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile

from dropzoo import serving, training
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import load_model, recorded
from dropzoo.runs.loading import load_model_for
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.limits import Limits

STORED = (-1000.0, 2000.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of CT: dark, and bright."""
    folder = tmp_path_factory.mktemp("ct")
    for number in range(8):
        values = np.random.default_rng(number).integers(-1000, 0, (6, 6)) + 1800 * (number % 2)
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        tifffile.imwrite(folder / "ab"[number % 2] / f"{number}.tif", values.astype("int16"))
    return folder


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    """A model that gives the mean of its image and 1 minus it, trained on the folder, as a `.keras` file."""
    pixels = keras.Input((6, 6, 1))
    mean = keras.layers.Dense(2, kernel_initializer="zeros")(keras.layers.GlobalAveragePooling2D()(pixels))
    model = keras.Model(pixels, mean)
    data = training.load_data(folder, value_range=STORED, test_split=0, validation_split=0, batch_size=4)
    training.Trainer(model, keras.optimizers.SGD(5.0)).fit(data.train, epochs=3, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


def test_the_file_of_the_model_knows_the_values(file, folder):
    assert recorded(load_model(file)) == Pixels(0, 1, None, None, None, "the training images", stored=STORED)
    predictor = load_predictor(file)
    image = next(folder.glob("b/*.tif"))
    expected = (tifffile.imread(image)[..., None].astype("float32") + 1000) / 3000
    np.testing.assert_allclose(predictor.read(image), expected, atol=1e-6)
    _, config, loaded = load_model_for(file, str(folder), split="all")
    assert config.value_range == STORED and loaded.info.num_test == 8


def test_an_export_reads_files_by_the_values_and_refuses_integers(file, folder, tmp_path):
    model = load_model(file)
    with pytest.raises(ValueError, match=r"black at -1000 and white at 2000 \(`value_range`\)"):
        serving.export_model(model, tmp_path / "no", 0, image_dtype="uint8")
    path = serving.export_model(model, tmp_path / "1", 0)
    image = next(folder.glob("b/*.tif"))
    np.testing.assert_allclose(load_predictor(path).read(image), load_predictor(file).read(image))

    deep = np.full((6, 6, 1), 1250, "uint16")
    png = tf.io.encode_png(deep).numpy()
    loaded = tf.saved_model.load(str(path))
    answers = loaded.signatures["predict_bytes"](image_bytes=tf.constant([png]))
    expected = keras.ops.softmax(model(np.full((1, 6, 6, 1), 0.75, "float32")))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
def test_the_server_reads_files_by_the_values(dtype):
    values = np.linspace(0, 2500, 36).reshape(6, 6, 1).astype(dtype)
    stream = io.BytesIO()
    tifffile.imwrite(stream, values)
    spec = tf.TensorSpec((None, 6, 6, 1))
    found = read_image(stream.getvalue(), spec, Limits(), Pixels(stored=STORED))
    np.testing.assert_allclose(found[0], np.clip((values.astype("float32") + 1000) / 3000, 0, 1), atol=1e-5)
