"""Monte-Carlo dropout: the figures, every layer and model, and what must not change."""

import random
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.layers.draws import samples as _samples
from dropzoo.serving.calibration.temperature import softmax
from dropzoo.serving.montecarlo import active as _active


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_figures_are_those_of_the_samples(sampling):
    """Against NumPy, on a model that gives its own mask away: the logits are the dropped inputs."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dropout(0.4, name="site")(inputs))
    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.1, 0.2]], "float32")
    mc = serving.MonteCarlo(model, num_samples=6, sampling=sampling, seed=3)
    out = mc(x)
    seen = []
    rows = _samples.content_keys(tf.constant(x)) if sampling != "fixed" else tf.zeros([2], tf.uint32)
    for t in range(6):
        draw = mc._graph.draw("site", tf.constant(3, tf.int64), rows, tf.constant(t), plain=True)
        y = model.layers[1].drop(tf.constant(x), tf.constant(0.4), draw).numpy().astype("float64")
        seen.append(np.exp(y) / np.exp(y).sum(-1, keepdims=True))
    p = np.stack(seen)
    entropy = lambda q: -(q * np.log(q)).sum(-1)  # noqa: E731
    expected = {
        "mean": p.mean(0),
        "variance": p.var(0),
        "predictive_entropy": entropy(p.mean(0)),
        "mutual_information": entropy(p.mean(0)) - entropy(p).mean(0),
    }
    assert expected["variance"].max() > 0
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, atol=2e-6, err_msg=name)


@pytest.mark.costly(keep=0)
def test_the_model_is_untouched():
    """Weights, BatchNorm, seed generators and graph; Keras' own recipe, training=True, changes the first three."""
    model = small_cnn({"*": "drop_block2d:0.2,block_size=2", "dense1": 0.3, "head": 0.3})
    x = images()
    plain = model(x).numpy()
    before = [variable.numpy().copy() for variable in model.variables]
    mc = serving.MonteCarlo(model, num_samples=3)
    for _ in range(20):
        mc(x)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_array_equal(model(x), plain)
    assert all(len(layer._inbound_nodes) == 1 for layer in model.layers)
    assert not any("call" in vars(layer) for layer in model.layers)
    model(x, training=True)
    assert any(
        not np.array_equal(variable.numpy(), value)
        for variable, value in zip(model.variables, before, strict=True)
    )


@pytest.mark.costly(keep=1)
@pytest.mark.covering("name", "sampling")
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"depth": 1, "filters": 4}),
        ("segnet", {"convs": (1,), "filters": 4}),
        ("simple_cnn", {"filters": (4,), "head": "average_pool"}),
        ("resnet20", {"blocks": 1, "filters": 4}),
    ],
)
def test_bounds(name, options, sampling):
    model = models.build_model(
        name, input_shape=(None, None, 1), num_classes=3, dropout={"*conv1": 0.3, "head": 0.3}, **options
    )
    out = serving.MonteCarlo(model, num_samples=4, sampling=sampling)(images(2, (7, 10)))
    mi, entropy = out["mutual_information"].numpy(), out["predictive_entropy"].numpy()
    assert (mi >= 0).all() and (mi <= entropy).all() and (entropy <= np.log(3) + 1e-6).all()
    assert mi.max() > 0 and (out["variance"].numpy() >= 0).all()
    np.testing.assert_allclose(tf.reduce_sum(out["mean"], -1), 1, atol=1e-5)
    assert out["mean"].shape == ((2, 7, 10, 3) if name in ("unet", "segnet") else (2, 3))
    assert mi.shape == out["mean"].shape[:-1]


def test_what_belongs_to_others_is_left_alone():
    """Python's generator, from which Keras seeds new weights, and a `call` that the user has put on a layer."""
    layer = keras.layers.Dropout(0.3)
    model = keras.Sequential([keras.Input((6,)), layer, keras.layers.Dense(2)])
    mine = vars(layer)["call"] = layer.call
    state = random.getstate()
    serving.MonteCarlo(model, num_samples=2)(np.ones((1, 6)))
    assert random.getstate() == state
    assert vars(layer)["call"] is mine


