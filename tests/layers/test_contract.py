"""The contract of every dropout layer: one row a layer, one test a promise."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers


@dataclass(frozen=True)
class Case:
    """A layer, and the parts of the contract that do not apply to it, with the reason."""

    layer: type
    kwargs: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (6, 9, 5, 8)  # height != width, on purpose
    not_zero: str = ""  # why a dropped unit is not zero
    mean_not_kept: str = ""  # why the expectation of the output is not the input
    not_identity: str = ""  # why inference is not the identity
    not_the_rate: str = ""  # why another fraction than the rate is dropped
    not_scaled: str = ""  # why what is kept is not scaled by 1 / (1 - rate)
    by_value: str = ""  # how the values decide what is dropped
    wrong: tuple[tuple[dict[str, Any], str], ...] = ()  # bad arguments beside the good ones

    def make(self, rate: float = 0.3, seed: int = 0, **kwargs: Any) -> Any:
        return self.layer(rate, seed=seed, **self.kwargs, **kwargs)


BAD_NOISE = (({"noise_shape": 3}, "noise_shape=3"), ({"noise_shape": (0, 1)}, "noise_shape=.0, 1."))
BAD_FORMAT = (({"data_format": "NHWC"}, "data_format='NHWC'"),)
BAD_SCALING = (({"scaling": "inverse"}, "scaling='inverse'"),)
BAD_LEVEL = (({"level": "pixel"}, "level='pixel'"),)
BAD_FRACTION = tuple(({"target_fraction": f}, "target_fraction=") for f in (-0.1, 1.1, "0.5", None, True))
BAD_MASKS = (({"masks": 0}, "masks=0"), ({"masks": 2.5}, "masks=2.5"), ({"mask_seed": -1}, "mask_seed=-1"))
BAD_BLOCK = tuple(({"block_size": b}, "block_size=") for b in (0, -1, 2.5, (3,), (3, 0), "7", True))

CASES = {
    "dropout": Case(layers.Dropout, wrong=BAD_NOISE + BAD_SCALING),
    "dropout-standard": Case(
        layers.Dropout,
        {"scaling": "standard"},
        mean_not_kept="its expectation is that of inference: see test_site_layers.py",
        not_identity="scales in inference instead of in training",
        not_scaled="scales in inference instead of in training",
    ),
    "dropout-noise_shape": Case(layers.Dropout, {"noise_shape": (None, 1, None, 1)}),
    "spatial1d": Case(layers.SpatialDropout1D, shape=(6, 9, 8), wrong=BAD_FORMAT),
    "spatial2d": Case(layers.SpatialDropout2D, wrong=BAD_FORMAT),
    "spatial2d-first": Case(layers.SpatialDropout2D, {"data_format": "channels_first"}, shape=(6, 8, 9, 5)),
    "spatial3d": Case(layers.SpatialDropout3D, shape=(6, 3, 4, 5, 8), wrong=BAD_FORMAT),
    "gaussian": Case(layers.GaussianDropout, not_zero="multiplies by noise"),
    "alpha": Case(
        layers.AlphaDropout,
        not_zero="drops to SELU's negative limit",
        mean_not_kept="keeps mean and variance of normal inputs only: see test_layers.py",
        wrong=BAD_NOISE,
    ),
    "drop_block-odd": Case(layers.DropBlock2D, {"block_size": 3}, wrong=BAD_FORMAT + BAD_BLOCK),
    "drop_block-even": Case(layers.DropBlock2D, {"block_size": (4, 2)}),
    "drop_block-larger": Case(layers.DropBlock2D, {"block_size": 11}),
    "drop_block-first": Case(
        layers.DropBlock2D, {"block_size": 3, "data_format": "channels_first"}, shape=(6, 8, 9, 5)
    ),
    "cutout": Case(layers.CutoutDropout, shape=(12, 9, 5, 8), wrong=BAD_FORMAT),
    "cutout-first": Case(layers.CutoutDropout, {"data_format": "channels_first"}, shape=(12, 8, 9, 5)),
    "masksembles": Case(
        layers.Masksembles,
        shape=(12, 9, 5, 8),
        mean_not_kept="drops a whole number of channels: see test_masksembles.py",
        not_the_rate="drops a whole number of channels: see test_masksembles.py",
        wrong=BAD_MASKS + BAD_FORMAT,
    ),
    "masksembles-first": Case(
        layers.Masksembles,
        {"data_format": "channels_first", "masks": 3},
        shape=(12, 8, 9, 5),
        mean_not_kept="drops a whole number of channels: see test_masksembles.py",
        not_the_rate="drops a whole number of channels: see test_masksembles.py",
    ),
    "weighted_channel": Case(
        layers.WeightedChannelDropout, wrong=BAD_FORMAT, by_value="keeps strong channels more often"
    ),
    "weighted_channel-first": Case(
        layers.WeightedChannelDropout,
        {"data_format": "channels_first"},
        shape=(6, 8, 9, 5),
        by_value="keeps strong channels more often",
    ),
    "targeted": Case(
        layers.TargetedDropout,
        wrong=BAD_FORMAT + BAD_FRACTION,
        mean_not_kept="drops the weak on purpose",
        not_the_rate="drops among the weakest half",
        not_scaled="the paper does not scale",
        by_value="drops weak channels",
    ),
    "targeted-all": Case(
        layers.TargetedDropout,
        {"target_fraction": 1.0, "data_format": "channels_first"},
        shape=(6, 8, 9, 5),
        mean_not_kept="drops without scaling",
        not_scaled="the paper does not scale",
        by_value="drops weak channels",
    ),
    "max": Case(
        layers.MaxDropout,
        mean_not_kept="drops the strong on purpose",
        not_the_rate="drops a part of the range of values",
        not_scaled="the paper does not scale",
        by_value="drops what is near the maximum",
    ),
    "uout": Case(layers.UOut, not_zero="multiplies by noise"),
    "shake": Case(
        layers.ShakeDrop,
        shape=(12, 9, 5, 8),
        not_zero="multiplies by noise",
        not_identity="scales in inference by the expectation of the noise",
        mean_not_kept="its expectation is that of inference: see test_site_layers.py",
        wrong=BAD_LEVEL,
    ),
    "shake-channel": Case(
        layers.ShakeDrop,
        {"level": "channel"},
        shape=(12, 9, 5, 8),
        not_zero="multiplies by noise",
        not_identity="scales in inference by the expectation of the noise",
        mean_not_kept="its expectation is that of inference: see test_site_layers.py",
    ),
    "shake-unit": Case(
        layers.ShakeDrop,
        {"level": "unit"},
        not_zero="multiplies by noise",
        not_identity="scales in inference by the expectation of the noise",
        mean_not_kept="its expectation is that of inference: see test_site_layers.py",
    ),
    "drop_path": Case(layers.DropPath, shape=(12, 9, 5, 8)),
}


def rows(condition: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Runs a test for each row that meets the condition."""
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=name) for name, case in CASES.items() if condition(case)]
    )


