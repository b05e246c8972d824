"""Surgery: models of odd kinds, and what is refused."""

import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from _foreign import (
    dropouts,
    functional,
    inputs_for,
    nested,
    residual,
    same,
    siamese,
    standing,
)
from dropzoo import layers, models, serving

K = keras.layers


class Configless(K.Layer):
    def __init__(self, something, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs):
        return inputs + 1

    def get_config(self):
        return {"name": self.name}


WRONG = [
    (functional, None, "`plan` must be a dict"),
    (functional, 0.3, "`plan` must be a dict"),
    (functional, "paper", "different for each model"),
    (functional, "unet_2015", "has none of the sites of the plan"),
    (functional, "no_such_plan", "Unknown plan 'no_such_plan'"),
    (functional, {"conv3": 0.1}, "Unknown site 'conv3'. Did you mean 'conv"),
    (functional, {"conv1": 1.5}, r"`rate` must be a number in \[0, 1\)"),
    (functional, {"conv1": "drop_blok2d:0.1"}, "Unknown layer 'drop_blok2d'. Did you mean 'drop_block2d'"),
    (functional, {"conv1": layers.DropConnectDense(3, 0.1)}, "cannot be put at a site"),
    (functional, {"conv1": "drop_connect_dense:0.1"}, "DropConnectDense replaces a layer of a model"),
    (functional, {"conv1": {"name": "concrete_dropout"}}, "ConcreteDropout replaces a layer of a model"),
    (functional, {"conv1": K.Dense(3)}, "must keep the shape of its input and have no weights"),
    (functional, {"flatten": "spatial_dropout2d:0.1"}, "Cannot put 'spatial_dropout2d:0.1' at site 'flatten'"),
    (functional, {"after:Conv3D": 0.1}, "Unknown layer or class 'Conv3D'. Did you mean 'Conv2D'"),
    (functional, {"beside:Conv2D": 0.1}, "Unknown kind of place 'beside'"),
    (functional, {"after:logits": 0.1}, "is an output of the model"),
    (functional, {"before_activation:norm1": 0.1}, "has no activation"),
    (functional, {"inside:encoder": 0.1}, "Unknown nested model 'encoder'"),
    (functional, {3: 0.1}, "a string or a callable"),
    (functional, {lambda site: False: 0.1}, "returns True for none of the sites"),
    (nested, {"inside:inner after:Dense": 0.1}, "Unknown layer or class 'Dense'"),
    (siamese, {"tower_call2": 0.1}, "use the key 'tower'"),
    (siamese, {"tower_call1/conv": 0.1}, "use the key 'tower/conv'"),
    (siamese, {"inside:tower_call2": 0.1}, "use the key 'inside:tower'"),
]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("make", "plan", "message"), WRONG)
def test_bad_plans(make, plan, message):
    model = make()
    x, config = inputs_for(model), model.get_config()
    expected = model(x, training=False)
    with pytest.raises(ValueError, match=message):
        models.retrofit(model, plan)
    assert same(model(x, training=False), expected) and model.get_config() == config


def test_a_function_gets_the_sites_that_list_sites_returns():
    frames, seen = keras.Input((6, 4)), []
    model = keras.Model(frames, K.Dense(2, name="logits")(K.LSTM(3, dropout=0.2, name="memory")(frames)))
    models.retrofit(model, {lambda site: seen.append(site) is None: 0.1})
    assert seen == models.list_sites(model) and seen[0].inside == "lstm, dropout inside: 0.2"


def test_ambiguous_names():
    def tower(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, K.ReLU()(K.Dense(3, name="dense")(inputs)), name=name)

    inputs = keras.Input((4,))
    both = K.Add(name="Dense")([tower("left")(inputs), tower("right")(inputs)])
    model = keras.Model(inputs, K.Dense(2, name="logits")(both))
    with pytest.raises(
        ValueError,
        match="have a layer of this name. Use one of these keys: 'left/dense', 'right/dense', or '\\*dense'",
    ):
        models.retrofit(model, {"dense": 0.1})
    assert standing(models.retrofit(model, {"right/dense": 0.1})) == ["right/dense"]
    assert standing(models.retrofit(model, {"*dense": 0.1})) == ["left/dense", "right/dense"]
    with pytest.raises(ValueError, match="a class and the name of a layer"):
        models.retrofit(model, {"after:Dense": 0.1})