def test_threads():
    """Two may trace at once, and a third may use the model meanwhile, which then does not drop."""
    model, x = small_cnn(), images()
    expected, plain = serving.MonteCarlo(model, 3)(x)["mean"].numpy(), model(x).numpy()
    both, got = [serving.MonteCarlo(model, 3) for _ in range(2)], {}
    threads = [threading.Thread(target=lambda i=i, mc=mc: got.update({i: mc(x)})) for i, mc in enumerate(both)]
    with _active.redirected(both[0].stage.active, lambda stream: None):
        other = threading.Thread(target=lambda: got.update(plain=model(x)))
        other.start()
        other.join()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(got["plain"], plain)
    for i in range(2):
        np.testing.assert_allclose(got[i]["mean"], expected, atol=1e-6)
    with _active.TRACING:  # somebody traces for a long time: calls that are traced already do not wait
        other = threading.Thread(target=lambda: got.update(late=both[0](x)), daemon=True)
        other.start()
        other.join(timeout=30)
    assert "late" in got


@pytest.mark.costly(keep=0)
def test_no_retrace_for_other_sizes():
    model = models.build_model("unet", depth=1, filters=2, dropout={"skip1": 0.2, "head": 0.2})
    mc = serving.MonteCarlo(model, num_samples=2)
    for batch, size in [(1, (8, 8)), (3, (8, 8)), (2, (5, 7))]:
        assert mc(images(batch, size))["mean"].shape == (batch, *size, 2)
    assert mc._run.experimental_get_tracing_count() == 1


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dropout(0.3),
        keras.layers.Dropout(0.3, noise_shape=(None, 1, None, 1)),
        keras.layers.Dropout(0.3, noise_shape=(1, None, None, None)),
        keras.layers.SpatialDropout2D(0.3),
        keras.layers.GaussianDropout(0.3),
        keras.layers.AlphaDropout(0.3),
        *(
            layers.get({"name": name, "rate": 0.3})
            for name in layers.list_layers(sites_only=True)
            if name not in ("spatial_dropout1d", "spatial_dropout3d")
        ),
    ],
    ids=lambda layer: type(layer).__module__.partition(".")[0] + " " + layer.name,
)
def test_every_layer_samples_also_in_nested_models(layer):
    copy = type(layer).from_config(layer.get_config())
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.BatchNormalization(), copy])
    inputs = keras.Input((8, 8, 1))
    x = inner(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    out = serving.MonteCarlo(model, num_samples=5, sampling="independent")(images())
    assert out["variance"].numpy().max() > 0
    np.testing.assert_array_equal(model(images()), model(images()))


@pytest.mark.parametrize("classes", [2, 3])
def test_softmax(classes):
    """Two classes have a softmax of their own. It is as exact where a probability is nearly 0 or 1."""
    logits = np.random.default_rng(0).uniform(-80, 80, (500, classes)).astype("float32") / 2
    exact = special.softmax(logits.astype("float64"), -1)
    np.testing.assert_allclose(softmax(tf.constant(logits)), exact, rtol=1e-5)
    far = softmax(tf.constant([[0.0] * (classes - 1) + [1e4], [3e38] + [-3e38] * (classes - 1)]))
    np.testing.assert_array_equal(far, np.eye(classes)[[-1, 0]])


class OwnSoftmax(keras.layers.Layer):
    """A softmax that the graph does not show."""

    def call(self, x):
        return tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True)


def test_calls_are_made_side_by_side_once_a_batch_has_shown_what_the_output_is():
    inputs = keras.Input((4,))
    drop = keras.layers.Dropout(0.5)(keras.layers.Dense(3)(inputs))
    mc = serving.MonteCarlo(keras.Model(inputs, OwnSoftmax()(drop)), num_samples=2)
    assert not mc.side_by_side
    mc(np.zeros((2, 4), "float32"))
    assert mc.side_by_side


