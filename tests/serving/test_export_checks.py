"""The check before a file is written: the batch that both runtimes get, and the differences that it finds."""

import keras
import numpy as np
import pytest

from dropzoo.common.pixels import Pixels
from dropzoo.serving.export import files
from dropzoo.serving.export.inputs import Input


@pytest.mark.parametrize(
    "dtype, model_dtype, pixels, low, high",
    [
        ("float32", "float32", Pixels(0, 255), 0, 255),
        ("float32", "float32", Pixels(-1, 1), -1, 1),
        ("float32", "float32", None, 0, 1),
        ("uint8", "float32", Pixels(), 0, 255),
        ("uint16", "float32", Pixels(), 0, 65535),
        ("uint8", "float32", None, 0, 255),
        ("int32", "int32", None, 0, 1),
        ("bool", "bool", None, 0, 1),
    ],
)
def test_the_batch_has_the_range_of_the_input(dtype, model_dtype, pixels, low, high):
    (x,) = files.example_of([Input("x", "x_bytes", (None, 20, 20, 3), model_dtype, dtype, pixels)]).values()
    assert x.dtype == dtype and x.shape == (2, 20, 20, 3)
    assert low <= x.min() <= low + 0.05 * (high - low) and high - 0.05 * (high - low) <= x.max() <= high


@pytest.mark.parametrize(
    "precision, size", [("float32", 1e-5), ("float32", 1.0), ("float32", 1e4), ("float16", 1e-3), ("float16", 1.0)]
)
def test_small_values_are_compared_too(precision, size):
    wanted = {"variance": size * np.random.default_rng(0).random((2, 50)).astype("float32")}
    files.compare(wanted, {"variance": wanted["variance"] * (1 + 1e-6)}, "onnx", precision)
    for other in (np.zeros_like(wanted["variance"]), wanted["variance"][::-1]):
        with pytest.raises(RuntimeError, match="'variance' from the file of .* differs from that of TensorFlow"):
            files.compare(wanted, {"variance": other}, "onnx", precision)


def test_a_model_of_tokens(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs dropzoo[onnx]")
    pytest.importorskip("tf2onnx", reason="needs dropzoo[onnx]")
    from dropzoo import serving

    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    path = serving.export_model(model, tmp_path / "a.onnx", 0, format="onnx")
    tokens = np.arange(12, dtype="int32").reshape(2, 6)
    found = onnxruntime.InferenceSession(path).run(["probabilities"], {"tokens": tokens})
    np.testing.assert_allclose(found[0], model(tokens), atol=1e-5)
