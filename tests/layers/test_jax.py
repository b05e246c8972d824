"""The layers and models on Keras' JAX backend, in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from dropzoo import layers

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")

MAKERS = """
import keras
from dropzoo import layers
def others():
    ones = {"kernel_initializer": "ones", "seed": 3}
    dense = keras.layers.Dense(3, kernel_initializer="ones")
    return {
        "drop_connect_dense": layers.DropConnectDense(3, rate=0.4, **ones),
        "drop_connect_conv2d": layers.DropConnectConv2D(3, 2, rate=0.4, **ones),
        "max_pool_dropout2d": layers.MaxPoolDropout2D(0.4, (3, 2), padding="same", seed=3),
        "stochastic_pooling2d": layers.StochasticPooling2D((3, 2), padding="same", seed=3),
        "concrete_dropout": layers.ConcreteDropout(dense, data_size=10, seed=3),
    }
"""

LAYERS = (
    MAKERS
    + """
import sys
import numpy as np
x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(6, 9, 5, 8)).astype("float32"))
out = {}
for name in layers.list_layers(sites_only=True):
    if name not in ("spatial_dropout1d", "spatial_dropout3d"):
        layer = layers.get({"name": name, "rate": 0.4, "seed": 3})
        assert np.array_equal(layer(x), layer.infer(x)), name
        out[name] = np.asarray(layer(x, training=True))
for name, layer in others().items():
    out[name] = np.asarray(layer(x, training=True))
    out[name + " inference"] = np.asarray(layer(x))
np.savez(sys.argv[1], **out)
"""
)

FIT = """
import warnings
import keras, numpy as np
from dropzoo import models
x, y = np.random.default_rng(0).random((32, 9, 7, 1), "float32"), np.arange(32) % 2
options = {"input_shape": (9, 7, 1), "num_classes": 2, "filters": (4,)}
plan = {"module1": "drop_block2d:0.1,block_size=3", "head": 0.2}
model = models.build_model("simple_cnn", dropout=plan, **options)
model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
unet = models.build_model("unet", depth=2, filters=4, dropout="paper")
unet.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
unet.fit(x, np.zeros((32, 9, 7), "int32"), verbose=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.get_layer("head_dropout").rate = 0.5
assert any("not live on the jax backend" in str(w.message) for w in caught)
assert model.get_layer("head_dropout").rate == 0.5
"""


def run(script: str, *args: str) -> None:
    env = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", script, *args], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_masks_are_those_of_tensorflow(tmp_path):
    run(LAYERS, str(tmp_path / "out.npz"))
    x = np.random.default_rng(0).normal(size=(6, 9, 5, 8)).astype("float32")
    with np.load(tmp_path / "out.npz") as out:
        assert set(layers.list_layers()) - set(out) == {"spatial_dropout1d", "spatial_dropout3d"}
        scope: dict = {}
        exec(MAKERS, scope)
        others = scope["others"]()
        for name, there in out.items():
            kind, _, inference = name.partition(" ")
            layer = others.get(kind) or layers.get({"name": kind, "rate": 0.4, "seed": 3})
            here = layer(x, training=not inference)
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4, err_msg=name)


def test_models_fit():
    run(FIT)
