"""The layers that are no site layers: on weights, in pooling, with a learned rate. One row a layer.

What of the contract does not hold is said in the row: their inference is another layer's, not the identity.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving

SHAPE = (6, 9, 5, 4)  # height != width


@dataclass(frozen=True)
class Row:
    make: Callable[..., keras.Layer]
    plain: Callable[[], keras.Layer] | None  # whose inference it has, with the same weights
    shape: tuple[int, ...] = SHAPE
    mean_not_kept: str = ""  # why the expectation in training is not the inference
    no_rate: str = ""  # why there is no rate to set
    no_empty_batch: str = ""  # why it is not tried
    weights: int = 0  # more than the plain layer has
    wrong: tuple[tuple[dict[str, Any], str], ...] = field(default=())


def concrete(layer: Callable[..., keras.Layer]) -> Callable[..., keras.Layer]:
    def make(rate: float = 0.3, **kwargs: Any) -> keras.Layer:
        inner = layer(**({"dtype": kwargs["dtype"]} if "dtype" in kwargs else {}))
        return layers.ConcreteDropout(inner, data_size=100, rate=rate, **kwargs)

    return make


def partial(cls: type, *args: Any, **options: Any) -> Callable[..., keras.Layer]:
    return lambda rate=0.3, **kwargs: cls(*args, rate=rate, **options, **kwargs)


CONV = "TensorFlow's own convolution gives an empty batch the shape of its input"
LEARNED = "relaxed draws have a mean that is only near the rate"
POOL = ({"pool_size": 0}, "pool_size=0"), ({"padding": "full"}, "padding='full'"), ({"strides": -1}, "strides=-1")
FORMAT = ({"data_format": "NHWC"}, "data_format='NHWC'")
ROWS = {
    "drop_connect_dense": Row(
        partial(layers.DropConnectDense, 3), lambda: keras.layers.Dense(3), wrong=(({"rate": 1.0}, "rate=1.0"),)
    ),
    "drop_connect_dense-flat": Row(
        partial(layers.DropConnectDense, 3, use_bias=False),
        lambda: keras.layers.Dense(3, use_bias=False),
        shape=(6, 7),
    ),
    "drop_connect_conv2d": Row(
        partial(layers.DropConnectConv2D, 3, (3, 2), padding="same", strides=2),
        lambda: keras.layers.Conv2D(3, (3, 2), padding="same", strides=2),
        no_empty_batch=CONV,
        wrong=(({"rate": -0.1}, "rate=-0.1"),),
    ),
    "drop_connect_conv2d-groups": Row(
        partial(layers.DropConnectConv2D, 4, 3, groups=2, dilation_rate=2, use_bias=False),
        lambda: keras.layers.Conv2D(4, 3, groups=2, dilation_rate=2, use_bias=False),
        no_empty_batch=CONV,
    ),
    "max_pool_dropout2d": Row(partial(layers.MaxPoolDropout2D), None, wrong=(*POOL, FORMAT)),
    "max_pool_dropout2d-same": Row(
        partial(layers.MaxPoolDropout2D, pool_size=(3, 2), strides=(2, 1), padding="same"), None
    ),
    "stochastic_pooling2d": Row(
        lambda rate=None, **kwargs: layers.StochasticPooling2D(**kwargs),
        None,
        no_rate="the activations decide",
        wrong=(*POOL, FORMAT),
    ),
    "stochastic_pooling2d-same": Row(
        lambda rate=None, **kwargs: layers.StochasticPooling2D((3, 2), (2, 1), "same", **kwargs),
        None,
        no_rate="the activations decide",
    ),
    "concrete_dropout-dense": Row(
        concrete(lambda **kwargs: keras.layers.Dense(3, **kwargs)),
        lambda: keras.layers.Dense(3),
        shape=(6, 7),
        mean_not_kept=LEARNED,
        weights=1,
        wrong=(({"temperature": 0}, "temperature=0"), ({"spatial": True}, "`spatial=True` is only for Conv2D")),
    ),
    "concrete_dropout-conv2d": Row(
        concrete(lambda **kwargs: keras.layers.Conv2D(3, 3, **kwargs)),
        lambda: keras.layers.Conv2D(3, 3),
        mean_not_kept=LEARNED,
        no_empty_batch=CONV,
        weights=1,
        wrong=(({"length_scale": -1}, "length_scale=-1"), ({"rate": 1}, "rate=1")),
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Not negative, as after a ReLU, and without ties."""
    return np.random.default_rng(seed).random(shape, "float32")


