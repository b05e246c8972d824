"""Sites by name: which dropout layers `match_sites` finds, which models have a graph, what a site cannot take."""

import keras
import pytest

from dropzoo import layers, models
from dropzoo.common.keras_internals import shadowed_calls
from dropzoo.models.sites import CannotPlace

K = keras.layers


def block(name: str, site: str = "conv") -> keras.Model:
    """A model of one dense layer and the dropout of its site."""
    inputs = keras.Input((4,))
    x = layers.Dropout(0.5, name=f"{site}_dropout")(K.Dense(4, name=site)(inputs))
    return keras.Model(inputs, K.ReLU(name="relu")(x), name=name)


def around(name: str, inner: keras.Model) -> keras.Model:
    """A model with another inside."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, K.ReLU(name="behind")(inner(inputs)), name=name)


def matched(model: keras.Model, pattern: str) -> list[str]:
    return [layer.name for layer in models.match_sites(model, [pattern])[pattern]]


def test_the_name_of_a_site_a_layer_and_a_pattern():
    model = models.build_model("unet", depth=1, filters=2, dropout={"decoder*": 0.1, "head": 0.2})
    assert matched(model, "head") == matched(model, "head_dropout") == ["head_dropout"]
    assert matched(model, "decoder1_conv*") == ["decoder1_conv1_dropout", "decoder1_conv2_dropout"]
    assert matched(model, "*") == [layer.name for layer in layers.dropouts(model)]
    found = models.match_sites(model, ["head", "*"])
    assert list(found) == ["head", "*"] and found["head"][0] is found["*"][-1]
    with pytest.raises(ValueError, match="Unknown dropout site 'haed'. Did you mean 'head'"):
        models.match_sites(model, ["haed"])
    with pytest.raises(ValueError, match="Unknown dropout site 'encoder1_conv1'"):
        models.match_sites(model, ["encoder1_conv1"])  # a site, but nothing stands there


def test_a_name_comes_before_a_pattern():
    names = ("conv[1]", "conv1")
    stack = [part for n in names for part in (K.Dense(4, name=n), layers.Dropout(0.5, name=f"{n}_dropout"))]
    model = keras.Sequential([keras.Input((4,)), *stack, K.Dense(1)])
    assert matched(model, "conv[1]") == ["conv[1]_dropout"] and matched(model, "conv[12]") == ["conv1_dropout"]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_names_that_list_sites_prints_of_models_in_models(depth):
    model = block("m0")
    for level in range(1, depth + 1):
        model = around(f"m{level}", model)
    (site,) = [site.name for site in models.list_sites(model) if site.spec]
    assert site == "".join(f"m{level}/" for level in reversed(range(depth))) + "conv"
    for name in (site, f"{site}_dropout", "conv", "conv_dropout", "m*/conv"):
        assert matched(model, name) == ["conv_dropout"]
    with pytest.raises(ValueError, match=f"Available: {site}$"):
        models.match_sites(model, ["other"])


def test_two_models_with_a_site_of_one_name():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Add()([block("left")(inputs), block("right")(inputs)]))
    left, right = layers.dropouts(model)
    assert models.match_sites(model, ["left/conv", "right/conv", "conv"]) == {
        "left/conv": [left],
        "right/conv": [right],
        "conv": [left, right],
    }


def test_a_model_inside_two_others_has_both_paths():
    stem, inputs = block("stem"), keras.Input((4,))
    model = keras.Model(inputs, K.Add()([around("first", stem)(inputs), around("second", stem)(inputs)]))
    for name in ("first/stem/conv", "second/stem/conv", "conv"):
        assert matched(model, name) == ["conv_dropout"]


def test_a_model_that_is_called_twice_is_one():
    tower, left, right = block("tower"), keras.Input((4,)), keras.Input((4,))
    model = keras.Model([left, right], K.Add()([tower(left), tower(right)]))
    assert [site.name for site in models.list_sites(model) if site.spec] == ["tower/conv"]
    assert matched(model, "tower/conv") == ["conv_dropout"]


def test_calls_of_a_layer_that_is_called_several_times():
    dense, left, right = K.Dense(4, name="dense"), keras.Input((4,)), keras.Input((4,))
    plain = keras.Model([left, right], K.Dense(1)(K.Add(name="both")([dense(left), dense(right)])))
    model = models.retrofit(plain, {"dense": 0.5})
    sites = [site.name for site in models.list_sites(model) if site.spec]
    assert sites == ["dense_call1", "dense_call2"]
    assert [matched(model, site) for site in sites] == [["dense_call1_dropout"], ["dense_call2_dropout"]]
    assert len(matched(model, "dense_call*")) == 2


def test_one_dropout_layer_at_two_sites():
    drop, x = layers.Dropout(0.5, name="drop"), keras.Input((4,))
    inputs = x
    for name in ("a", "b"):
        x = drop(K.Dense(4, name=name)(x))
    model = keras.Model(inputs, K.Dense(1)(x))
    assert [site.name for site in models.list_sites(model) if site.spec] == ["a", "b"]
    assert matched(model, "a") == matched(model, "b") == matched(model, "drop") == ["drop"]


def test_dropout_that_is_not_named_after_its_site():
    inputs = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), K.Dense(4, name="hidden"), K.Dropout(0.5, name="mine")], name="in"
    )
    model = keras.Model(inputs, K.Dense(1)(inner(inputs)))
    for name in ("in/hidden", "hidden", "in/mine", "mine"):
        assert matched(model, name) == ["mine"]


class Code(keras.Model):
    """A subclassed model, with a model that has a graph inside."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = block("inner"), layers.Dropout(0.5, name="last_dropout")

    def call(self, inputs):
        return self.last(self.inner(inputs))