every_layer = rows(lambda case: True)
zeroing = rows(lambda case: not case.not_zero)
blind = rows(lambda case: not case.not_zero and not case.by_value)


def data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal draws; none is zero, so a zero in the output was dropped."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_every_registered_layer_has_a_row():
    assert {c.layer.__name__ for c in CASES.values()} == {
        type(layers.get({"name": name, "rate": 0.1})).__name__ for name in layers.list_layers(sites_only=True)
    }


@every_layer
def test_inference_is_the_identity(case):
    x = data(case.shape)
    expected = x * np.float32(0.5) if case.not_identity else x
    np.testing.assert_array_equal(case.make(0.5)(x), expected)
    np.testing.assert_array_equal(case.make(0.5)(x, training=False), expected)


@every_layer
def test_rate_zero_is_the_identity(case):
    x = data(case.shape)
    np.testing.assert_array_equal(case.make(0.0)(x, training=True), x)


@pytest.mark.covering("case", "size", "rate")
@every_layer
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (24, 8), (3, 3), (14, 14)], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_drops_the_rate_and_keeps_the_mean(case, size, rate, compile_from):
    """The realised fraction and mean lie within 5 standard errors, on maps of any size.

    All layers draw for each sample on its own, so one large batch is as good as many small ones.
    """
    compile_from(1 << 30)
    small, repeats = iter(size), 200
    batch, *rest = (next(small, n) if n in (9, 5) else n for n in case.shape)
    y = np.asarray(case.make(rate)(tf.ones((repeats * batch, *rest)), training=True)).reshape(
        repeats, batch, *rest
    )
    axes = tuple(range(1, y.ndim))

    def within(values: np.ndarray, expected: float) -> None:
        error = values.std(ddof=1) / np.sqrt(repeats)
        assert abs(values.mean() - expected) < 5 * error, (values.mean(), expected, error)

    if not case.mean_not_kept:
        within(y.mean(axes), 1.0)
    if not case.not_zero and not case.not_the_rate:
        within((y == 0).mean(axes), rate)
    if not case.not_zero:
        np.testing.assert_allclose(y[y != 0], 1 if case.not_scaled else 1 / (1 - rate), rtol=1e-6)


@pytest.mark.costly(keep=3)
@every_layer
def test_same_seed_same_mask_and_another_at_each_call(case):
    x = data(case.shape)
    one, two = case.make(seed=7), case.make(seed=7)
    first = np.asarray(one(x, training=True))
    np.testing.assert_array_equal(first, two(x, training=True))
    assert not np.array_equal(first, one(x, training=True))
    assert not np.array_equal(first, case.make(seed=8)(x, training=True))