def test_layers_that_cannot_be_copied():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Dense(2)(Configless(3, name="odd")(inputs)))
    with pytest.raises(ValueError, match="Cannot copy layer 'odd'.*share_weights=True"):
        models.retrofit(model, {"odd": 0.1})
    assert standing(models.retrofit(model, {"odd": 0.1}, share_weights=True)) == ["odd"]


def test_names_and_seeds():
    """Names are free and stable; each site draws its own mask, the same again for the same seed."""
    inputs = keras.Input((64,))
    x = K.Dense(64, name="a")(inputs)
    x = K.ReLU(name="a_dropout")(x)  # somebody's idea of a name
    model = keras.Model(inputs, K.Dense(2, name="b")(x))
    new = models.retrofit(model, {"a": layers.Dropout(0.5, seed=3), "a_dropout": layers.Dropout(0.5, seed=3)})
    assert [layer.name for layer in dropouts(new)] == ["a_dropout_2", "a_dropout_dropout"]
    first, second = dropouts(new)
    ones = np.ones((4, 64), "float32")
    a = np.asarray(first(ones, training=True))
    assert not np.array_equal(a, second(ones, training=True))
    again = models.retrofit(new, {})
    assert [layer.name for layer in dropouts(again)] == ["a_dropout_2", "a_dropout_dropout"]
    fresh = models.retrofit(model, {"a": layers.Dropout(0.5, seed=3)})
    assert np.array_equal(dropouts(fresh)[0](ones, training=True), a)


def test_ramps_go_by_depth_through_models_inside():
    new = models.retrofit(nested(), {"after:Conv2D": models.ramp(0.1, 0.3, layer="dropout")})
    assert [s.spec for s in models.list_sites(new) if s.spec] == ["dropout:0.1", "dropout:0.2", "dropout:0.3"]


def test_named_plans_and_our_own_models():
    """A plan put on by surgery stands where the builder puts it."""
    plain = models.build_model("unet", depth=2, filters=4, num_classes=3)
    by_plan = models.retrofit(plain, "bayesian_segnet")
    built = models.build_model("unet", depth=2, filters=4, num_classes=3, dropout="bayesian_segnet")
    assert [(s.name, s.spec) for s in models.list_sites(by_plan)] == [
        (s.name, s.spec) for s in models.list_sites(built)
    ]
    assert [layer.name for layer in by_plan.layers] == [layer.name for layer in built.layers]