def test_models_without_a_graph_go_by_the_names_of_layers():
    assert sorted(matched(Code(), "*")) == ["conv_dropout", "last_dropout"]
    assert matched(Code(), "last") == ["last_dropout"] and matched(Code(), "conv") == ["conv_dropout"]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Dense(1)(Code()(inputs)))
    assert matched(model, "last") == ["last_dropout"]
    unbuilt = keras.Sequential([K.Dense(4, name="a"), layers.Dropout(0.5, name="a_dropout")])
    assert matched(unbuilt, "a") == ["a_dropout"]


def test_layers_that_drop_weights_or_branches_are_matched_too():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Dense(1)(layers.DropConnectDense(3, 0.5, name="connect")(inputs)))
    assert matched(model, "connect") == matched(model, "con*") == ["connect"]


class CallsItself(keras.Model):
    """A model with a graph that is not what runs."""

    def __call__(self, inputs):
        return self.call(inputs)


class HandsOn(keras.Model):
    """As the tasks of KerasHub, which refuse texts there."""

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(inputs, *args, **kwargs)


def test_a_graph_that_is_not_what_runs_is_none():
    inputs = keras.Input((4,))
    outputs = layers.Dropout(0.5, name="a_dropout")(K.Dense(4, name="a")(inputs))
    own, plain = CallsItself(inputs, outputs), keras.Model(inputs, K.Dense(1)(outputs))
    with pytest.raises(ValueError, match="read from its graph"):
        models.list_sites(own)
    assert len(models.list_sites(HandsOn(inputs, K.Dense(1)(outputs)))) == 1
    with shadowed_calls([(plain, lambda inputs: inputs)]), pytest.raises(ValueError, match="`del model.call`"):
        models.list_sites(plain)
    assert len(models.list_sites(plain)) == 1 and matched(own, "a") == ["a_dropout"]


@pytest.mark.parametrize("put", [models.build_model, models.retrofit])
def test_a_layer_that_a_site_cannot_take_is_an_error_of_its_own(put):
    plan = {"head": "spatial_dropout2d:0.2"}
    with pytest.raises(CannotPlace, match="Cannot put 'spatial_dropout2d:0.2' at site 'head'"):
        if put is models.build_model:
            put("lenet5", dropout=plan)
        else:
            put(models.build_model("lenet5"), plan)
    with pytest.raises(ValueError, match="no weights") as error:
        models.build_model("lenet5", dropout={"head": K.Dense(7)})
    assert not isinstance(error.value, CannotPlace)