@pytest.mark.costly(keep=3)
@every_layer
def test_set_random_seed_repeats_an_unseeded_layer(case):
    x, seen = data(case.shape), []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        seen.append(np.asarray(case.make(seed=None)(x, training=True)))
    np.testing.assert_array_equal(*seen)


@pytest.mark.costly(keep=3)
@every_layer
def test_eager_and_xla_agree(case):
    x, layer = data(case.shape), case.make()
    eager = np.asarray(case.make()(x, training=True))
    xla = tf.function(lambda x: layer(x, training=True), jit_compile=True)(x).numpy()
    if not case.not_zero:
        np.testing.assert_array_equal(xla == 0, eager == 0)
    np.testing.assert_allclose(xla, eager, rtol=1e-5, atol=2e-5)


@pytest.mark.costly(keep=3)
@pytest.mark.covering("case", "way")
@every_layer
@pytest.mark.parametrize("way", ["plain in a graph", "compiled", "compiled in a graph"])
def test_compiled_and_plain_paths_agree(case, way, compile_from):
    """Outputs and gradients, in a graph and eagerly; which path is taken depends on the size alone."""
    x, seen = tf.constant(data(case.shape)), []
    for each in ("plain", way):
        compile_from(0 if each.startswith("compiled") else 1 << 30)
        layer = case.make(0.4)

        def run(f=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = f(x, training=True)
            return y, tape.gradient(y, x)

        seen.append([t.numpy() for t in (tf.function(run) if each.endswith("graph") else run)()])
    for first, second in zip(*seen, strict=True):
        if not case.not_zero:
            np.testing.assert_array_equal(first == 0, second == 0)
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=2e-5)


@pytest.mark.costly(keep=3)
@every_layer
def test_in_loops_and_conditions_it_does_what_it_does_outside(case, compile_from):
    """Outputs and gradients; compiled functions must not depend on what only a body or a branch knows."""
    compile_from(0)
    x, layer, seen = tf.constant(data(case.shape)), case.make(0.4), []

    def inside(x):
        (y,) = tf.while_loop(
            lambda y: tf.size(y) > 0, lambda y: (layer(y, training=True),), (x,), maximum_iterations=1
        )
        return tf.cond(tf.size(y) > 0, lambda: layer(y, training=True), lambda: y)

    def outside(x):
        return layer(layer(x, training=True), training=True)

    for wrap, drop in ((lambda f: f, outside), (tf.function, inside)):
        layer.seed_generator.state.assign([0, 0])

        def run(drop=drop):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = drop(x)
            return y, tape.gradient(y, x)

        seen.append([t.numpy() for t in wrap(run)()])
    for first, second in zip(*seen, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=2e-5)


