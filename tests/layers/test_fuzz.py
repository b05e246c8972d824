"""Site layers on shapes, dtypes, rates and options that nobody thought of."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings

from dropzoo import layers

sizes = st.integers(0, 5)
rates = st.one_of(st.sampled_from([0.0, 1e-9, 0.5, 0.999999]), st.floats(0, 1 - 2**-24))
dtypes = st.sampled_from(["float16", "bfloat16", "float32", "float64"])


@st.composite
def layer_and_shape(draw: st.DrawFn):
    name = draw(st.sampled_from(layers.list_layers(sites_only=True)))
    options = {"seed": draw(st.integers(0, 2**31 - 1)), "dtype": draw(dtypes)}
    rank = {"spatial_dropout1d": 3, "spatial_dropout3d": 5, "dropout": draw(st.integers(1, 5))}.get(name, 4)
    shape = tuple(draw(sizes) for _ in range(rank))
    if name.startswith("spatial") or name == "drop_block2d":
        options["data_format"] = draw(st.sampled_from(["channels_last", "channels_first"]))
    if name == "drop_block2d":
        options["block_size"] = draw(st.one_of(st.integers(1, 8), st.tuples(st.integers(1, 8), st.integers(1, 8))))
    if name == "dropout" and draw(st.booleans()):
        options["noise_shape"] = tuple(draw(st.sampled_from([None, 1, max(n, 1)])) if n else None for n in shape)
    return layers.get({"name": name, "rate": draw(rates), **options}), shape


def check(layer, shape):
    hypothesis.note(f"{layer.get_config()} {shape}")
    if layer.dtype == "float16":
        hypothesis.assume(layer.rate < 0.9999)  # beyond, 1 / (1 - rate) is inf in float16
    x = tf.cast(np.random.default_rng(0).normal(size=shape) + 3, layer.dtype)  # no zero among them
    np.testing.assert_array_equal(layer(x), layer.infer(x))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    assert y.shape == x.shape and y.dtype == x.dtype
    gradient = tape.gradient(y, x)
    assert gradient.shape == x.shape
    values = tf.cast(y, "float64").numpy()
    assert not np.isnan(values).any()
    if layer.rate == 0:
        np.testing.assert_array_equal(y, x)
    if type(layer) in (layers.Dropout, layers.SpatialDropout2D, layers.DropBlock2D, layers.DropPath):
        scaled = (x * tf.cast(1 / (1 - np.float32(layer.rate)), x.dtype)).numpy()
        kept = y.numpy() != 0
        np.testing.assert_allclose(values[kept], scaled[kept].astype("float64"), rtol=1e-2)
        np.testing.assert_array_equal(gradient.numpy() != 0, kept)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), y)


@pytest.mark.costly(keep=0)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(layer_and_shape())
def test_any_shape_dtype_rate_and_option(given_):
    check(*given_)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layer_and_shape())
def test_thousands_of_shapes_dtypes_rates_and_options(given_):
    check(*given_)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(layers.list_layers(sites_only=True)),
    rate=st.one_of(
        st.floats(max_value=-1e-9),
        st.floats(1),
        st.none(),
        st.text(),
        st.booleans(),
        st.lists(st.floats()),
        st.complex_numbers(),
    ),
)
def test_nothing_but_a_rate_is_taken_for_one(name, rate):
    with pytest.raises(ValueError, match="`rate` must be a number in"):
        layers.get({"name": name, "rate": rate})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="dropu_block2:0.19,=seconds()[]'\" ", max_size=30))
def test_a_spec_is_a_layer_or_a_value_error(spec):
    try:
        layer = layers.get(spec)
    except ValueError:
        return
    assert layers.is_dropout(layer)
