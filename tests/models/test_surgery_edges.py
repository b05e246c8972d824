"""Surgery: what dropout depends on where it stands, and what hangs on it."""

import keras
import numpy as np
import pytest

from _foreign import dropouts, same, standing
from dropzoo import layers, models

K = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


@pytest.mark.parametrize("spec", ["spatial_dropout2d:0.5", K.SpatialDropout2D(0.5)])
def test_whole_maps_are_dropped_where_channels_are_first(spec):
    inputs = keras.Input((3, 8, 6), name="image")
    x = K.Conv2D(5, 1, data_format="channels_first", name="conv")(inputs)
    x = K.ReLU(name="relu")(K.BatchNormalization(axis=1, name="norm")(x))
    model = keras.Model(inputs, K.Dense(2, name="out")(K.Flatten(name="flatten")(x)))
    new = models.retrofit(model, {"conv": spec, "relu": spec})
    assert [layer.data_format for layer in dropouts(new)] == ["channels_first"] * 2
    kept = np.asarray(dropouts(new)[0](np.ones((16, 5, 8, 6), "float32"), training=True))
    assert np.ptp(kept, axis=(2, 3)).max() == 0 and np.ptp(kept, axis=1).max() > 0
    kept_so = models.retrofit(new, {"flatten": 0.1})
    assert [getattr(layer, "data_format", None) for layer in dropouts(kept_so)][:2] == ["channels_first"] * 2
    last = models.retrofit(
        keras.Sequential([keras.Input((8, 8, 3)), K.Conv2D(4, 3, name="c"), K.ReLU()]), {"c": spec}
    )
    assert dropouts(last)[0].data_format == "channels_last"


@pytest.mark.parametrize("drop", [K.Dropout, layers.Dropout])
def test_dropout_that_is_always_on_stays_so(drop):
    inputs = keras.Input((4,))
    x = drop(0.5, name="drop")(K.Dense(64, name="hidden")(inputs), training=True)
    model = keras.Model(inputs, K.Dense(2, name="out")(x))
    new = models.retrofit(model, {"drop": 0.3})
    assert [layer.rate for layer in dropouts(new)] == [0.3]
    assert not same(new(X), new(X)) and not same(model(X), model(X))
    other = models.retrofit(model, {"hidden": K.Activation("linear")})  # does not ask whether it trains
    assert dropouts(other) == [] and same(other(X), models.strip_dropout(model)(X))


def test_a_sequential_of_dropout_alone_stays_a_model():
    alone = keras.Sequential([keras.Input((4,)), K.Dropout(0.5)], name="alone")
    assert same(models.strip_dropout(alone)(X, training=True), X)
    inputs = keras.Input((4,))
    around = models.strip_dropout(keras.Model(inputs, K.Dense(2, name="out")(alone(inputs))))
    assert dropouts(around) == [] and around(X).shape == (8, 2)


def test_outputs_keep_their_names():
    inputs = keras.Input((4,))
    hidden = K.Dense(3, name="hidden")(inputs)
    drop = K.Dropout(0.5, name="drop")
    outputs = [drop(hidden), K.Dense(1, name="out")(K.Dropout(0.5, name="inside")(hidden)), drop(inputs)]
    model = keras.Model(inputs, outputs[:2])
    model.compile("sgd", {"drop": "mse", "out": "mse"}, jit_compile=False)
    new = models.strip_dropout(model)
    assert dropouts(new) == [] and [layer.name for layer in new.layers][1:] == ["hidden", "drop", "out"]
    new.fit(X, {"drop": X[:, :3], "out": X[:, :1]}, verbose=0)
    assert same(models.strip_dropout(keras.Model(inputs, outputs))(X), keras.Model(inputs, outputs)(X))
    assert standing(new) == []


def test_a_name_comes_before_a_pattern():
    enc, enc0 = (
        keras.Sequential([keras.Input((4,)), K.Dense(4, name=name)], name=model)
        for name, model in (("a", "enc[0] b"), ("b", "enc0 b"))
    )
    names = ("conv[1]", "conv1", "block:conv", "after:all", "all")
    model = keras.Sequential(
        [keras.Input((4,)), *(K.Dense(4, name=n) for n in names), enc, enc0, K.Dense(1, name="o?")]
    )
    for key, sites in {
        "conv[1]": ["conv[1]"],
        "after:conv[1]": ["conv[1]"],
        "conv[12]": ["conv1"],
        "after:conv[!2]": ["conv1"],
        "block:conv": ["block:conv"],
        "after:block:conv": ["block:conv"],
        "after:all": ["after:all"],
        "inside:enc[0] b": ["enc[0] b/a"],
        "inside:enc[0] b after:Dense": ["enc[0] b/a"],
        "inside:enc?*": ["enc0 b/b", "enc[0] b/a"],
        "enc[0] b/a": ["enc[0] b/a"],
        "before:o?": ["enc0 b/b"],
    }.items():
        assert sorted(standing(models.retrofit(model, {key: 0.5}))) == sites, key
    for key in ("o?", "beside:conv1", "inside:enc", "inside: enc"):
        with pytest.raises(ValueError, match="Unknown"):
            models.retrofit(model, {key: 0.5})
