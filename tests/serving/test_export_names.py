"""The names in a file of ONNX: inputs and outputs that the user names, and axes."""

import keras
import numpy as np
import pytest

from dropzoo import layers, serving

onnxruntime = pytest.importorskip("onnxruntime", reason="needs dropzoo[onnx]")
pytest.importorskip("tf2onnx", reason="needs dropzoo[onnx]")


def named(first, second, outputs):
    """A model of images of any size, whose samples need a loop, and of a number."""
    image, number = keras.Input((None, None, 1), name=first), keras.Input((1,), name=second)
    x = layers.SpatialDropout2D(0.4)(keras.layers.Conv2D(3, 1)(image))
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), number])
    return keras.Model([image, number], {name: keras.layers.Dense(2, "softmax", name=name)(x) for name in outputs})


@pytest.mark.parametrize("names", [("total_area", "turns"), ("sum_0", "shared_0")])
def test_names_of_the_user(names, tmp_path):
    model = named(*names, ["shared", "shared_x"])
    path = serving.export_model(model, tmp_path / "a.onnx", 2, format="onnx")
    batch = {
        names[0]: np.random.default_rng(0).random((2, 4, 5, 1), "float32"),
        names[1]: np.ones((2, 1), "float32"),
    }
    session = onnxruntime.InferenceSession(path)
    assert "sampled" in {x.name for x in session.get_overridable_initializers()}
    found = dict(zip([x.name for x in session.get_outputs()], session.run(None, batch), strict=True))
    for name, value in serving.MonteCarlo(model, 2, "fixed")(batch).items():
        np.testing.assert_allclose(found[f"{name}_mean"], value["mean"], atol=1e-5)


def test_a_name_that_the_file_needs(tmp_path):
    with pytest.raises(ValueError, match="can be called sampled.*Rename the `keras.Input`"):
        serving.export_model(named("image", "sampled", ["a"]), tmp_path / "a.onnx", 2, format="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shape, axes",
    [((None, None, 1), ["batch", "height", "width", 1]), ((1, None, None), ["batch", 1, "height", "width"])],
)
def test_names_of_axes(shape, axes, tmp_path):
    inputs = keras.Input(shape)
    x = keras.layers.Permute((2, 3, 1))(inputs) if shape[0] == 1 else inputs
    x = keras.layers.Dense(2, "softmax")(keras.layers.AveragePooling2D(2)(x))
    path = serving.export_model(keras.Model(inputs, x), tmp_path / "a.onnx", 0, format="onnx")
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape == axes
    for output in session.get_outputs():
        assert output.shape[0] == "batch" and not {"height", "width"} & set(output.shape)
