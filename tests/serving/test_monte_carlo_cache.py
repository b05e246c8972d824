"""Monte-Carlo dropout: the cached trunk, folded samples, and what is kept."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.layers import _samples
from dropzoo.serving import _active

kl = keras.layers
T = 7  # no multiple of the folds below


def passes(model, x, sampling, sites=None, num_samples=T, seed=3) -> np.ndarray:
    """The softmax of T plain passes of the whole model with the same masks, (samples, batch, ...)."""
    mc = serving.MonteCarlo(model, num_samples, sampling, sites)
    rows = _samples.content_keys(tf.constant(x)) if sampling != "fixed" else tf.zeros([len(x)], tf.uint32)
    key, seen = tf.constant(seed, tf.int64), []
    for t in range(num_samples):
        draw = lambda stream, t=t: mc._draw(stream, key, rows, tf.constant(t), plain=True)  # noqa: E731
        with _active.redirected(mc._active, draw):
            logits = tf.cast(model(x, training=False), tf.float32)
        seen.append(tf.sigmoid(logits) if logits.shape[-1] == 1 else tf.nn.softmax(logits))
    return np.stack(seen)


def unet(**options):
    return models.build_model(
        "unet",
        **{"depth": 1, "filters": 4, "num_classes": 3, "dropout": {"bottleneck*": 0.4, "head": 0.3}, **options},
    )


def nested():
    """A Sequential inside a Functional inside a Functional, the middle one called twice with its own dropout."""
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), kl.BatchNormalization(), layers.Dropout(0.3), kl.Conv2D(4, 3, padding="same")]
    )
    x = middle_in = keras.Input((8, 8, 4))
    x = kl.Conv2D(4, 3, padding="same", activation="relu")(x)
    middle = keras.Model(middle_in, kl.Add()([inner(x), x]), name="middle")
    inputs = keras.Input((8, 8, 1), name="images")
    stem = kl.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = kl.Average()([middle(stem), middle(stem * 2.0)])
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))


class Wrapped(kl.Layer):
    """A layer of somebody's own with dropout inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.dropout = kl.Conv2D(4, 3), layers.SpatialDropout2D(0.4)

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return self.dropout(self.conv(x))

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


class Own(keras.Model):
    """A Functional model with a `call` of its own, which the graph does not tell of."""

    def call(self, x, training=None):
        return 2.0 * super().call(x, training=training)


def opaque():
    stack = [kl.Conv2D(4, 3, activation="relu", name="stem"), Wrapped(name="wrapped"), kl.Flatten(), kl.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *stack])


def own_call():
    inputs = keras.Input((8, 8, 1))
    x = kl.Flatten()(layers.Dropout(0.3)(kl.Conv2D(4, 3)(inputs)))
    return Own(inputs, kl.Dense(3)(x))


def with_operations():
    """Keras operations, not only layers, on both sides of the cut; a second argument by keyword."""
    inputs = keras.Input((8, 8, 1))
    x = keras.ops.relu(kl.Conv2D(4, 3)(inputs) - 0.1)
    y = kl.Dropout(0.4, name="site")(x)
    x = keras.ops.concatenate([x, y * 2.0], axis=-1)
    return keras.Model(inputs, kl.Dense(3)(keras.ops.max(x, axis=(1, 2))))


def masked():
    """A sequence whose Keras mask, of the steps below a half, crosses the cut."""
    inputs = keras.Input((8, 1))
    x = kl.Masking()(kl.ReLU(threshold=0.5)(inputs))
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling1D()(layers.Dropout(0.3)(x))))


def joined():
    """Convolutions and a dense layer of what is partly deterministic, in any order."""
    inputs = keras.Input((8, 8, 1))
    a, b = (kl.Conv2D(n, 3, padding="same", activation="tanh")(inputs) for n in (3, 5))
    x = kl.Concatenate()([a, layers.Dropout(0.3)(b), inputs])
    x = kl.Conv2D(4, 3, 2, padding="same", activation="relu", name="strided")(x)
    y = kl.Conv2D(2, 3, padding="valid", dilation_rate=2, name="dilated")(
        kl.Concatenate(-1)([b, a, kl.UpSampling2D()(x)])
    )
    x = keras.ops.concatenate([kl.Flatten()(a), kl.Flatten()(y)], axis=1)
    return keras.Model(inputs, kl.Dense(3, name="dense")(x))


def one_mask_for_all():
    stack = [kl.Conv2D(4, 3), kl.Flatten(), layers.DropConnectDense(6, 0.4, name="first"), kl.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *stack])


def late_cnn(**options):
    return small_cnn({"dense1": 0.4, "head": 0.3}, **options)