def built(row: Row, **kwargs: Any) -> keras.Layer:
    keras.utils.set_random_seed(1)  # the same initial weights each time
    layer = row.make(**{"seed": 0} | kwargs)
    layer(data(row.shape))
    return layer


def test_every_registered_layer_has_a_row():
    others = set(layers.list_layers()) - set(layers.list_layers(sites_only=True))
    assert {name.partition("-")[0] for name in ROWS} == others


@pytest.mark.costly(keep=3)
@every_row
def test_inference_is_that_of_the_plain_layer(row):
    x = data(row.shape)
    layer = built(row)
    np.testing.assert_array_equal(layer(x), layer(x))
    if row.plain:
        plain = row.plain()
        plain(x)
        plain.set_weights(layer.get_weights()[row.weights :] if row.weights else layer.get_weights())
        np.testing.assert_array_equal(layer(x), plain(x))
        assert layer.count_params() == plain.count_params() + row.weights


@pytest.mark.costly(keep=3)
@every_row
def test_training_has_the_mean_of_inference(row):
    """So that inference is the right average; within 5 standard errors, at every unit."""
    x, repeats = data(row.shape), 4000
    if not row.mean_not_kept:
        layer = built(row, rate=0.3)
        draw = lambda _: layer(x, training=True)  # noqa: E731
        run = tf.function(lambda: tf.map_fn(draw, tf.zeros(repeats), parallel_iterations=1))
        draws = run().numpy()
        error = draws.std(0, ddof=1) / np.sqrt(repeats) + 1e-7
        assert (abs(draws.mean(0) - layer(x).numpy()) < 5.5 * error).all()


@every_row
def test_rate_zero_is_inference(row):
    layer = built(row, rate=0.0)
    x = data(row.shape)
    if not row.no_rate:
        np.testing.assert_allclose(layer(x, training=True), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.costly(keep=3)
@every_row
def test_same_seed_same_draws_and_others_at_each_call(row):
    x = data(row.shape)
    one, two = built(row, rate=0.5), built(row, rate=0.5)
    first = np.asarray(one(x, training=True))
    np.testing.assert_array_equal(first, two(x, training=True))
    assert not np.array_equal(first, one(x, training=True))
    assert not np.array_equal(first, built(row, rate=0.5, seed=8)(x, training=True))


@pytest.mark.costly(keep=3)
@pytest.mark.covering("row", "way")
@every_row
@pytest.mark.parametrize("way", ["plain in a graph", "compiled", "compiled in a graph", "compiled under XLA"])
def test_compiled_and_plain_paths_agree(row, way, compile_from):
    x, results = data(row.shape), []
    for each in ("plain", way):
        compile_from(0 if each.startswith("compiled") else 1 << 30)
        layer = built(row)
        run = tf.function(layer, jit_compile=each.endswith("XLA")) if each.endswith(("graph", "XLA")) else layer
        results.append(np.asarray(run(x, training=True)))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.costly(keep=3)
@every_row
def test_eager_and_xla_agree(row):
    x, run = data(row.shape), tf.function(built(row), jit_compile=True)
    np.testing.assert_allclose(run(x, training=True), built(row)(x, training=True), rtol=1e-4, atol=1e-5)


@pytest.mark.costly(keep=3)
@pytest.mark.covering("row", "jit_compile")
@every_row
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_rate_is_live_in_traced_functions(row, jit_compile):
    x = data(row.shape)
    if row.no_rate:
        layer = built(row)
        with pytest.raises(AttributeError):
            layer.rate = 0.5
        assert not hasattr(layer, "rate") and "rate" not in layer.get_config()
        return
    layer = built(row, rate=0.0)
    run = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    still = run(x).numpy()
    layer.rate = 0.9
    assert abs(run(x).numpy() - still).max() > 0.01
    layer.rate = 0.0
    np.testing.assert_allclose(run(x), still, rtol=1e-4, atol=1e-5)
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.costly(keep=3)
@every_row
def test_every_weight_gets_a_gradient(row):
    x, layer = tf.constant(data(row.shape)), built(row)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for gradient in tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)]):
        assert np.isfinite(gradient).all() and abs(gradient.numpy()).max() > 0


@pytest.mark.covering("row", "policy")
@every_row
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_config_round_trip(row, policy):
    layer = row.make(seed=3, dtype=policy, trainable=False, name="here")
    revived = type(layer).from_config(layer.get_config())
    assert revived.get_config() == layer.get_config()
    assert revived.dtype_policy.name == policy and not revived.trainable
    assert revived(data(row.shape), training=True).dtype == layer.compute_dtype
    if not row.no_rate:
        assert revived.rate == pytest.approx(0.3, rel=1e-5)


