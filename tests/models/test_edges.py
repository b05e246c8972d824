"""Edges: dropout between a tensor and one of the layers that read it.

The rule: `"enc->join"` is the output of `enc` on its way to `join`, and no other reader of it changes.
`list_sites` prints edges if asked, and each name that it prints is taken by every part: put in, replace, remove,
report, strip.
"""

import keras
import numpy as np
import pytest

from _foreign import dropouts, inputs_for, same
from dropzoo import models

K = keras.layers


def unet():
    image = keras.Input((16, 16, 1), name="image")
    enc = K.Conv2D(4, 3, padding="same", activation="relu", name="enc")(image)
    mid = K.Conv2D(8, 3, padding="same", name="mid")(K.MaxPooling2D(name="pool")(enc))
    join = K.Concatenate(name="join")([K.UpSampling2D(name="up")(mid), enc])
    return keras.Model(image, K.Conv2D(2, 1, name="head")(join))


def twice():
    """A layer that reads a tensor in two calls, and one that reads it as both arguments."""
    x = inputs = keras.Input((4,), name="x")
    x = K.Dense(3, name="enc")(x)
    tied = K.Dense(3, name="tied")
    square = K.Multiply(name="square")([x, x])
    return keras.Model(inputs, K.Add(name="sum")([tied(x), tied(K.ReLU(name="relu")(x)), square, tied(x)]))


def nested():
    """The reader is inside a nested model, and the next tensor is made inside one."""
    image = keras.Input((8, 8, 2), name="image")
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), K.Conv2D(3, 1, name="conv"), K.ReLU(name="relu")], name="inner"
    )
    enc = K.Conv2D(3, 1, name="enc")(image)
    made = inner(enc)
    join = K.Concatenate(name="join")([made, enc, K.Conv2D(3, 1, name="side")(made)])
    return keras.Model(image, K.Conv2D(1, 1, name="head")(join))