@pytest.mark.covering("case", "path")
@zeroing
@pytest.mark.usefixtures("path")
def test_gradient_is_zero_exactly_where_dropped(case):
    x = tf.constant(data(case.shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = case.make(0.5)(x, training=True)
    gradient = tape.gradient(y, x).numpy()
    np.testing.assert_array_equal(gradient == 0, y.numpy() == 0)
    np.testing.assert_allclose(gradient[gradient != 0], 1.0 if case.not_scaled else 2.0)


@pytest.mark.covering("case", "path")
@blind
@pytest.mark.usefixtures("path")
def test_nan_and_inf_are_gone_where_dropped(case):
    x = data(case.shape)
    dropped = np.asarray(case.make(0.5)(x, training=True)) == 0
    for bad in (np.nan, np.inf):
        y = np.asarray(case.make(0.5)(np.full_like(x, bad), training=True))
        assert (y[dropped] == 0).all()
        assert not np.isfinite(y[~dropped]).any()


@pytest.mark.costly(keep=3)
@pytest.mark.covering("case", "jit_compile")
@every_layer
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_rate_is_live_in_traced_functions(case, jit_compile):
    x, layer = data(case.shape), case.make(0.0)
    run = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    np.testing.assert_array_equal(run(x), x)
    layer.rate = 0.9
    assert not np.array_equal(run(x), x)
    if not case.not_zero:
        assert (run(x).numpy() == 0).any()
    layer.rate = 0.0
    np.testing.assert_array_equal(run(x), x)
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.covering("case", "path")
@zeroing
@pytest.mark.usefixtures("path")
def test_gradient_is_that_of_the_rate_of_the_forward_pass(case):
    x, layer = tf.constant(data(case.shape)), case.make(0.5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    layer.rate = 0.0
    np.testing.assert_array_equal(tape.gradient(y, x).numpy() == 0, y.numpy() == 0)


@every_layer
def test_rate_is_no_weight(case):
    layer = case.make()
    layer(data(case.shape), training=True)
    assert layer.weights == [] and layer.get_weights() == [] and layer.count_params() == 0


@pytest.mark.costly(keep=3)
@pytest.mark.covering("case", "path", "dtype")
@every_layer
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_drop_alike(case, dtype):
    x = tf.cast(data(case.shape), dtype)
    y = case.make(0.5, dtype=dtype)(x, training=True)
    assert y.dtype == dtype
    expected = case.make(0.5, dtype="float32")(tf.cast(x, "float32"), training=True).numpy()
    if not case.not_zero:
        np.testing.assert_array_equal(y.numpy() == 0, expected == 0)
    np.testing.assert_allclose(tf.cast(y, "float32"), expected, rtol=0.02, atol=0.05)


@pytest.mark.covering("case", "policy")
@every_layer
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_config_round_trip(case, policy):
    layer = case.make(0.25, dtype=policy, trainable=False, name="here")
    layer.rate = 0.3
    config = json.loads(json.dumps(layer.get_config()["rate"]))
    assert config == 0.3
    revived = case.layer.from_config(layer.get_config())
    assert revived.get_config() == layer.get_config()
    assert revived.dtype_policy.name == policy and revived.rate == 0.3 and not revived.trainable
    assert revived(data(case.shape), training=True).dtype == layer.compute_dtype


@pytest.mark.costly(keep=3)
@every_layer
def test_keras_file_round_trip_in_a_model(case, tmp_path):
    inputs = keras.Input(case.shape[1:])
    model = keras.Model(inputs, case.make(0.5, name="site")(inputs))
    model.get_layer("site").rate = 0.4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = data(case.shape)
    assert loaded.get_layer("site").rate == 0.4
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


@pytest.mark.costly(keep=3)
@every_layer
def test_unknown_batch_and_spatial_sizes_and_an_empty_batch(case):
    layer = case.make(0.5)
    spec = tf.TensorSpec([None if n != 8 else n for n in case.shape])
    run = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
    for shape in (case.shape, tuple(3 if n == 9 else n for n in case.shape), (0, *case.shape[1:])):
        assert run(data(shape)).shape == shape


@pytest.mark.costly(keep=3)
@pytest.mark.covering("case", "path")
@every_layer
@pytest.mark.usefixtures("path")
def test_replicas_draw_different_masks_reproducibly(case):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x, seen = data(case.shape), []
    with strategy.scope():
        layer = case.make(0.5, seed=3)
    first = layer.seed_generator.state.numpy()
    run = tf.function(lambda: strategy.run(lambda: layer(x, training=True)))
    for _ in range(2):
        layer.seed_generator.state.assign(first)
        seen.append([np.asarray(r) for r in strategy.experimental_local_results(run())])
    (a, b), again = seen
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal((a, b), again)
    np.testing.assert_array_equal(a, case.make(0.5, seed=3)(x, training=True))  # replica 0 is the one device


@pytest.mark.costly(keep=3)
@pytest.mark.covering("case", "run_eagerly")
@every_layer
@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
def test_fits_in_a_model_with_a_partial_batch(case, run_eagerly):
    inputs = keras.Input(case.shape[1:])
    x = keras.layers.Dense(4)(case.make(0.3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    model.compile("sgd", "mse", jit_compile=False, run_eagerly=run_eagerly)
    history = model.fit(data((7, *case.shape[1:])), np.ones((7, 1), "float32"), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"][0])


@every_layer
def test_inputs_that_cannot_be_scaled_are_refused(case):
    for dtype in ("int32", "uint8", "bool"):
        with pytest.raises(ValueError, match=f"`inputs` must be floating point.*Received: inputs of {dtype}"):
            case.make()(np.ones(case.shape, dtype), training=True)


@every_layer
def test_a_bad_rate_is_refused_with_its_value(case):
    """All bad values are tried on `check_rate` itself, in tests/common."""
    with pytest.raises(ValueError, match=r"`rate` must be a number in \[0, 1\).*Received: rate=1.5"):
        case.make(1.5)
    layer = case.make(0.2)
    with pytest.raises(ValueError, match="Received: rate=1.5"):
        layer.rate = 1.5
    assert layer.rate == 0.2


@pytest.mark.parametrize(
    ("layer", "kwargs", "message"),
    [(c.layer, kwargs, message) for c in CASES.values() for kwargs, message in c.wrong],
)
def test_bad_arguments_are_refused_with_their_value(layer, kwargs, message):
    with pytest.raises(ValueError, match=message):
        layer(0.3, **kwargs)
    with pytest.raises(ValueError, match="nonsense"):
        layer(0.3, nonsense=1)
