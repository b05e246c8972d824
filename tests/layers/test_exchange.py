"""Models with our layers leave as SavedModels and for LiteRT, and give there what they gave here."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers

SHAPE = (2, 9, 5, 4)
OTHERS = {
    "drop_connect_dense": lambda: layers.DropConnectDense(3, rate=0.3),
    "drop_connect_conv2d": lambda: layers.DropConnectConv2D(3, 3, rate=0.3, padding="same", activation="relu"),
    "max_pool_dropout2d": lambda: layers.MaxPoolDropout2D(0.3, (3, 2), padding="same"),
    "stochastic_pooling2d": lambda: layers.StochasticPooling2D((3, 2), padding="SAME"),  # Keras takes it
    "concrete_dropout": lambda: layers.ConcreteDropout(keras.layers.Conv2D(3, 3), data_size=10),
}


def all_site_layers() -> keras.Sequential:
    names = set(layers.list_layers(sites_only=True)) - {"spatial_dropout1d", "spatial_dropout3d"}
    return keras.Sequential([layers.get({"name": name, "rate": 0.3}) for name in sorted(names)])


def test_every_other_layer_is_here():
    assert set(OTHERS) == set(layers.list_layers()) - set(layers.list_layers(sites_only=True))


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("make", [all_site_layers, *OTHERS.values()], ids=["sites", *OTHERS])
def test_saved_model_and_lite_give_what_the_model_gives(make, tmp_path):
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, make()(inputs))
    x = np.random.default_rng(0).random(SHAPE, "float32")
    expected = model(x)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-6, atol=1e-7)
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its successor, ai-edge-litert, is a package of its own
        interpreter = tf.lite.Interpreter(model_content=content)
    (here,), (there,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(here["index"], SHAPE)
    interpreter.allocate_tensors()
    interpreter.set_tensor(here["index"], x)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(there["index"]), expected, rtol=1e-5, atol=1e-6)
