"""The layers, models and rate schedules on Keras' other backends, each in a process of its own.

The rule: one seed gives the same masks on TensorFlow, JAX and PyTorch, small and large, in the first call and in
the next; a new rate acts in a running `fit`. `make test-backends` installs the backends.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dropzoo import layers

BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not importlib.util.find_spec(name), reason=f"{name} is absent: make test-backends"
        ),
    )
    for name in ("jax", "torch")
]

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
def made(name):
    if name in others():
        return others()[name]
    if name == "shared":
        return layers.Dropout(0.3, (None, 1, None, 1), seed=7)
    if name == "standard":
        return layers.Dropout(0.3, seed=2**31 - 5, scaling="standard")
    return layers.get({"name": name, "rate": 0.4, "seed": 3})
def answers():
    import numpy as np
    out = {}
    names = [*layers.list_layers(sites_only=True), *others(), "shared", "standard"]
    for size in (7, 40):
        x = np.random.default_rng(0).normal(size=(5, size, 30, 8)).astype("float32")
        for name in names:
            layer = made(name)
            given = {"spatial_dropout1d": x[:, :, 0], "spatial_dropout3d": x[:, :, :, None]}.get(name, x)
            for call in ("first", "second", "inference"):
                found = layer(keras.ops.convert_to_tensor(given), training=call != "inference")
                out[f"{name} {size} {call}"] = keras.ops.convert_to_numpy(found)
    return out
"""

LAYERS = (
    MAKERS
    + """
import sys
import numpy as np
np.savez(sys.argv[1], **answers())
"""
)

FIT = """
import json, sys
import keras, numpy as np
from dropzoo import layers, models, training
x, y = np.random.default_rng(0).random((32, 9, 7, 1), "float32"), np.arange(32) % 2
options = {"input_shape": (9, 7, 1), "num_classes": 2, "filters": (4,)}
plan = {"module1": "drop_block2d:0.1,block_size=3", "head": 0.2}
model = models.build_model("simple_cnn", dropout=plan, **options)
model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
unet = models.build_model("unet", depth=2, filters=4, dropout="paper")
unet.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
unet.fit(x, np.zeros((32, 9, 7), "int32"), verbose=0)

@keras.saving.register_keras_serializable("tests")
class Kept(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.cast(y_pred != 0, "float32"), -1)

inputs = keras.Input((4000,))
model = keras.Model(inputs, layers.Dropout(0.0, seed=1, name="units_dropout")(inputs))
model.compile("sgd", Kept())
ones = np.ones((32, 4000), "float32")
rates = training.RateSchedule({"units": lambda progress: 0.9 * progress})
history = model.fit(ones, ones, batch_size=8, epochs=3, verbose=0, callbacks=[rates]).history
layer = model.get_layer("units_dropout")
layer.rate = 0.5
share = float((keras.ops.convert_to_numpy(model(ones, training=True)) != 0).mean())
assert (model.count_params(), model.weights) == (0, [])
print(json.dumps({"kept": history["loss"], "rates": history["rate/units"], "share": share}))
"""

OWN_CODE = """
import keras, numpy as np
from dropzoo import layers
inputs = keras.Input((40,))
model = keras.Model(inputs, keras.layers.Dense(1)(layers.Dropout(0.3, name="units")(inputs)))
model.compile("sgd", "mse")
layer, x, y = model.get_layer("units"), np.ones((32, 40), "float32"), np.ones((32, 1), "float32")
class Own(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            self.model.get_layer("units").rate = 0.5
model.fit(x, y, batch_size=8, verbose=0, callbacks=[Own()])
assert layer.rate == 0.5

def batches():
    for rate in (0.1, 0.2, 0.3):
        yield x, y
        layer.rate = rate
try:
    model.fit(batches(), steps_per_epoch=3, verbose=0)
except RuntimeError as error:
    assert keras.backend.backend() == "jax" and "can only be set in a callback" in str(error), error
else:
    assert keras.backend.backend() != "jax"
"""

NEEDS_TENSORFLOW = """
import keras
from dropzoo import models, serving, training
model = models.build_model("lenet5", dropout={"dense1": 0.5})
for make in (training.Trainer, serving.MonteCarlo, lambda m: serving.export_model(m, "never/1")):
    try:
        make(model)
    except RuntimeError as error:
        assert "needs Keras' TensorFlow backend" in str(error) and "KERAS_BACKEND=tensorflow" in str(error), error
    else:
        raise AssertionError(make)
"""


def run(backend: str, script: str, *args: str) -> str:
    env = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script, *args], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def here() -> dict[str, np.ndarray]:
    scope: dict = {}
    exec(MAKERS, scope)
    return scope["answers"]()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_masks_are_those_of_tensorflow(backend, here, tmp_path):
    run(backend, LAYERS, str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as there:
        assert set(there) == set(here) and set(layers.list_layers()) <= {name.split()[0] for name in there}
        for name, expected in here.items():
            np.testing.assert_allclose(there[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
            np.testing.assert_array_equal(there[name] == 0, expected == 0, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_fit_and_rates_are_live(backend):
    found = json.loads(run(backend, FIT).splitlines()[-1])
    # Rates rise from 0 to 0.825 in twelve steps; the loss of an epoch is the mean share of its four steps.
    np.testing.assert_allclose(found["kept"], [1 - 0.1125, 1 - 0.4125, 1 - 0.7125], atol=0.01)
    np.testing.assert_allclose([*found["rates"], found["share"]], [0.225, 0.525, 0.825, 0.5], atol=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_callback_sets_rates_and_what_fit_would_not_see_is_refused(backend):
    run(backend, OWN_CODE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_needs_tensorflow_says_so(backend):
    run(backend, NEEDS_TENSORFLOW)


def test_the_layers_import_no_other_backend():
    """Only the modules of a backend import it."""
    folder = Path(layers.__file__).parent / "draws"
    for name in ("jax", "torch"):
        users = [p.name for p in folder.glob("*.py") if f"import {name}\n" in p.read_text()]
        assert users == [f"{name}.py"]