def test_single_logit_is_a_coin():
    out = serving.MonteCarlo(small_cnn(num_classes=1, scale=1.0), num_samples=6)(images())
    p = out["mean"].numpy()[:, 0]
    np.testing.assert_allclose(out["predictive_entropy"], -p * np.log(p) - (1 - p) * np.log(1 - p), atol=1e-5)
    assert out["mean"].shape == (5, 1) and (out["mutual_information"].numpy() >= 0).all()


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    out = serving.MonteCarlo(small_cnn(), num_samples=3)(images())
    assert out["mean"].dtype == tf.float32 and np.isfinite(out["mean"]).all()


def test_one_sample_has_no_variance():
    out = serving.MonteCarlo(small_cnn(), num_samples=1)(images())
    np.testing.assert_array_equal(out["variance"], 0)
    np.testing.assert_allclose(out["mutual_information"], 0, atol=1e-6)


def test_sites_and_rates_are_chosen_at_inference():
    model, x = small_cnn({"dense1": 0.3, "module1": 0.3}), images()
    plain = tf.nn.softmax(model(x))
    off = serving.MonteCarlo(model, 3, sites={"dense1": 0.0})(x)
    np.testing.assert_allclose(off["mean"], plain, atol=1e-6)  # module1 is not named, so it is off
    one = serving.MonteCarlo(model, 20, sites={"dense1": True})(x)["variance"].numpy().mean()
    named = serving.MonteCarlo(model, 20, sites={"dense1_dropout": True})(x)["variance"].numpy().mean()
    more = serving.MonteCarlo(model, 20, sites={"dense*": 0.8})(x)["variance"].numpy().mean()
    assert 0 < one == named < more


def test_the_live_rate_acts_without_a_retrace():
    model, x = small_cnn({"dense1": 0.3}), images()
    mc = serving.MonteCarlo(model, 3)
    assert mc(x)["variance"].numpy().max() > 0
    model.get_layer("dense1_dropout").rate = 0.0
    np.testing.assert_allclose(mc(x)["variance"], 0, atol=1e-6)
    assert mc._run.experimental_get_tracing_count() == 1


def pooled() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Dropout(0.5, name="head")(keras.layers.Flatten()(layers.StochasticPooling2D(name="pool")(inputs)))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_a_layer_without_a_rate_is_on_or_off():
    both = serving.MonteCarlo(pooled(), 4, sites={"*": True})(images())
    again = serving.MonteCarlo(pooled(), 4, sites={"*": 0.2, "pool": True})(images())
    assert both["variance"].numpy().max() > 0 and again["variance"].numpy().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: serving.MonteCarlo(small_cnn(None)), "no dropout layer to sample"),
        (lambda: serving.MonteCarlo(small_cnn(), 0), "num_samples=0"),
        (lambda: serving.MonteCarlo(small_cnn(), 2.5), "num_samples=2.5"),
        (lambda: serving.MonteCarlo(small_cnn(), sampling="balance"), "Did you mean 'balanced'"),
        (lambda: serving.MonteCarlo(small_cnn(), seed=-1), "seed=-1"),
        (
            lambda: serving.MonteCarlo(small_cnn(), sites={"dence1": True}),
            "Unknown dropout site 'dence1'. Did you mean 'dense1'",
        ),
        (lambda: serving.MonteCarlo(small_cnn(), sites={"dense1": 1.5}), r"sites\['dense1'\]=1.5"),
        (
            lambda: serving.MonteCarlo(small_cnn())(np.zeros((2, 9, 8, 1))),
            r"\(None, 8, 8, 1\).*Received: \(2, 9, 8, 1\)",
        ),
        (lambda: serving.MonteCarlo(small_cnn())(np.zeros((8, 8, 1))), "Received: .8, 8, 1."),
        (lambda: serving.MonteCarlo(small_cnn(), sites={}), "at least one site"),
        (lambda: serving.MonteCarlo(pooled(), sites={"*": 0.2}), "'pool' is a StochasticPooling2D.*'.': 0.2"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
