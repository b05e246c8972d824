"""Files of LiteRT and of OpenVINO give the answers of TensorFlow."""

import json
import zipfile

import keras
import numpy as np
import pytest

from _small_cnn import images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.serving.export import litert_file


@pytest.fixture
def litert():
    pytest.importorskip("ai_edge_litert", reason="needs dropzoo[litert]")


@pytest.fixture
def openvino():
    pytest.importorskip("tf2onnx", reason="needs dropzoo[openvino]")
    return pytest.importorskip("openvino", reason="needs dropzoo[openvino]")


def tiny_unet(shape=(None, None, 1)):
    keras.utils.set_random_seed(0)
    plan = {"encoder1_conv1": "spatial_dropout2d:0.3", "decoder1_conv1": "dropout:0.3"}
    return models.build_model("unet", input_shape=shape, depth=1, filters=2, dropout=plan)


def check(model, path, x, num_samples):
    """Compares a file of LiteRT with the sampler and one pass, whose masks are those of the SavedModel."""
    serving.export_model(model, path, num_samples, format="litert")
    found = litert_file.run(path.read_bytes(), {"images": x})
    for name, value in serving.MonteCarlo(model, num_samples, "fixed")(x).items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], keras.ops.softmax(model(x)), atol=1e-5)


def test_litert_samples_a_cnn(litert, tmp_path):
    path = tmp_path / "a.tflite"
    check(small_cnn(), path, images(2), 3)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("info.json"))["num_samples"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("shape, size", [((15, 10, 1), (15, 10)), ((None, None, 1), (13, 18))])
def test_litert_samples_a_u_net(litert, shape, size, tmp_path):
    check(tiny_unet(shape), tmp_path / "a.tflite", images(2, size), 3)


@pytest.mark.slow
def test_litert_samples_every_layer(litert, tmp_path):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((9, 7, 1))
    x = keras.layers.Conv2D(6, 3, padding="same")(x)
    for name in layers.list_layers(sites_only=True):
        if not name.endswith(("1d", "3d")):
            x = layers.get(f"{name}:0.1")(x)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    check(keras.Model(inputs, outputs), tmp_path / "a.tflite", images(2, (9, 7)), 2)


@pytest.mark.slow
def test_litert_in_eight_bits(litert, tmp_path):
    model, x = small_cnn(), images(20)
    with pytest.raises(ValueError, match="are required for precision"):
        serving.export_model(model, tmp_path / "a.tflite", 0, format="litert", precision="int8")
    with pytest.raises(ValueError, match="pass num_samples=0"):
        serving.export_model(model, tmp_path / "a.tflite", format="litert", precision="int8", examples=x)
    path = serving.export_model(model, tmp_path / "a.tflite", 0, format="litert", precision="int8", examples=x)
    found = litert_file.run(path.read_bytes(), {"images": x[:1]})
    np.testing.assert_allclose(found["probabilities"], keras.ops.softmax(model(x[:1])), atol=0.1)


@pytest.mark.parametrize(
    "precision, atol", [("float32", 1e-4), pytest.param("float16", 0.02, marks=pytest.mark.slow)]
)
def test_openvino_gives_the_deterministic_answer(openvino, precision, atol, tmp_path):
    model, x = tiny_unet(), images(2, (13, 18))
    path = serving.export_model(model, tmp_path / "a.xml", 0, format="openvino", precision=precision)
    assert {file.name for file in tmp_path.iterdir()} == {"a.xml", "a.bin"}
    found = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"images": x})
    np.testing.assert_allclose(found["probabilities"], keras.ops.softmax(model(x)), atol=atol)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_openvino_runs_the_very_file_before_it_stands(openvino, precision, tmp_path):
    """A weight that half precision cannot hold is cut to 65504."""
    x = keras.Input((4,))
    kernel = keras.initializers.Constant([[1.0], [2.0], [3.0], [1e6]])
    model, path = keras.Model(x, keras.layers.Dense(1, kernel_initializer=kernel)(x)), tmp_path / "a.xml"
    options = {"task": "regression", "format": "openvino", "precision": precision}
    if precision == "float32":
        serving.export_model(model, path, 0, **options)
        assert {file.name for file in tmp_path.iterdir()} == {"a.xml", "a.bin"}
        return
    with pytest.raises(RuntimeError, match="would give another 'values' than TensorFlow.*Nothing was written"):
        serving.export_model(model, path, 0, **options)
    assert not list(tmp_path.iterdir())


def test_openvino_says_that_it_cannot_draw_masks(openvino, tmp_path):
    with pytest.raises(ValueError, match="num_samples=0 for the deterministic answer.*format='onnx'"):
        serving.export_model(tiny_unet(), tmp_path / "a.xml", 2, format="openvino")
