"""One file of ONNX gives the answers of the SavedModel: deterministic, sampled and calibrated, at every size."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import small_cnn
from dropzoo import layers, models, serving

onnxruntime = pytest.importorskip("onnxruntime", reason="needs dropzoo[onnx]")
pytest.importorskip("tf2onnx", reason="needs dropzoo[onnx]")
SITE_LAYERS = [name for name in layers.list_layers(sites_only=True) if not name.endswith(("1d", "3d"))]
SIZES = ((64, 64), (30, 45), (61, 17))


def unet(dropout="dropout:0.3", shape=(None, None, 1)):
    keras.utils.set_random_seed(0)
    plan = {"encoder1_conv1": dropout, "decoder1_conv1": dropout}
    return models.build_model("unet", input_shape=shape, depth=1, filters=2, dropout=plan)


def answers_of_file(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def answers_of_saved_model(path, **inputs):
    signatures = tf.saved_model.load(path).signatures
    wanted = signatures["serving_default"](**{name: tf.constant(x) for name, x in inputs.items()})
    if "predict_mc" in signatures:
        wanted |= signatures["predict_mc"](**{name: tf.constant(x) for name, x in inputs.items()})
    return wanted


def check(model, folder, *batches, atol=1e-5, num_samples=3, **options):
    """Exports a model twice, and compares the answers for some batches."""
    saved = serving.export_model(model, folder / "model", num_samples, **options)
    path = serving.export_model(model, folder / "model.onnx", num_samples, format="onnx", **options)
    for batch in batches:
        inputs = batch if isinstance(batch, dict) else {"images": batch}
        wanted, found = answers_of_saved_model(saved, **inputs), answers_of_file(path, **inputs)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            assert found[name].shape == value.shape, name
            np.testing.assert_allclose(np.asarray(found[name], "f8"), np.asarray(value, "f8"), atol=atol)
    return path


def images(*size, channels=1, batch=2, dtype="float32"):
    values = np.random.default_rng(0).random((batch, *size, channels))
    return values.astype(dtype) if dtype == "float32" else (values * 255).astype(dtype)


@pytest.mark.parametrize("sampling", ["fixed", pytest.param("balanced", marks=pytest.mark.slow)])
def test_u_net_of_any_size(sampling, tmp_path):
    path = check(unet(), tmp_path, images(11, 8), images(6, 7, batch=3), sampling=sampling)
    session = onnxruntime.InferenceSession(path)
    off = session.run(["probabilities"], {"images": images(6, 7), "sampled": np.array(False)})
    np.testing.assert_array_equal(off, session.run(["probabilities"], {"images": images(6, 7)}))
    assert [x.name for x in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 1]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["info"])["num_samples"] == 3
    assert json.loads(facts["model_card"])["monte_carlo"]["sampling"] == sampling
    assert [file.name for file in tmp_path.iterdir() if "unfinished" in file.name] == []


def test_small_cnn_folds_its_samples(tmp_path):
    """Samples that fit in memory together need no loop."""
    import onnx

    path = check(small_cnn(), tmp_path, images(8, 8), seed=7, class_names=list("abcd"))
    assert "Loop" not in {node.op_type for node in onnx.load(path).graph.node}


def test_a_loop_holds_no_copy_and_hashes_once(tmp_path):
    """Kernels that the loop and the single pass share are stored once; the hash of a unit is for all samples."""
    import onnx

    path = serving.export_model(unet(), tmp_path / "a.onnx", 3, format="onnx", sampling="balanced")
    (loop,) = (node for node in onnx.load(path).graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    assert not [constant.name for constant in body.initializer if np.prod(constant.dims) > 8]
    (first,) = (node for node in body.node if node.op_type == "If")  # of the decoder, whose maps arise in the loop
    hashes = [[node.op_type for node in branch.g.node] for branch in first.attribute]
    assert sorted(each.count("BitwiseXor") > 5 for each in hashes) == [False, True]


def test_pixels_of_files_and_resized_images(tmp_path):
    options = {"image_dtype": "uint8", "resize": (8, 8)}
    check(small_cnn(), tmp_path, images(13, 9, dtype="uint8"), images(5, 20, dtype="uint8"), **options)
    with pytest.raises(ValueError, match="other runtimes round them differently"):
        serving.export_model(small_cnn(), tmp_path / "a.onnx", 2, format="onnx", sampling="balanced", **options)


def test_regression_and_several_outputs(tmp_path):
    inputs = {"photo": keras.Input((6, 6, 1), name="photo"), "table": keras.Input((3,), name="table")}
    flat = layers.GaussianDropout(0.3)(keras.layers.Flatten()(inputs["photo"]))
    x = layers.Dropout(0.4)(keras.layers.Dense(5, "relu")(keras.layers.Concatenate()([flat, inputs["table"]])))
    outputs = {"prob": keras.layers.Dense(1)(x), "dist": keras.layers.Dense(2)(x)}
    batch = {"photo": images(6, 6), "table": np.ones((2, 3), "float32")}
    task = {"prob": "binary", "dist": "regression"}
    check(keras.Model(inputs, outputs), tmp_path, batch, task=task, from_logits={"prob": True})


@pytest.mark.slow
def test_ensemble_and_calibration(tmp_path):
    x, labels = images(8, 8, batch=40), np.arange(40) % 4
    members = serving.Ensemble([small_cnn(weights_seed=i) for i in range(2)])
    check(members, tmp_path / "two", x[:3], num_samples=2)
    small = [small_cnn(weights_seed=i, scale=1.0) for i in range(2)]
    for task in ("multi_class", "regression"):
        samples = serving.Ensemble(small, task, num_samples=6, sampling="balanced", seed=1)
        check(samples, tmp_path / task, x[:3], num_samples=6, atol=1e-4)
    model = small_cnn()
    found = serving.calibrate(serving.MonteCarlo(model, 3), x, labels, guarantee={"set": 0.3})
    path = check(model, tmp_path / "one", x[:3], num_samples=3, calibration=found)
    assert "set" in answers_of_file(path, images=x[:3])


@pytest.mark.slow
def test_float16_halves_the_file(tmp_path):
    model, x = small_cnn(filters=(32,), dense=(256,)), images(8, 8)
    path = serving.export_model(model, tmp_path / "a.onnx", 2, format="onnx")
    half = serving.export_model(model, tmp_path / "b.onnx", 2, format="onnx", precision="float16")
    assert half.stat().st_size < 0.75 * path.stat().st_size
    wanted, found = (answers_of_file(each, images=x) for each in (path, half))
    np.testing.assert_allclose(found["mean"], wanted["mean"], atol=0.02)


@pytest.mark.slow
def test_deterministic_answer_alone(tmp_path):
    path = check(unet(dropout="dropout:0.2"), tmp_path, images(5, 9), num_samples=0)
    assert set(answers_of_file(path, images=images(5, 9))) == {"probabilities", "classes"}


def test_layers_that_only_tensorflow_can_sample(tmp_path):
    inputs = keras.Input((4, 3))
    recurrent = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LSTM(3, dropout=0.3)(inputs)))
    with pytest.raises(ValueError, match="Only a SavedModel can sample lstm.*num_samples=0"):
        path = tmp_path / "a.onnx"
        serving.export_model(recurrent, path, 2, format="onnx", from_logits=True, sampling="independent")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("layer", SITE_LAYERS)
@pytest.mark.parametrize("family", ["unet", "cnn"])
def test_table_of_layers(family, layer, tmp_path):
    if family == "cnn":
        model = small_cnn({"module1": f"{layer}:0.3"}, input_shape=(64, 64, 1))
        batches = [images(64, 64)]
    else:
        model, batches = unet(f"{layer}:0.3"), [images(*size) for size in SIZES]
    check(model, tmp_path, *batches, atol=1e-4)
