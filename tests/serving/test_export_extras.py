"""Preprocessing inside an export, its warm-up requests and model card, and other runtimes that can read it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from _small_cnn import small_cnn
from dropzoo import models, serving


def tiny_unet(input_shape=(None, None, 1), **options):
    return models.build_model(
        "unet", input_shape=input_shape, num_classes=3, depth=1, filters=4, dropout={"head": 0.3}, **options
    )


def load(path):
    return tf.saved_model.load(str(path))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


@pytest.mark.costly(keep=0)
def test_resize_brings_any_image_to_the_models_size(tmp_path):
    model, x = small_cnn(), pixels(2, 20, 13, 1)
    path = serving.export_model(model, tmp_path / "1", 3, image_dtype="uint8", resize=8)
    loaded, small = load(path), tf.image.resize(x / np.float32(255), (8, 8), antialias=True)
    found = loaded.signatures["serving_default"](images=x)["probabilities"]
    np.testing.assert_allclose(found, tf.nn.softmax(model(small)), atol=1e-6)
    sampled = loaded.signatures["predict_mc"](images=x)
    for key, value in serving.MonteCarlo(model, 3, "fixed")(small).items():
        np.testing.assert_allclose(sampled[key], value, atol=1e-5)


@pytest.mark.costly(keep=0)
def test_masks_come_back_in_the_size_of_the_image(tmp_path):
    loaded = load(serving.export_model(tiny_unet(), tmp_path / "1", 3, resize=(8, 12)))
    x = pixels(2, 19, 30, 1) / np.float32(255)
    out = loaded.signatures["serving_default"](images=x) | loaded.signatures["predict_mc"](images=x)
    for key, value in out.items():
        assert value.shape[:3] == (2, 19, 30), key
    np.testing.assert_allclose(tf.reduce_sum(out["mean"], -1), 1, atol=1e-5)
    np.testing.assert_array_equal(out["classes"], tf.argmax(out["probabilities"], -1))


@pytest.mark.costly(keep=2)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_dtype", ["float32", "uint8"])
def test_encoded_images_are_answered_as_their_pixels(image_dtype, channels, tmp_path):
    x = pixels(2, 8, 8, channels)
    model = small_cnn(input_shape=(8, 8, channels))
    loaded = load(serving.export_model(model, tmp_path / "1", 0, image_dtype=image_dtype))
    given = x if image_dtype == "uint8" else x / np.float32(255)
    expected = loaded.signatures["serving_default"](images=given)
    found = loaded.signatures["predict_bytes"](image_bytes=[png(image) for image in x])
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=1e-6)
    grey_jpeg = tf.io.encode_jpeg(pixels(30, 17, 1), quality=95)  # another size, format and number of channels
    assert loaded.signatures["predict_bytes"](image_bytes=[grey_jpeg])["classes"].shape == (1,)


def test_encoded_images_of_any_size_where_the_model_takes_any(tmp_path):
    model, x = tiny_unet(), pixels(2, 9, 7, 1)
    loaded = load(serving.export_model(model, tmp_path / "1", 0))
    found = loaded.signatures["predict_bytes"](image_bytes=[png(image) for image in x])
    np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(model(x / np.float32(255))), atol=1e-6)


@pytest.mark.costly(keep=0)
def test_a_name_without_a_version_means_the_next(tmp_path):
    for expected in ("1", "2"):
        assert serving.export_model(small_cnn(), tmp_path / "cnn", 0).name == expected
    assert serving.export_model(small_cnn(), tmp_path / "cnn" / "10", 0).name == "10"
    assert serving.export_model(small_cnn(), tmp_path / "cnn", 0) == tmp_path / "cnn" / "11"
    assert sorted(p.name for p in (tmp_path / "cnn").iterdir()) == ["1", "10", "11", "2"]
    with pytest.raises(ValueError, match="overwrite=True needs the path of the version to replace"):
        serving.export_model(small_cnn(), tmp_path / "cnn", 2, overwrite=True)


@pytest.mark.costly(keep=0)
def test_model_card(tmp_path):
    told = {"data": "digits", "metrics": {"accuracy": 0.98765}, "limits": "A | B", "commit": "abc"}
    path = serving.export_model(small_cnn(), tmp_path / "1", 2, class_names=list("abcd"), card=told, resize=8)
    card = json.loads((path / "assets.extra" / "model_card.json").read_text())
    assert card["plan"] == {"module1": "dropout:0.3", "dense1": "dropout:0.3"} and card["data"] == "digits"
    assert card["monte_carlo"] == {"num_samples": 2, "sampling": "fixed", "seed": 0}
    assert card["input"].pop("pixels").startswith("0 to 1 (assumed") and card["input"].pop("bits") is None
    assert card["input"] == {"shape": [None, None, 1], "dtype": "float32", "resize": [8, 8], "order": None}
    assert card["calibration"] is None and card["classes"] == list("abcd")
    assert set(card["versions"]) == {"dropzoo", "keras", "tensorflow"}
    text = (path / "assets.extra" / "model_card.md").read_text()
    assert "## Calibration\n\nNot given." in text and "| accuracy | 0.9877 |" in text and "A \\| B" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 9}, r"`resize` must be the model's size, \(8, 8\). Received: resize=9"),
        ({"resize": (8, 0)}, "`resize` must be a positive int or a pair"),
        ({"class_names": ["a", "b"]}, "`class_names` must have 4 names. Received: 2"),
        (
            {"card": {"plan": "mine"}},
            "`card` must not contain sections that the export fills in itself. Received: plan",
        ),
        ({"card": {"metrics": {"nll": float("nan")}}}, "`card` must hold only values that JSON can express"),
        ({"card": {"data": object()}}, "`card` must hold only values that JSON can express"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export_model(small_cnn(), tmp_path / "1", 2, **options)
    assert not list(tmp_path.iterdir())


def replay(path, parse) -> set[tuple[str, int]]:
    """Every warm-up request, sent to the signature it is for."""
    loaded, seen = load(path), set()
    for record in tf.data.TFRecordDataset(str(path / "assets.extra" / "tf_serving_warmup_requests")):
        name, signature, inputs = parse(record.numpy())
        assert name == path.parent.name
        answer = loaded.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})
        seen.add((signature, len(next(iter(answer.values())))))
    return seen


def message(name: str, *fields: tuple[str, int, str]) -> descriptor_pb2.DescriptorProto:
    """A message of strings, bytes, or messages by name; on the wire repeated fields look like single ones."""
    made, kinds = descriptor_pb2.DescriptorProto(name=name), descriptor_pb2.FieldDescriptorProto
    for field, number, kind in fields:
        plain = {"string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES}.get(kind)
        made.field.add(name=field, number=number, type=plain or kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED)
        if not plain:
            made.field[-1].type_name = f".t.{kind}"
    return made


def parsed_by_descriptors(record: bytes):
    """With the field numbers of prediction_log.proto, predict.proto and model.proto, written down once more."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.extend(
        [
            message("Log", ("predict_log", 6, "PredictLog")),
            message("PredictLog", ("request", 1, "Request")),
            message("Request", ("model_spec", 1, "Spec"), ("inputs", 2, "Entry")),
            message("Spec", ("name", 1, "string"), ("signature_name", 3, "string")),
            message("Entry", ("key", 1, "string"), ("value", 2, "bytes")),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    log = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Log")).FromString(record)
    (request,) = log.predict_log[0].request
    tensors = {
        e.key[0]: tf.make_ndarray(type(tf.make_tensor_proto(0)).FromString(e.value[0])) for e in request.inputs
    }
    return request.model_spec[0].name[0], request.model_spec[0].signature_name[0], tensors


def parsed_by_tensorflow_serving(record: bytes):
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api")
    parsed = log.PredictionLog.FromString(record)
    assert parsed.WhichOneof("log_type") == "predict_log"
    request = parsed.predict_log.request
    tensors = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
    return request.model_spec.name, request.model_spec.signature_name, tensors


@pytest.fixture(scope="module", params=[small_cnn, tiny_unet])
def bytes_export(request, tmp_path_factory):
    """An export of each that takes uint8."""
    folder = tmp_path_factory.mktemp("bytes") / "a_name"
    return serving.export_model(request.param(), folder, 2, image_dtype="uint8")


@pytest.mark.parametrize("parse", [parsed_by_descriptors, parsed_by_tensorflow_serving])
def test_warm_up_requests_can_be_replayed(bytes_export, parse):
    names = ("serving_default", "predict_mc", "predict_bytes")
    assert replay(bytes_export, parse) == {(name, count) for name in names for count in (1, 4)}


@pytest.mark.costly(keep=0)
def test_litert_agrees_on_the_deterministic_signature(tmp_path):
    x = np.random.default_rng(0).random((1, 16, 16, 1), "float32")
    path = serving.export_model(tiny_unet((16, 16, 1)), tmp_path / "1", 0)
    converted = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=["serving_default"]).convert()
    with pytest.warns(UserWarning, match="tf.lite.Interpreter is deprecated|Please use the LiteRT interpreter"):
        interpreter = tf.lite.Interpreter(model_content=converted)
    found = interpreter.get_signature_runner("serving_default")(images=x)
    for key, value in load(path).signatures["serving_default"](images=x).items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)