def several():
    """Two inputs as a dict, and two outputs."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = K.Dense(3, name="enc")(a)
    both = K.Concatenate(name="join")([x, K.Dense(3, name="other")(b)])
    return keras.Model({"a": a, "b": b}, {"p": K.Dense(1, name="p")(both), "q": K.Dense(1, name="q")(x)})


def output():
    """The tensor is an output of the model too, where no dropout can stand; inputs and outputs are nested."""
    image = keras.Input((8, 8, 3), name="image")
    enc = K.Conv2D(4, 3, padding="same", name="enc")(image)
    join = K.Concatenate(name="join")([enc, K.Conv2D(2, 3, padding="same", name="mid")(enc)])
    return keras.Model({"x": [image]}, {"features": enc, "maps": [K.Conv2D(1, 1, name="head")(join)]})


CASES = [
    (unet, "enc->join", "enc->join", "join", ("pool",)),
    (unet, "enc -> join", "enc->join", "join", ("pool",)),
    (unet, "e*->join", "enc->join", "join", ("pool",)),
    (unet, "enc->pool", "enc->pool", "pool", ("join",)),
    (unet, "up->join", "up", "join", ("head",)),  # one reader: the site
    (twice, "enc->square", "enc->square", "square", ("relu",)),
    (twice, "enc->tied_call1", "enc->tied_call1", "tied", ("square", "relu")),
    (nested, "enc->inner", "enc->inner", "inner", ("join",)),
    (nested, "enc->inner/conv", "inner/enc->conv", "inner", ("join",)),
    (nested, "relu->side", "inner/relu->side", "side", ("join",)),
    (nested, "inner->side", "inner/relu->side", "side", ("join",)),
    (output, "enc->join", "enc->join", "join", ("mid",)),
    (several, "enc->join", "enc->join", "join", ("q",)),
]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("make", "key", "site", "reader", "others"), CASES, ids=[f"{c[0].__name__} {c[1]}" for c in CASES]
)
def test_an_edge(make, key, site, reader, others):
    model = make()
    x = inputs_for(model)
    new = models.retrofit(model, {key: 0.4})
    (drop,) = dropouts(new)
    assert drop.name.endswith("_dropout")
    assert same(new(x, training=False), model(x, training=False))
    for name in others:
        assert not any(node.operation is drop for node in inbound(new, name))
    plain = {s.name: s.spec for s in models.list_sites(new)}
    assert [name for name, spec in plain.items() if spec] == [site] or site == "inner/relu->side"
    listed = [s.name for s in models.list_sites(new, edges=True) if s.spec]
    assert len(listed) == 1 or key == "enc->inner"  # a name for the model and one for the layer inside
    (row,) = models.dropout_report(new, x, masks=1)
    for name in {*listed, row.site, drop.name, key}:
        assert models.match_sites(new, [name]) == {name: [drop]}
        assert [layer.rate for layer in dropouts(models.retrofit(new, {name: 0.1}))] == [0.1]
    assert dropouts(models.retrofit(new, {key: None})) == []
    assert dropouts(models.strip_dropout(new)) == []
    assert same(models.strip_dropout(new)(x), model(x))


def inbound(model, name):
    return model.get_layer(name)._inbound_nodes[0].parent_nodes


def test_all_calls_of_a_layer_by_its_name():
    new = models.retrofit(twice(), {"enc->tied": 0.4})
    assert [layer.name for layer in dropouts(new)] == ["enc->tied_call1_dropout", "enc->tied_call3_dropout"]


def test_a_site_and_its_edge_are_two_places():
    new = models.retrofit(unet(), {"enc": 0.1, "enc->join": "drop_path:0.2"})
    assert [(s.name, s.spec) for s in models.list_sites(new) if s.spec] == [
        ("enc", "dropout:0.1"),
        ("enc->join", "drop_path:0.2"),
    ]
    assert [s.spec for s in models.list_sites(models.retrofit(new, {"enc->join": None})) if s.spec] == [
        "dropout:0.1"
    ]


def test_dropout_on_an_edge_that_others_share():
    """One of two readers of a dropout gets another one; the second keeps it."""
    x = inputs = keras.Input((4,))
    x = K.Dense(8, name="enc")(x)
    drop = K.Dropout(0.5, name="shared")(x)
    parts = [K.Dense(2, name="one")(drop), K.Dense(2, name="two")(drop), K.Dense(2, name="three")(x)]
    model = keras.Model(inputs, K.Concatenate()(parts))
    assert [(s.name, s.spec) for s in models.list_sites(model, edges=True) if s.spec] == [
        ("enc->one", "dropout:0.5"),
        ("enc->two", "dropout:0.5"),
        ("shared", "dropout:0.5"),
    ]
    new = models.retrofit(model, {"enc->one": 0.1})
    assert [(s.name, s.spec) for s in models.list_sites(new, edges=True) if s.spec and s.kind == "edge"] == [
        ("enc->one", "dropout:0.1"),
        ("enc->two", "dropout:0.5"),
    ]
    bare = models.retrofit(model, {"enc->one": None})
    assert [layer.name for layer in dropouts(bare)] == ["shared"]
    assert [s.name for s in models.list_sites(bare, edges=True) if s.kind == "edge" and s.spec] == ["enc->two"]
    x = np.ones((2, 4), "float32")
    assert same(new(x), model(x)) and same(bare(x), model(x))


def test_list_sites_prints_edges_only_if_asked():
    assert not any("->" in site.name for site in models.list_sites(unet()))
    edges = [site.name for site in models.list_sites(unet(), edges=True) if site.kind == "edge"]
    assert edges == ["enc->pool", "enc->join"]
    assert [s.name for s in models.list_sites("unet", depth=1, edges=True) if s.kind == "edge"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("enc->jion", "Unknown edge 'enc->jion'. Did you mean 'enc->join'"),
        ("mid->pool", "Unknown edge 'mid->pool'"),
        ("enc->", "Unknown edge"),
    ],
)
def test_unknown_edges(key, message):
    with pytest.raises(ValueError, match=message):
        models.retrofit(unet(), {key: 0.1})


def test_files(tmp_path):
    new = models.retrofit(unet(), {"enc->join": 0.3})
    new.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [s.name for s in models.list_sites(loaded) if s.spec] == ["enc->join"]
    new.save_weights(tmp_path / "m.weights.h5")
    model = unet()
    model.load_weights(tmp_path / "m.weights.h5")
    x = inputs_for(model)
    assert same(model(x), new(x)) and same(loaded(x), new(x))