@pytest.mark.costly(keep=0)
def test_a_fresh_process_loads_it_and_it_can_be_served(tmp_path):
    model = models.retrofit(residual(), {"left1": 0.3, "before:logits": "dropout:0.5"})
    x = inputs_for(model)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=model(x, training=False))
    code = f"""
        import dropzoo, keras, numpy as np
        data = np.load({str(tmp_path / "data.npz")!r})
        model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
        assert np.array_equal(model(data["x"], training=False), data["y"])
        assert [s.spec for s in dropzoo.models.list_sites(model) if s.spec] == ["dropout:0.3", "dropout:0.5"]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    serving.export_model(model, tmp_path / "export" / "1", num_samples=4)
    out = serving.MonteCarlo(model, num_samples=8)(x)
    assert float(np.max(out["variance"])) > 0


def test_a_model_inside_may_share_its_input_or_be_called_by_names():
    inputs = keras.Input((4,), name="image")
    encoder = keras.Model(inputs, K.Dense(3, name="z")(inputs), name="encoder")
    auto = keras.Model(inputs, K.Dense(4, name="out")(encoder(inputs)))
    new = models.retrofit(auto, {"before:z": 0.2, "encoder": 0.5})
    assert standing(new) == ["image", "encoder/z"] and len(dropouts(new)) == 2

    p, q = keras.Input((4,), name="zz"), keras.Input((4,), name="aa")
    both = K.Concatenate(name="both")([K.Dense(2, name="dz")(p), K.Dense(2, name="da")(q)])
    inner = keras.Model([p, q], both, name="inner")
    u, v = keras.Input((4,), name="u"), keras.Input((4,), name="v")
    x = inner({"zz": K.Dense(4, name="for_zz")(u), "aa": K.Dense(4, name="for_aa")(v)})
    model = keras.Model([u, v], K.Dense(1, name="out")(x))
    assert standing(models.retrofit(model, {"before:dz": 0.5})) == ["inner/zz"]


def test_masks_and_lookups():
    lookup = K.IntegerLookup(name="lookup")
    lookup.adapt(np.array([5, 6, 7]))
    parts = [lookup, K.Embedding(9, 3, mask_zero=True, name="emb"), K.LSTM(4, name="lstm"), K.Dense(2)]
    model = keras.Sequential([keras.Input((3,), dtype="int64"), *parts])
    new = models.retrofit(model, {"emb": 0.2})
    x = np.array([[5, 6, 7], [7, 9, 5]])
    assert same(new(x), model(x)) and standing(new) == ["emb"]


@pytest.mark.xfail(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15),
    raises=AttributeError,
    reason="this Keras cannot load the weights of tf_idf, not even those of a file of its own",
)
def test_vocabularies_with_weights():
    words = K.TextVectorization(9, output_mode="tf_idf", name="words")
    words.adapt(["a b c", "b c d"])
    model = keras.Sequential([keras.Input((), dtype="string"), words, K.Dense(3, name="dense"), K.Dense(2)])
    x = tf.constant(["a c", "d e"])
    assert same(models.retrofit(model, {"dense": 0.2})(x), model(x))


def test_before_activation_of_one_call_and_of_separate_layers():
    dense = K.Dense(3, activation="relu", name="dense")
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], K.Dense(1, name="out")(K.Concatenate(name="both")([dense(a), dense(b)])))
    one = models.retrofit(model, {"before_activation:dense_call1": 0.1})
    assert standing(one) == ["dense_dense_call1"] and same(one(inputs_for(model)), model(inputs_for(model)))
    ramped = models.retrofit(model, {"before_activation:dense": models.ramp(0.1, 0.5, "dropout")})
    assert [layer.rate for layer in dropouts(ramped)] == [0.1, 0.5]
    parts = [K.Dense(3, activation="relu", name="d1"), K.Dense(3, name="d2"), K.ReLU(name="r"), K.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *parts])
    new = models.retrofit(model, {"before_activation:Dense": 0.1})
    assert standing(new) == ["d1_dense", "d2"]
    assert dropouts(models.retrofit(new, {"before_activation:Dense": None})) == []
    layered = keras.Sequential([keras.Input((4,)), K.Dense(3, activation=K.LeakyReLU(), name="d"), K.Dense(1)])
    with pytest.raises(ValueError, match="activation of layer 'd' is itself a layer"):
        models.retrofit(layered, {"before_activation:d": 0.1})


def test_weights_that_cannot_stay_shared_are_refused():
    tied = K.Dense(3, name="tied")
    a, b = keras.Input((4,)), keras.Input((2, 4))
    x = K.Concatenate(name="both")([tied(a), K.Flatten()(K.TimeDistributed(tied)(b))])
    model = keras.Model([a, b], K.Dense(1)(x))
    with pytest.raises(ValueError, match="weight of several layers.*share_weights=True"):
        models.retrofit(model, {"both": 0.1})
    assert standing(models.retrofit(model, {"both": 0.1}, share_weights=True)) == ["both"]


@pytest.mark.costly(keep=0)
def test_dropout_on_an_input_is_listed_and_quantized_models_run():
    inputs = keras.Input((4,), name="image")
    model = keras.Model(inputs, K.Dense(3, name="dense")(K.Dropout(0.2, name="drop")(inputs)))
    assert [(s.name, s.spec) for s in models.list_sites(model) if s.spec] == [("image", "dropout:0.2")]
    assert dropouts(models.retrofit(model, {"*": None})) == []
    small = keras.Sequential([keras.Input((4,)), K.Dense(3, name="d"), K.Dense(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an Input cannot be quantized
        small.quantize("int8")
    new = models.retrofit(small, {"d": 0.1})
    assert same(new(np.ones((1, 4), "float32")), small(np.ones((1, 4), "float32")))


def test_model_that_two_others_have_inside():
    image, small = keras.Input((8, 8, 3), name="image"), keras.Input((8, 8, 3), name="small")
    stem = keras.Model(small, K.Conv2D(4, 3, name="conv")(small), name="stem")

    def around(name):
        x = keras.Input((8, 8, 3))
        y = K.Conv2D(3, 1, name=f"before_{name}")(x)
        return keras.Model(x, K.Conv2D(4, 1, name=f"behind_{name}")(stem(y)), name=name)

    x = K.Add(name="add")([around("first")(image), around("second")(image)])
    model = keras.Model(image, K.Dense(2, name="out")(K.Flatten(name="flatten")(x)))
    inside = ["first/stem/conv", "second/before_second", "second/behind_second"]
    expected = {
        "inside:second": inside,
        "second/*": inside,
        "inside:second after:Conv2D": inside,
        "second/stem/conv": inside[:1],
        "inside:second/stem": inside[:1],
        "inside:first/stem": inside[:1],
        "conv": inside[:1],
        "inside:first": ["first/before_first", inside[0], "first/behind_first"],
    }
    for key, sites in expected.items():
        new = models.retrofit(model, {key: 0.3})
        assert sorted(standing(new)) == sorted(sites), key
        assert same(new(inputs_for(model)), model(inputs_for(model)))
    with pytest.raises(ValueError, match="Unknown site 'third/stem/conv'"):
        models.retrofit(model, {"third/stem/conv": 0.3})


def test_a_model_in_several_wrappers_is_one_model():
    """It also stands for itself; dropout in it acts on all paths, whichever comes first in the graph."""
    shared = keras.Sequential([keras.Input((4,)), K.Dense(8, name="dense"), K.ReLU(name="relu")], name="shared")
    frames, alone = keras.Input((3, 4)), keras.Input((4,))
    both = [K.Flatten(name=f"flat_{n}")(K.TimeDistributed(shared, name=n)(frames)) for n in ("left", "right")]
    model = keras.Model([frames, alone], K.Dense(1)(K.Concatenate(name="both")([*both, shared(alone)])))
    x = inputs_for(model)
    for key in ("dense", "left/dense", "right/dense", "shared/dense", "inside:right after:Dense"):
        new = models.retrofit(model, {key: 0.5})
        (drop,) = dropouts(new)
        assert same(new(x), model(x)) and len(new.weights) == len(model.weights)
        assert {id(each.layer.get_layer("dense")) for each in new.layers if each.name in ("left", "right")} == {
            id(new.get_layer("shared").get_layer("dense"))
        }
        assert models.match_sites(new, ["left/dense", "right/dense", "shared/dense"]).keys()
    inner = keras.Model(shared.inputs, shared.outputs)
    assert dropouts(models.retrofit(inner, {"dense": 0.5}))


class Cell(K.Layer):
    """A cell that is not registered with Keras."""

    def __init__(self, units=2, dropout=0.3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dropout, self.state_size, self.dense = units, dropout, units, K.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs, states, training=False):
        return (out := self.dense(inputs) + states[0]), [out]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.dropout}


def test_cells_of_a_users_own_need_no_registration():
    model = keras.Sequential(
        [keras.Input((3, 4)), K.RNN(Cell(name="cell"), name="rnn"), K.Dropout(0.1), K.Dense(1)]
    )
    with pytest.warns(UserWarning, match="'rnn/cell' .cell:0.3"):
        new = models.strip_dropout(model)
    assert dropouts(new) == [] and same(new(inputs_for(model)), model(inputs_for(model)))


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_dropout_that_is_a_cast_leaves_the_cast(kind):
    """Its dtype policy rounds, and what follows would add floats of two kinds without it."""
    if kind == "sequential":
        drop = K.Dropout(0.5, dtype="float16", name="drop")
        model = keras.Sequential([keras.Input((4,)), K.Dense(3, name="dense"), drop, K.Dense(2, name="out")])
    else:
        inputs = keras.Input((4,), name="image")
        half = K.Dropout(0.5, dtype="float16", name="drop")(K.Dense(3, name="dense")(inputs))
        model = keras.Model(inputs, K.Dense(2, name="out")(half * half))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    stripped = models.strip_dropout(model)
    assert dropouts(stripped) == [] and [layer.name for layer in stripped.layers if "cast" in layer.name]
    assert same(stripped(x), model(x))
    replaced = models.retrofit(model, {"dense": 0.3})
    assert [layer.dtype_policy.name for layer in dropouts(replaced)] == ["float16"]
    assert same(replaced(x), model(x)) and not [layer for layer in replaced.layers if "cast" in layer.name]