@pytest.mark.parametrize("model", [lambda: small_cnn(input_shape=(9, 7, 1)), tiny_unet])
def test_openvino_loads_it_and_agrees(model, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    x = np.random.default_rng(0).random((2, 9, 7, 1), "float32")
    path = serving.export_model(model(), tmp_path / "1", 0)
    full = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(openvino.convert_model(str(path)), "CPU", full)({"images": x})
    for key, value in load(path).signatures["serving_default"](images=x).items():
        np.testing.assert_allclose(found[key], value, atol=1e-4)


def test_onnx_agrees(tmp_path):
    """tf2onnx converts the function; onnxruntime runs it."""
    tf2onnx = pytest.importorskip("tf2onnx", reason="needs tf2onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    x = np.random.default_rng(0).random((2, 8, 8, 1), "float32")
    loaded = load(serving.export_model(small_cnn(), tmp_path / "1", 2))
    default = loaded.signatures["serving_default"]
    whole = tf.function(lambda images: default(images=images))
    graph, _ = tf2onnx.convert.from_function(whole, [tf.TensorSpec([None, 8, 8, 1], tf.float32, "images")])
    session = runtime.InferenceSession(graph.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))
    np.testing.assert_allclose(found["probabilities"], default(images=x)["probabilities"], atol=1e-4)
