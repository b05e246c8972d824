"""Several inputs and outputs, of any dtype, in MonteCarlo, Ensemble, TestTimeAugmentation and predict_tiled.

Rule: inputs are taken as Keras takes them (an array, a list, a tuple, a dict by name; any dtype), the masks of a
row depend on the content of all its inputs, and each output has its own kind and statistics, by its name.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from dropzoo import layers, serving

RNG = np.random.default_rng(0)
SERIES, FIXED = RNG.random((5, 6, 3), "float32"), RNG.random((5, 4), "float32")


def forecaster(by_name=False):
    keras.utils.set_random_seed(0)
    series, fixed = keras.Input((6, 3), name="series"), keras.Input((4,), name="fixed")
    a = kl.GlobalAveragePooling1D()(kl.Conv1D(4, 3, activation="relu")(series))
    b = kl.Dropout(0.5)(kl.Dense(4, activation="relu")(fixed))
    joined = kl.Dense(2)(kl.Dropout(0.3)(kl.Concatenate()([a, b])))
    return keras.Model({"series": series, "fixed": fixed} if by_name else [series, fixed], joined)


FORMS = {
    "a list": [SERIES, FIXED],
    "a tuple": (SERIES, FIXED),
    "a dict": {"series": SERIES, "fixed": FIXED},
    "tensors": [tf.constant(SERIES), tf.constant(FIXED)],
    "float64": {"fixed": FIXED.astype("float64"), "series": SERIES.astype("float64")},
}


@pytest.mark.parametrize("by_name", [False, True])
def test_every_form_is_the_same(by_name):
    model, options = forecaster(by_name), {"num_samples": 6, "task": "regression"}
    expected = serving.MonteCarlo(model, fold=1, **options)(FORMS["a dict"])
    assert expected["mean"].shape == (5, 2) and expected["variance"].numpy().max() > 0
    mc = serving.MonteCarlo(model, **options)
    for form, given in FORMS.items():
        if by_name and isinstance(given, (list, tuple)):  # Keras sorts the names
            given = given[::-1]
        np.testing.assert_allclose(mc(given)["mean"], expected["mean"], atol=1e-6, err_msg=form)
    off = serving.MonteCarlo(model, sites={"*": 0.0}, **options)(FORMS["a dict"])["mean"]
    np.testing.assert_allclose(off, model(FORMS["a dict"]), atol=1e-6)
    cut = mc.cut()
    assert cut.image_shape == ((6, 3), (4,)) or by_name
    assert "multiplications for an image of" in str(cut)


def test_dicts_in_dicts():
    """Inputs and outputs keep the structure that the model has; the names are paths."""
    deep = {
        "a": {"x": keras.Input((2,), name="x"), "y": keras.Input((2,), name="y")},
        "b": keras.Input((3,), name="b"),
    }
    joined = kl.Concatenate()([deep["a"]["x"], deep["a"]["y"], deep["b"]])
    outputs = {"p": {"q": kl.Dense(2, activation="softmax")(kl.Dropout(0.3)(joined))}, "r": kl.Dense(1)(joined)}
    mc = serving.MonteCarlo(keras.Model(deep, outputs), 2, sites={"*": 0.0}, task={"r": "regression"})
    given = {"b": FIXED[:, :3], "a": {"y": FIXED[:, 1:3], "x": FIXED[:, :2]}}
    found, expected = mc(given), mc.model(given)
    np.testing.assert_allclose(found["p/q"]["mean"], expected["p"]["q"], atol=1e-6)
    np.testing.assert_allclose(found["r"]["mean"], expected["r"], atol=1e-6)
    with pytest.raises(ValueError, match="takes 3 inputs, a/x, a/y, b"):
        mc({"a": {"x": FIXED[:, :2]}, "b": FIXED[:, :3]})


def test_masks_are_keyed_by_all_inputs():
    a, b = keras.Input((200,)), keras.Input((3,))
    model = keras.Model([a, b], layers.Dropout(0.5)(a + 0 * ops.sum(b, -1, keepdims=True)))
    mc = serving.MonteCarlo(model, 1, task="regression")
    ones = np.ones((2, 200), "float32")

    def dropped(second):
        return mc([ones, second])["mean"].numpy() == 0

    same, other = dropped(np.ones((2, 3))), dropped(np.array([[1, 1, 1], [1, 1, 2]]))
    assert np.array_equal(same[0], same[1]) and np.array_equal(same[0], other[0])
    assert not np.array_equal(other[0], other[1])
    swapped = keras.Model([a, b], model.outputs)
    np.testing.assert_array_equal(
        serving.MonteCarlo(swapped, 1, task="regression")([ones, np.ones((2, 3))])["mean"] == 0, same
    )


def embedded(dtype):
    ids = keras.Input((4,), dtype=dtype, name="ids")
    codes = kl.StringLookup(vocabulary=list("abcd"))(ids) if dtype == "string" else ids
    h = kl.Dropout(0.4)(kl.Flatten()(kl.Embedding(9, 3)(codes)))
    return keras.Model(ids, kl.Dense(3)(h))


@pytest.mark.costly(keep=2)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "string", "bool"])
def test_dtypes(dtype):
    keras.utils.set_random_seed(0)
    x = RNG.integers(0, 4, (6, 4))
    x = np.array(list("abcd"))[x] if dtype == "string" else x.astype(dtype)
    if dtype == "bool":
        inputs = keras.Input((4,), dtype="bool")
        model = keras.Model(inputs, kl.Dense(3)(kl.Dropout(0.4)(ops.cast(inputs, "float32"))))
    else:
        model = embedded(dtype)
    loop = serving.MonteCarlo(model, 4, fold=1)(tf.constant(x))
    assert loop["variance"].numpy().max() > 0
    if dtype == "string":
        for name, value in serving.MonteCarlo(model, 4, fold=3)(tf.constant(x)).items():
            np.testing.assert_allclose(value, loop[name], atol=1e-5)
    off = serving.MonteCarlo(model, 2, sites={"*": 0.0})(tf.constant(x))["mean"]
    np.testing.assert_allclose(off, tf.nn.softmax(model(tf.constant(x))), atol=1e-6)


def test_large_ids_are_not_rounded():
    ids = keras.Input((1,), dtype="int64")
    model = keras.Model(ids, kl.Dropout(1e-7)(ops.cast(ids - 2**40, "float32")))
    out = serving.MonteCarlo(model, 1, task="regression")(np.array([[2**40 + 3], [2**40 + 5]]))
    np.testing.assert_allclose(out["mean"], [[3], [5]], rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_last_axis_may_be_missing_as_in_keras(rank):
    shape = (7,) if rank == 1 else (7, 6, 6)
    inputs = keras.Input((1,) if rank == 1 else (6, 6, 1))
    model = keras.Model(inputs, kl.Dense(2)(kl.Dropout(0.3)(kl.Flatten()(inputs))))
    x = RNG.random(shape, "float32")
    mc = serving.MonteCarlo(model, 3)
    np.testing.assert_array_equal(mc(x)["mean"], mc(x[..., None])["mean"])


def two_heads(names=True):
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1), name="image")
    h = kl.Dropout(0.4)(kl.Conv2D(4, 3, padding="same", activation="relu")(image))
    prob, dist = kl.Conv2D(1, 1, activation="sigmoid", name="prob")(h), kl.Conv2D(5, 1, name="dist")(h)
    kind = kl.Dense(3, name="kind")(kl.GlobalAveragePooling2D()(h))
    return keras.Model(image, {"p": prob, "d": dist, "k": kind} if names else [prob, dist, kind])


IMAGES = RNG.random((3, 8, 8, 1), "float32")
TASKS = {"p": "binary", "d": "regression"}


@pytest.mark.parametrize("names", [True, False])
def test_outputs_by_name(names):
    model = two_heads(names)
    keys = ("p", "d", "k") if names else ("prob", "dist", "kind")
    task = {keys[0]: "binary", keys[1]: "regression"} if names else ["binary", "regression", "multi_class"]
    mc = serving.MonteCarlo(model, 6, task=task, return_samples=True)
    out = mc(IMAGES)
    assert set(out) == set(keys)
    prob, dist, kind = (out[key] for key in keys)
    assert (
        set(dist) == {"mean", "variance", "samples"}
        and "mutual_information" in prob
        and "mutual_information" in kind
    )
    assert [x["mean"].shape for x in (prob, dist, kind)] == [(3, 8, 8, 1), (3, 8, 8, 5), (3, 3)]
    assert prob["samples"].shape == (3, 6, 8, 8, 1)
    np.testing.assert_allclose(tf.reduce_sum(kind["mean"], -1), 1, atol=1e-5)
    # Each output alone, by a model of it alone, has the same masks.
    for key, tensor in zip(
        keys, keras.tree.flatten(model.output) if not names else [model.output[k] for k in keys], strict=True
    ):
        alone = keras.Model(model.inputs, tensor)
        kinds = dict(zip(keys, ("binary", "regression", "multi_class"), strict=True))
        same = serving.MonteCarlo(alone, 6, task=kinds[key])(IMAGES)
        for name, value in same.items():
            np.testing.assert_allclose(out[key][name], value, atol=1e-5, err_msg=f"{key} {name}")


@pytest.mark.parametrize("make", [serving.TestTimeAugmentation, lambda m, **kw: serving.Ensemble([m, m], **kw)])
def test_rivals(make):
    model = two_heads()
    out = make(model, task=TASKS)(IMAGES)
    assert out["p"]["mean"].shape == (3, 8, 8, 1) and set(out["d"]) == {"mean", "variance"}
    model2 = forecaster()
    if make is not serving.TestTimeAugmentation:
        both = make(model2, task="regression")([SERIES, FIXED])
        np.testing.assert_allclose(both["mean"], model2([SERIES, FIXED]), atol=1e-6)


def test_augmentation_turns_images_only():
    image, age = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="age")
    h = kl.Conv2D(2, 3, padding="same")(image) + kl.Reshape((1, 1, 2))(kl.Dense(2)(age))
    model = keras.Model([image, age], [h, kl.Dense(2)(kl.Flatten()(h))])
    x = [RNG.random((2, 6, 6, 1), "float32"), RNG.random((2, 2), "float32")]
    seen, flipped = model(x), model([x[0][:, :, ::-1], x[1]])
    out = serving.TestTimeAugmentation(model, task="regression")(x)
    maps, vector = out.values()
    np.testing.assert_allclose(maps["mean"], (seen[0] + flipped[0][:, :, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(vector["mean"], (seen[1] + flipped[1]) / 2, atol=1e-6)


def test_as_many_samples_as_it_takes_for_all_outputs():
    out = serving.MonteCarlo(
        two_heads(), "auto", task=TASKS, tolerance={"d": 10.0, "p": 0.02, "k": 0.02}, max_samples=32
    )(IMAGES)
    counts = out["p"]["num_samples"].numpy()
    assert counts.min() >= 8 and all(np.array_equal(out[key]["num_samples"], counts) for key in out)


@pytest.mark.parametrize("flat", ["logit", "probability", "value"])
def test_one_number_an_image(flat):
    inputs = keras.Input((4,))
    h = kl.Dense(1, activation="sigmoid" if flat == "probability" else None)(kl.Dropout(0.4)(inputs))
    model, x = keras.Model(inputs, ops.squeeze(h, -1)), RNG.normal(size=(5, 4)).astype("float32")
    task = "regression" if flat == "value" else "binary"
    out = serving.MonteCarlo(model, 4, task=task, sites={"*": 0.0})(x)
    assert all(value.shape == (5,) for value in out.values())
    right = model(x).numpy()
    np.testing.assert_allclose(out["mean"], 1 / (1 + np.exp(-right)) if flat == "logit" else right, atol=1e-6)


def test_tiles_of_several():
    image, age = keras.Input((None, None, 1), name="image"), keras.Input((2,), name="age")
    h = layers.SpatialDropout2D(0.3)(kl.Conv2D(2, 3, padding="same")(image))
    h = h + kl.Reshape((1, 1, 2))(kl.Dense(2)(age))
    model = keras.Model([image, age], {"p": kl.Conv2D(1, 1, activation="sigmoid")(h), "d": kl.Conv2D(2, 1)(h)})
    mc = serving.MonteCarlo(model, 3, "fixed", task=TASKS)
    given = {"image": RNG.random((30, 20, 1), "float32"), "age": RNG.random(2, "float32")}
    out = serving.predict_tiled(mc, given, tile=16, overlap=8)
    whole = mc({name: value[None] for name, value in given.items()})
    for key, statistics in whole.items():
        for name, value in statistics.items():
            np.testing.assert_allclose(out[key][name], value[0], atol=1e-4, err_msg=f"{key} {name}")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda: serving.MonteCarlo(forecaster(), 2)([SERIES]),
            "takes 2 inputs, series, fixed: .*Received: list of 1",
        ),
        (lambda: serving.MonteCarlo(forecaster(), 2)(SERIES), "takes 2 inputs"),
        (lambda: serving.MonteCarlo(forecaster(), 2)({"series": SERIES}), "Received: a dict of series"),
        (lambda: serving.MonteCarlo(forecaster(), 2)([SERIES, FIXED[:3]]), "same number of rows.*'fixed': 3"),
        (lambda: serving.MonteCarlo(forecaster(), 2)([SERIES, SERIES]), "The input 'fixed' must have the shape"),
        (lambda: serving.MonteCarlo(embedded("string"), 2)(np.ones((2, 4))), "must be string. Received: float64"),
        (lambda: serving.MonteCarlo(two_heads(), task={"q": "binary"}), "Unknown output in `task` 'q'.*d, k, p"),
        (lambda: serving.MonteCarlo(two_heads(), task=["binary"]), "an entry for each output, d, k, p"),
        (lambda: serving.MonteCarlo(two_heads(), task="binary"), "needs a model with one output unit"),
        (lambda: serving.MonteCarlo(two_heads(), task=TASKS, from_logits={"d": True}), "regression.* has neither"),
        (lambda: serving.MonteCarlo(forecaster(), from_logits=3), "True, False or None. Received: from_logits=3"),
    ],
)
def test_bad_input(use, message):
    with pytest.raises(ValueError, match=message):
        use()