MODELS = {
    "cnn": (small_cnn, (8, 8)),
    "late cnn": (late_cnn, (8, 8)),
    "one logit": (functools.partial(late_cnn, num_classes=1, scale=1.0), (8, 8)),
    "unet": (unet, (9, 7)),
    "unet skip": (functools.partial(unet, dropout={"skip1": "drop_block2d:0.3,block_size=2"}), (9, 7)),
    "unet one logit": (functools.partial(unet, num_classes=1), (9, 7)),
    "segnet": (
        lambda: models.build_model(
            "segnet", input_shape=(None, None, 1), convs=(1, 1), filters=4, dropout={"decoder*": 0.3}
        ),
        (8, 6),
    ),
    "nested": (nested, (8, 8)),
    "opaque": (opaque, (8, 8)),
    "own call": (own_call, (8, 8)),
    "operations": (with_operations, (8, 8)),
    "masked": (masked, (8,)),
    "joined": (joined, (8, 8)),
    "one mask for all": (one_mask_for_all, (8, 8)),
}


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


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        pytest.param(n, s, marks=[] if s == "balanced" or n == "cnn" else pytest.mark.slow)
        for n in MODELS
        for s in SAMPLINGS
    ],
)
def test_loop_fold_and_cache_are_plain_passes(name, sampling):
    build, size = MODELS[name]
    model, x = build(), images(3, size)
    before = [variable.numpy().copy() for variable in model.variables]
    p = passes(model, x, sampling)
    assert p.std(0).max() > 1e-3
    ways = [{"fold": 3}, {"fold": 1}, {"cache": False, "fold": 3}, {"cache": False, "fold": 1}, {}]
    # All ways where the models differ most; elsewhere the one that has everything, and the default.
    for way in ways if sampling == "balanced" and name in ("cnn", "unet") else ways[::4]:
        if name == "one mask for all" and way.get("fold") == 3:
            continue
        mc = serving.MonteCarlo(model, T, sampling, seed=3, return_samples=True, **way)
        out = mc(x)
        check(out, p)
        np.testing.assert_allclose(out["samples"], p.swapaxes(0, 1), atol=1e-5)
        assert out["samples"].shape == (3, T, *model.compute_output_shape(x.shape)[1:])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


SITES = [n for n in layers.list_layers(sites_only=True) if n not in ("spatial_dropout1d", "spatial_dropout3d")]
OTHERS = [layers.ConcreteDropout(kl.Conv2D(4, 3), 100), layers.MaxPoolDropout2D(0.3), layers.StochasticPooling2D()]


@pytest.mark.parametrize("kind", [*SITES, *range(len(OTHERS))])
def test_every_layer_folds(kind):
    layer = OTHERS[kind] if isinstance(kind, int) else layers.get({"name": kind, "rate": 0.3})
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input((8, 8, 1))
    x = layer(kl.Conv2D(4, 3, padding="same")(inputs))
    model, x = keras.Model(inputs, kl.Dense(2)(kl.GlobalMaxPooling2D()(x))), images(3)
    one, folded = (
        serving.MonteCarlo(model, 4, cache=cache, fold=fold)(x) for cache, fold in ((False, 1), (True, 3))
    )
    assert one["variance"].numpy().max() > 0
    for key, value in one.items():
        np.testing.assert_allclose(folded[key], value, atol=1e-5)


def test_folding_by_the_memory_budget():
    model, x = unet(), images(3, (9, 7))
    expected = serving.MonteCarlo(model, T, fold=1)(x)
    seen = []
    for budget in (1, 60_000, 1 << 40):
        mc = serving.MonteCarlo(model, T, memory_budget=budget)
        seen.append(int(mc._at_once(tf.constant(x))))
        for key, value in mc(x).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5)
    assert seen[0] == 1 < seen[1] < T == seen[2]
    small = serving.MonteCarlo(model, T, memory_budget=60_000)
    assert int(small._at_once(tf.constant(images(12, (9, 7))))) < seen[1]


def test_mixed_precision_is_the_same_with_and_without_the_cache():
    keras.config.set_dtype_policy("mixed_float16")
    for build, size in (MODELS["nested"], MODELS["joined"]):
        model, x = build(), images(3, size)
        p = passes(model, x, "balanced")
        for way in ({"cache": False, "fold": 1}, {"fold": 3}):
            out = serving.MonteCarlo(model, T, seed=3, **way)(x)
            np.testing.assert_allclose(out["mean"], p.mean(0), atol=2e-3)