@pytest.mark.costly(keep=3)
@every_row
def test_files_round_trip(row, tmp_path):
    inputs = keras.Input(row.shape[1:])
    keras.utils.set_random_seed(2)
    model = keras.Model(inputs, row.make(seed=0, name="here")(inputs))
    if not row.no_rate:
        model.get_layer("here").rate = 0.4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = data(row.shape)
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))
    if not row.no_rate:
        assert loaded.get_layer("here").rate == model.get_layer("here").rate
    model.save_weights(tmp_path / "model.weights.h5")
    keras.utils.set_random_seed(9)
    other = keras.Model(inputs, row.make(rate=0.4, seed=0, name="here")(inputs))
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.costly(keep=3)
@every_row
def test_unknown_batch_and_spatial_sizes_and_an_empty_batch(row):
    layer = built(row)
    spec = tf.TensorSpec([None if i < len(row.shape) - 1 else n for i, n in enumerate(row.shape)])
    shapes = [row.shape, tuple(7 if n == 9 else n for n in row.shape)]
    if not row.no_empty_batch:
        shapes.append((0, *row.shape[1:]))
    for training in (False, True):
        run = tf.function(lambda x, t=training: layer(x, training=t), input_signature=[spec])
        for shape in shapes:
            assert run(data(shape)).shape == layer.compute_output_shape(shape) == layer(data(shape)).shape


@pytest.mark.costly(keep=3)
@every_row
def test_replicas_draw_differently_and_reproducibly(row):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x, seen = data(row.shape), []
    with strategy.scope():
        layer = built(row, rate=0.5)
    first = layer.seed_generator.state.numpy()
    run = tf.function(lambda: strategy.run(lambda: layer(x, training=True)))
    for _ in range(2):
        layer.seed_generator.state.assign(first)
        seen.append([np.asarray(r) for r in strategy.experimental_local_results(run())])
    (a, b), again = seen
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal((a, b), again)


@pytest.mark.costly(keep=3)
@every_row
def test_monte_carlo_samples_it(row):
    """Its mean over many samples is inference, as in training; and inference itself is left as it was."""
    inputs = keras.Input(row.shape[1:])
    keras.utils.set_random_seed(2)
    x = row.make(rate=0.3, seed=0)(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    images = data(row.shape)
    before = model(images).numpy()
    mc = serving.MonteCarlo(model, num_samples=8)
    out, again = mc(images), mc(images[:2])
    assert out["mean"].shape == (6, 2) and out["variance"].numpy().max() > 0
    np.testing.assert_allclose(again["mean"], out["mean"][:2], rtol=1e-5, atol=1e-6)  # whatever the batch
    np.testing.assert_array_equal(model(images), before)


@pytest.mark.parametrize(
    ("row", "kwargs", "message"), [(r, kwargs, message) for r in ROWS.values() for kwargs, message in r.wrong]
)
def test_bad_arguments_are_refused_with_their_value(row, kwargs, message):
    with pytest.raises(ValueError, match=message):
        row.make(**kwargs)


def test_layers_are_made_by_name():
    layer = layers.get({"name": "drop_connect_dense", "units": 4, "rate": 0.3})
    assert (layer.units, layer.rate, layers.describe(layer)) == (4, 0.3, "drop_connect_dense:rate=0.3")
    assert layers.get("max_pool_dropout2d:0.2,pool_size=(3, 2)").pool_size == (3, 2)
    assert layers.describe(layers.get("stochastic_pooling2d:pool_size=3")) == "stochastic_pooling2d"


def test_concrete_dropout_needs_a_layer_with_a_kernel():
    with pytest.raises(ValueError, match=r"must be a keras.layers.Dense or Conv2D"):
        layers.ConcreteDropout(keras.layers.Flatten(), data_size=10)


@pytest.mark.parametrize("data_size", [1.5, 0, True, "10"])
def test_concrete_dropout_needs_a_number_of_samples(data_size):
    with pytest.raises(ValueError, match=f"`data_size` must be a positive int. Received: data_size={data_size!r}"):
        layers.ConcreteDropout(keras.layers.Dense(2), data_size=data_size)
    assert layers.ConcreteDropout(keras.layers.Dense(2), data_size=1000.0).data_size == 1000
