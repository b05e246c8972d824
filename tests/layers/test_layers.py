"""What is particular to one layer, and the registry."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers
from dropzoo.layers import _registry


def test_names_are_those_keras_would_give():
    for name in layers.list_layers(sites_only=True):
        layer = layers.get({"name": name, "rate": 0.2})
        assert layer.name.startswith(name)
        assert layers.describe(layer) == f"{name}:0.2"


@pytest.mark.parametrize(
    ("spec", "description"),
    [
        (0.3, "dropout:0.3"),
        (0, "dropout:0.0"),
        ("spatial_dropout2d:0.2", "spatial_dropout2d:0.2"),
        ("drop_block2d:0.1,block_size=5", "drop_block2d:0.1,block_size=5"),
        ("drop_block2d:0.1,block_size=(3, 5)", "drop_block2d:0.1,block_size=(3, 5)"),
        ("drop_block2d: rate=0.1, data_format=channels_first", "drop_block2d:0.1,data_format=channels_first"),
        ({"name": "alpha_dropout", "rate": 0.4}, "alpha_dropout:0.4"),
        (layers.DropBlock2D(0.1, 3), "drop_block2d:0.1,block_size=3"),
    ],
)
def test_get_and_describe_are_inverse(spec, description):
    layer = layers.get(spec)
    assert layer is not spec
    assert layers.describe(layer) == description
    assert layers.describe(layers.get(description)) == description


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dropuot:0.3", "Unknown layer 'dropuot'. Did you mean 'dropout'"),
        ("dropout:1.5", "rate=1.5"),
        ("dropout", "Cannot make a layer from 'dropout'"),
        ("dropout:0.3,rates=2", "rates"),
        ("dropout:0.3,seed", "Cannot make|Received"),
        ("dropout:0.3,5 5", "name:rate,option=value"),
        ({"rate": 0.3}, "A dropout spec must be a float"),
        ({"name": ["dropout"], "rate": 0.3}, r"A dropout spec must be a float.* a dict with \"name\" \(a str\)"),
        (None, "A dropout spec must be a float"),
        (1.0, "rate=1.0"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        layers.get(spec)


def test_numbers_of_numpy_are_rates():
    for rate in (np.float32(0.25), np.float64(0.25), np.float16(0.25)):
        assert layers.describe(layers.get(rate)) == "dropout:0.25"
    layer = layers.get(np.float32(0.3))
    assert layer.get_config()["rate"] == 0.3
    layer.rate = np.float32(0.7)
    assert layer.get_config()["rate"] == 0.7
    assert layers.get(np.int64(0)).rate == 0.0
    with pytest.raises(ValueError, match="Received: rate=np.True_|A dropout spec must be a float"):
        layers.get(np.bool_(True))


def test_a_second_layer_of_one_name_is_refused():
    with pytest.raises(ValueError, match="registered already"):
        layers.register_layer(type("Dropout", (layers.BaseDropout,), {}))


def test_a_layer_that_is_defined_again_replaces_itself(monkeypatch):
    """As when the cell of a notebook runs again."""
    monkeypatch.setattr(_registry, "_LAYERS", dict(_registry._LAYERS))
    for factor in (2, 3):
        scaled = {"drop": lambda self, inputs, rate, draw, factor=factor: factor * inputs}
        layers.register_layer(type("ScaledDropout", (layers.BaseDropout,), scaled))
    assert layers.get("scaled_dropout:0.5")(np.ones((1, 2)), training=True)[0, 0] == 3
    same = layers.get_class("scaled_dropout")
    assert layers.register_layer(same) is same


@pytest.mark.parametrize("layer", [layers.SpatialDropout2D(0.5), layers.SpatialDropout1D(0.5)])
def test_spatial_dropout_drops_whole_maps(layer):
    shape = (16, 7, 5, 8)[: layer.input_spec.ndim - 1] + (8,)
    y = np.asarray(layer(tf.ones(shape), training=True))
    axes = tuple(range(1, y.ndim - 1))
    assert (y.min(axes) == y.max(axes)).all() and {0.0, 2.0} == set(np.unique(y))


def test_drop_block_drops_blocks_evenly_over_the_map():
    """Every pixel, also at the border, is dropped at the rate; and what is dropped is made of whole blocks."""
    layer, rate = layers.DropBlock2D(0.1, block_size=3, seed=1), 0.1
    dropped = np.asarray(layer(tf.ones((2000, 24, 8, 8)), training=True)) == 0
    by_pixel = dropped.mean((0, 3))  # (24, 8), 16,000 draws each
    assert abs(by_pixel - rate).max() < 5 * np.sqrt(rate * (1 - rate) / 16_000)
    starts = dropped[0, :, :, 0]
    inside = np.zeros_like(starts)
    padded = np.pad(starts, 2, constant_values=True)  # blocks may lie partly outside
    for i in range(26):
        for j in range(10):
            if padded[i : i + 3, j : j + 3].all():
                inside[max(i - 2, 0) : i + 1, max(j - 2, 0) : j + 1] = True
    np.testing.assert_array_equal(inside, starts)


def test_drop_block_of_one_is_dropout():
    x = tf.ones((4, 9, 5, 8))
    block, single = layers.DropBlock2D(0.3, block_size=1, seed=2), layers.Dropout(0.3, seed=2)
    np.testing.assert_allclose(block(x, training=True), single(x, training=True), rtol=1e-6)


def test_alpha_dropout_keeps_the_variance_of_normal_inputs():
    x = np.random.default_rng(0).normal(size=(400, 1000)).astype("float32")
    y = np.asarray(layers.AlphaDropout(0.4, seed=0)(x, training=True))
    assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.01


def test_gaussian_dropout_has_the_variance_of_dropout():
    y = np.asarray(layers.GaussianDropout(0.2, seed=0)(tf.ones((1000, 1000)), training=True))
    assert y.var() == pytest.approx(0.2 / 0.8, rel=0.01)


def test_wrong_rank_is_refused():
    with pytest.raises(ValueError, match="ndim=4"):
        layers.SpatialDropout2D(0.5)(tf.ones((2, 3)))
    with pytest.raises(ValueError, match="one entry for each of the 2 axes"):
        layers.Dropout(0.5, noise_shape=(1, 1, None))(tf.ones((2, 3)), training=True)


@pytest.mark.parametrize("name", ["dropout", "drop_path", "u_out"])
def test_what_has_no_batch_is_refused(name):
    with pytest.raises(ValueError, match="expected min_ndim=1, found ndim=0"):
        layers.get(f"{name}:0.5")(np.float32(3.0), training=True)


@pytest.mark.parametrize("name", ["masksembles", "max_dropout", "shake_drop", "targeted_dropout"])
def test_what_has_no_axis_besides_the_batch_is_refused(name):
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layers.get(f"{name}:0.5")(tf.ones(3), training=True)


def test_rate_is_live_inside_fit():
    class Raise(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            layer.rate = [0.0, 0.9][epoch]

    def share_of_zeros(_, outputs):
        return tf.reduce_mean(tf.cast(outputs == 0, "float32"), -1) + 0 * tf.reduce_sum(outputs)

    layer = layers.Dropout(0.0, seed=0)
    scale = keras.layers.EinsumDense("nc,c->nc", (100,), kernel_initializer="ones")
    model = keras.Sequential([keras.Input((100,)), scale, layer])
    model.compile("sgd", loss=share_of_zeros, jit_compile=False)
    history = model.fit(np.ones((200, 100)), np.ones((200, 100)), epochs=2, verbose=0, callbacks=[Raise()])
    assert history.history["loss"][0] == 0
    assert history.history["loss"][1] == pytest.approx(0.9, abs=0.02)


def test_a_layer_of_ones_own_may_make_it_late_and_read_its_rate_while_traced():
    class Inner(keras.layers.Layer):
        def build(self, shape):
            self.drop = layers.Dropout(0.25, seed=0)
            self.built = True

        def call(self, x, training=False):
            assert self.drop.get_config()["rate"] == 0.25
            return self.drop(x, training=training) if self.drop.rate > 0 else x

    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def call(self, x, training=False):
            return self.inner(x, training=training)

    outer = Outer()
    outer(keras.Input((100,)))  # Keras builds it where no variable can be made
    x = np.ones((100, 100), "float32")
    y = tf.function(lambda x: outer(x, training=True))(x).numpy()
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02) and outer.inner.drop.rate == 0.25


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_in_a_recurrent_cell(jit_compile):
    class Cell(keras.layers.Layer):
        state_size = 32

        def __init__(self):
            super().__init__()
            self.dense, self.drop = keras.layers.Dense(32), layers.Dropout(0.2, seed=0)

        def build(self, shape):
            self.dense.build((None, shape[-1] + 32))
            self.built = True

        def call(self, x, states, training=False):
            h = self.dense(self.drop(keras.ops.concatenate([x, states[0]], -1), training=training))
            return h, [h]

    model = keras.Sequential([keras.Input((5, 16)), keras.layers.RNN(Cell()), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit_compile)
    x = np.random.default_rng(0).normal(size=(20, 5, 16))
    losses = model.fit(x, np.ones((20, 1)), epochs=8, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_only_a_dropout_layer_has_a_counterpart():
    ours = layers.counterpart(keras.layers.SpatialDropout2D(0.3, name="drop"))
    assert type(ours) is layers.SpatialDropout2D and (ours.rate, ours.name) == (0.3, "drop")
    assert layers.counterpart(keras.layers.Dropout(0.3, dtype="mixed_float16")).compute_dtype == "float16"
    with pytest.raises(ValueError, match="`rate` must be a number"):
        layers.counterpart(keras.layers.Dropout(1.0))
    with pytest.raises(ValueError, match="must be a dropout layer"):
        layers.counterpart(keras.layers.Dense(2))


def test_the_dropouts_of_a_model_are_in_its_order():
    inner = keras.Sequential([keras.Input((4,)), layers.Dropout(0.1, name="b"), layers.DropPath(0.1, name="c")])
    shared = layers.Dropout(0.1, name="a")
    model = keras.Sequential([keras.Input((4,)), shared, inner, layers.UOut(0.1, name="d")])
    assert [layer.name for layer in layers.dropouts(model)] == ["a", "b", "c", "d"]
    assert layers.dropouts(keras.Sequential([shared, keras.Sequential([shared])])) == [shared]


def test_a_description_leaves_the_random_state_alone():
    layer, state = layers.Dropout(0.1), random.getstate()
    assert layers.describe(layer) == "dropout:0.1" and random.getstate() == state