def test_where_the_model_is_cut():
    plan = serving.MonteCarlo(unet(depth=2, dropout={"bottleneck_conv2": 0.5})).plan((32, 48))
    convs = ("decoder1_conv1_conv", "decoder2_conv1_conv")
    assert set(plan.frontier) == {"images", *convs, "bottleneck_conv2"} and not plan.opaque
    assert plan.split == convs and "of these in part: decoder1_conv1_conv, decoder2" in str(plan)
    plan = serving.MonteCarlo(nested()).plan()
    assert not plan.opaque and 0 < plan.f < 1
    plan = serving.MonteCarlo(opaque()).plan()
    assert plan.frontier == ("stem",) and plan.opaque == ("wrapped",)
    assert "computed whole in each sample: wrapped" in str(plan)
    plan = serving.MonteCarlo(own_call()).plan()
    assert plan.f == 0 and plan.speedup == 1 and len(plan.opaque) == 1
    plan = serving.MonteCarlo(late_cnn(), cache=False).plan()
    assert plan.f == 0 and len(plan.frontier) == 1
    model = small_cnn()
    assert serving.MonteCarlo(model, sites={"dense1": True}).plan().f > serving.MonteCarlo(model).plan().f


def test_which_convolutions_are_split():
    plan = serving.MonteCarlo(joined()).plan()
    assert plan.split == ("strided", "dilated", "dense")
    first = 9 * 64 * (3 + 5)  # of the two convolutions of the images
    halves = 9 * (3 + 1) * 4 * 16 + 9 * (5 + 3) * 2 * 16 + 192 * 3
    assert plan.trunk_macs == first + halves
    assert plan.head_macs == 9 * 5 * 4 * 16 + 9 * 4 * 2 * 16 + 32 * 3
    assert serving.MonteCarlo(joined(), cache=False).plan().split == ()

    def model(axis=-1, twice=False, **options):
        inputs = keras.Input((8, 8, 2))
        x = kl.Concatenate(axis)([layers.Dropout(0.5)(inputs), inputs])
        y = kl.GlobalMaxPooling2D()(kl.Conv2D(4, 3, **options)(x))
        return keras.Model(inputs, kl.Add()([y, kl.GlobalMaxPooling2D()(x)]) if twice else y)

    for kept in (model(axis=1), model(twice=True), model(groups=2)):  # rows joined; read by others too; in groups
        assert serving.MonteCarlo(kept).plan().split == ()
    assert serving.MonteCarlo(model()).plan().split != ()


def test_multiplications_by_hand():
    inputs = keras.Input((None, None, 2))
    x = kl.Conv2D(4, 3, strides=2, padding="same", groups=2)(inputs)  # 3*3*1*4 at 4x6
    x = kl.DepthwiseConv2D(3, padding="same")(x)  # 3*3*4 at 4x6
    x = layers.Dropout(0.5)(kl.BatchNormalization()(x))
    x = kl.Conv2DTranspose(3, 2, strides=2)(x)  # 2*2*3*4 at 4x6
    x = kl.SeparableConv2D(5, 3, padding="same")(x)  # 3*3*3 + 3*5 at 8x12
    model = keras.Model(inputs, kl.Dense(6)(kl.GlobalMaxPooling2D()(x)))  # 5*6
    plan = serving.MonteCarlo(model, 10).plan((8, 12))
    assert plan.trunk_macs == (36 + 36) * 24
    assert plan.head_macs == 48 * 24 + (27 + 15) * 96 + 30
    assert plan.f == plan.trunk_macs / (plan.trunk_macs + plan.head_macs)
    assert plan.speedup == pytest.approx(1 / (plan.f / 10 + 1 - plan.f))
    assert "8x12x2" in str(plan) and f"f = {plan.f:.3f}" in str(plan)


def test_the_trunk_runs_once():
    """The convolution before the cut stands outside the loop, the one after it inside."""
    stack = [kl.Conv2D(2, 3), layers.Dropout(0.5), kl.Conv2D(3, 3), kl.GlobalMaxPooling2D()]
    mc = serving.MonteCarlo(keras.Sequential([keras.Input((8, 8, 1)), *stack]), 4)
    graph = mc._run.get_concrete_function().graph.as_graph_def()
    assert sum(node.op == "Conv2D" for node in graph.node) == 1
    inside = [sum(node.op == "Conv2D" for node in f.node_def) for f in graph.library.function]
    assert sum(inside) == 1


def test_an_empty_batch():
    for options in ({"num_samples": 3}, {"num_samples": "auto"}, {"num_samples": 3, "return_samples": True}):
        out = serving.MonteCarlo(small_cnn(), **options)(np.zeros((0, 8, 8, 1), "float32"))
        assert out["mean"].shape == (0, 4) and out["mutual_information"].shape == (0,)


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


def test_what_cannot_be_folded_or_planned_says_so():
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
            serving.MonteCarlo(small_cnn()).plan(size)
