"""Monte-Carlo dropout: the cached trunk, folded samples, and what is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _graphs import MODELS, one_mask_for_all, unet
from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import layers, serving
from dropzoo.layers.draws import samples as _samples
from dropzoo.serving.montecarlo import active as _active

kl = keras.layers
T = 7  # no multiple of the folds below


def passes(model, x, sampling, sites=None, num_samples=T, seed=3) -> np.ndarray:
    """The softmax of T plain passes of the whole model with the same masks, (samples, batch, ...)."""
    mc = serving.MonteCarlo(model, num_samples, sampling, sites)
    rows = _samples.content_keys(tf.constant(x)) if sampling != "fixed" else tf.zeros([len(x)], tf.uint32)
    key, seen = tf.constant(seed, tf.int64), []
    for t in range(num_samples):
        draw = lambda stream, t=t: mc._graph.draw(stream, key, rows, tf.constant(t), plain=True)  # noqa: E731
        with _active.redirected(mc.stage.active, draw):
            logits = tf.cast(model(x, training=False), tf.float32)
        seen.append(tf.sigmoid(logits) if logits.shape[-1] == 1 else tf.nn.softmax(logits))
    return np.stack(seen)


def check(out, p):
    entropy = lambda q: -np.where(q > 0, q * np.log(np.maximum(q, 1e-30)), 0).sum(-1)  # noqa: E731
    p = p.astype("float64")
    full = np.concatenate([p, 1 - p], -1) if p.shape[-1] == 1 else p
    mean = full.mean(0)
    expected = {
        "mean": p.mean(0),
        "variance": p.var(0),
        "predictive_entropy": entropy(mean),
        "mutual_information": entropy(mean) - entropy(full).mean(0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5, err_msg=name)


WAYS = {
    "default": {},
    "cache": {"fold": 1},
    "cache and fold": {"fold": 3},
    "loop": {"cache": False, "fold": 1},
    "fold": {"cache": False, "fold": 3},
}


@pytest.mark.costly(keep=2)
@pytest.mark.covering("name", "sampling", "way")
@pytest.mark.parametrize(
    ("name", "way"),
    [(n, w) for n in MODELS for w in WAYS if n != "one mask for all" or WAYS[w].get("fold") != 3],
)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_loop_fold_and_cache_are_plain_passes(name, sampling, way):
    build, size = MODELS[name]
    model, x = build(), images(3, size)
    before = [variable.numpy().copy() for variable in model.variables]
    p = passes(model, x, sampling)
    assert p.std(0).max() > 1e-3
    out = serving.MonteCarlo(model, T, sampling, seed=3, return_samples=True, **WAYS[way])(x)
    check(out, p)
    np.testing.assert_allclose(out["samples"], p.swapaxes(0, 1), atol=1e-5)
    assert out["samples"].shape == (3, T, *model.compute_output_shape(x.shape)[1:])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


SITES = [n for n in layers.list_layers(sites_only=True) if n not in ("spatial_dropout1d", "spatial_dropout3d")]
OTHERS = [layers.ConcreteDropout(kl.Conv2D(4, 3), 100), layers.MaxPoolDropout2D(0.3), layers.StochasticPooling2D()]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("kind", [*SITES, *range(len(OTHERS))])
def test_every_layer_folds(kind):
    layer = OTHERS[kind] if isinstance(kind, int) else layers.get({"name": kind, "rate": 0.3})
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input((8, 8, 1))
    x = layer(kl.Conv2D(4, 3, padding="same")(inputs))
    model, x = keras.Model(inputs, kl.Dense(2)(kl.GlobalMaxPooling2D()(x))), images(3)
    folded = serving.MonteCarlo(model, 4, seed=3, fold=3)(x)
    assert folded["variance"].numpy().max() > 0
    check(folded, passes(model, x, "balanced", num_samples=4))


@pytest.mark.costly(keep=0)
def test_folding_by_the_memory_budget():
    model, x = unet(), images(3, (9, 7))
    expected = serving.MonteCarlo(model, T, fold=1)(x)
    seen = []
    for budget in (1, 60_000, 1 << 40):
        mc = serving.MonteCarlo(model, T, memory_budget=budget)
        seen.append(int(mc._graph.at_once([tf.constant(x)])))
        for key, value in mc(x).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5)
    assert seen[0] == 1 < seen[1] < T == seen[2]
    small = serving.MonteCarlo(model, T, memory_budget=60_000)
    assert int(small._graph.at_once([tf.constant(images(12, (9, 7)))])) < seen[1]


@pytest.mark.costly(keep=0)
def test_mixed_precision_is_the_same_with_and_without_the_cache():
    keras.config.set_dtype_policy("mixed_float16")
    for build, size in (MODELS["nested"], MODELS["joined"]):
        model, x = build(), images(3, size)
        p = passes(model, x, "balanced")
        for way in ({"cache": False, "fold": 1}, {"fold": 3}):
            out = serving.MonteCarlo(model, T, seed=3, **way)(x)
            np.testing.assert_allclose(out["mean"], p.mean(0), atol=2e-3)


def test_uncertainty_has_a_gradient_by_the_pixels():
    model = small_cnn()
    mc, x = serving.MonteCarlo(model, 4, "fixed"), tf.constant(images(2))

    def gradient(plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = mc.sample(x, tf.constant(0, tf.int64), plain)["mean"]
            loss = tf.reduce_sum(out * out)
        return tape.gradient(loss, x).numpy()

    expected = gradient(plain=True)
    assert abs(expected).max() > 1e-3
    np.testing.assert_allclose(gradient(plain=False), expected, atol=1e-5)


@pytest.mark.costly(keep=0)
def test_an_empty_batch():
    for options in ({"num_samples": 3}, {"num_samples": "auto"}, {"num_samples": 3, "return_samples": True}):
        out = serving.MonteCarlo(small_cnn(), **options)(np.zeros((0, 8, 8, 1), "float32"))
        assert out["mean"].shape == (0, 4) and out["mutual_information"].shape == (0,)
    maps = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.SpatialDropout2D(0.4), keras.layers.Conv2D(2, 1)]
    )
    assert serving.MonteCarlo(maps, 3)(np.zeros((0, 8, 8, 1), "float32"))["mean"].shape == (0, 8, 8, 2)


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    ("name", "sampling"),  # how masks are drawn has nothing to do with where the model is cut
    [("late cnn", "fixed"), ("unet one logit", "balanced"), ("one mask for all", "independent")],
)
def test_exports_hold_the_cut_too(name, sampling, tmp_path):
    build, size = MODELS[name]
    model, x = build(), images(3, size)
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", T, sampling=sampling, seed=3)))
    out = loaded.signatures["predict_mc"](images=tf.constant(x))
    assert set(out) == {"mean", "variance", "predictive_entropy", "mutual_information"}
    check(out, passes(model, x, sampling))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": "many"}, "positive int or 'auto'. Received: num_samples='many'"),
        ({"num_samples": True}, "num_samples=True"),
        ({"fold": 0}, "fold=0"),
        ({"fold": 2.0}, "positive int or 'auto'. Received: fold=2.0"),
        ({"memory_budget": 0}, "memory_budget=0"),
        ({"tolerance": 0.1}, "for num_samples='auto'.*tolerance=0.1"),
        ({"max_samples": 10}, "for num_samples='auto'.*max_samples=10"),
        ({"num_samples": "auto", "tolerance": -1.0}, "tolerance=-1.0"),
        ({"num_samples": "auto", "max_samples": 0}, "max_samples=0"),
        ({"num_samples": "auto", "return_samples": True}, "`return_samples` needs a number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        serving.MonteCarlo(small_cnn(), **options)


def test_what_cannot_be_folded_or_cut_says_so():
    with pytest.raises(ValueError, match="one mask for the whole batch.*pass fold=1.*fold=2"):
        serving.MonteCarlo(one_mask_for_all(), 4, fold=2)(images())
    inputs = keras.Input((8, 8, 1))
    x = layers.Dropout(0.3)(inputs)
    x = kl.Flatten()(x - keras.ops.mean(x, axis=0, keepdims=True))
    mixing = keras.Model(inputs, kl.Dense(3)(x))
    with pytest.raises(ValueError, match="mixes the images of a batch; pass fold=1. Received: fold=2"):
        serving.MonteCarlo(mixing, 4, fold=2)
    x = images()
    check(serving.MonteCarlo(mixing, T, "fixed", seed=3)(x), passes(mixing, x, "fixed"))
    for size in ((9, 8), (8,), (8, 8, 1, 1), (8.0, 8)):
        with pytest.raises(ValueError, match="`size` must fit"):
            serving.MonteCarlo(small_cnn()).cut(size)
