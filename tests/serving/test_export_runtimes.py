"""Files of LiteRT and of OpenVINO give the answers of TensorFlow."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.serving.export import litert_file, openvino_file

SITE_LAYERS = [name for name in layers.list_layers(sites_only=True) if not name.endswith(("1d", "3d"))]


@pytest.fixture
def litert():
    pytest.importorskip("ai_edge_litert", reason="needs dropzoo[litert]")


@pytest.fixture
def openvino():
    pytest.importorskip("tf2onnx", reason="needs dropzoo[openvino]")
    return pytest.importorskip("openvino", reason="needs dropzoo[openvino]")


def tiny_unet(shape=(None, None, 1), layer=None):
    keras.utils.set_random_seed(0)
    first, second = [layer] * 2 if layer else ("spatial_dropout2d", "dropout")
    plan = {"encoder1_conv1": f"{first}:0.3", "decoder1_conv1": f"{second}:0.3"}
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
    for name in SITE_LAYERS:
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
    with pytest.raises(
        RuntimeError, match="'values' from the file of .* differs from that of TensorFlow.*Nothing was written"
    ):
        serving.export_model(model, path, 0, **options)
    assert not list(tmp_path.iterdir())


def check_openvino(openvino, model, folder, *batches, num_samples=3, atol=1e-5, **options):
    """Compares files of OpenVINO with the SavedModel: a mask that differs in one unit shows."""
    saved = serving.export_model(model, folder / "model", num_samples, **options)
    path = serving.export_model(model, folder / "a.xml", num_samples, format="openvino", **options)
    run = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [value.get_names() for value in run.inputs] == [{"images"}]
    signatures = tf.saved_model.load(saved).signatures
    for x in batches:
        found = {name: value for output, value in run({"images": x}).items() for name in output.get_names()}
        wanted = signatures["serving_default"](images=x) | signatures["predict_mc"](images=x)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


@pytest.mark.parametrize("sampling", ["fixed", pytest.param("balanced", marks=pytest.mark.slow)])
def test_openvino_samples_a_u_net_of_any_size(openvino, sampling, tmp_path):
    model, path = tiny_unet(), tmp_path / "a.xml"
    serving.export_model(model, path, 3, format="openvino", sampling=sampling)
    sampler = serving.MonteCarlo(model, 3, sampling)
    for x in (images(2, (11, 8)), images(3, (6, 7))):
        found = openvino_file.run(path, {"images": x})
        for name, value in sampler(x).items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_openvino_samples_a_cnn_by_content(openvino, tmp_path):
    model, path = small_cnn(scale=1.0), tmp_path / "a.xml"  # its softmax hides no mask
    serving.export_model(model, path, 3, format="openvino", sampling="balanced", seed=2**32 - 1)
    sampler = serving.MonteCarlo(model, 3, "balanced", seed=2**32 - 1)
    for x in (images(2), np.round(images(3)) - 1.0):
        found = openvino_file.run(path, {"images": x})
        for name, value in sampler(x).items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layer", SITE_LAYERS)
@pytest.mark.parametrize("family", ["unet", "cnn"])
def test_openvino_table_of_layers(openvino, family, layer, tmp_path):
    if family == "cnn":
        model, sizes = small_cnn({"module1": f"{layer}:0.3"}, input_shape=(64, 64, 1), scale=1.0), [(64, 64)]
    else:
        model, sizes = tiny_unet(layer=layer), [(64, 64), (30, 45), (61, 17)]
    check_openvino(openvino, model, tmp_path, *(images(2, size) for size in sizes))


@pytest.mark.parametrize(
    ("runtime", "task"),
    [
        ("openvino", "multi_class"),
        ("litert", "multi_class"),
        pytest.param("openvino", "regression", marks=pytest.mark.slow),
        ("litert", "regression"),
    ],
)
def test_samples_of_the_members_of_an_ensemble(runtime, task, request, tmp_path):
    request.getfixturevalue(runtime)
    members = [small_cnn(weights_seed=i, scale=1.0) for i in range(2)]
    ensemble = serving.Ensemble(members, task, num_samples=4, sampling="fixed", seed=9)
    path, x = tmp_path / f"a{'.xml' if runtime == 'openvino' else '.tflite'}", images(3)
    serving.export_model(ensemble, path, format=runtime)
    inputs = {"images": x}
    found = (
        openvino_file.run(path, inputs) if runtime == "openvino" else litert_file.run(path.read_bytes(), inputs)
    )
    for name, value in ensemble(x).items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
    mean = found["values" if task == "regression" else "probabilities"]
    np.testing.assert_allclose(mean, ensemble.without_dropout(x)["mean"], atol=1e-5)


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
def test_samples_of_a_regression_need_no_64_bits(runtime, request, tmp_path):
    """Values far from 0 keep the variance of their samples."""
    request.getfixturevalue(runtime)
    x = keras.Input((5,))
    far = keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(1000.0))
    model = keras.Model(x, far(layers.Dropout(0.3)(x)))
    path, given = tmp_path / f"a{'.xml' if runtime == 'openvino' else '.tflite'}", np.ones((3, 5), "float32")
    serving.export_model(model, path, 4, format=runtime, task="regression")
    inputs = {"images": given}
    found = (
        openvino_file.run(path, inputs) if runtime == "openvino" else litert_file.run(path.read_bytes(), inputs)
    )
    for name, value in serving.MonteCarlo(model, 4, "fixed", task="regression")(given).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3)
