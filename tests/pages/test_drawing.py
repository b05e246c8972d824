"""The drawing of a network: where its bars stand, and what joins them."""

import keras
import pytest

from dropzoo import models
from dropzoo.pages.drawing import _bars, draw_sites

K = keras.layers


def bars_of(model):
    return {bar.name: bar for bar in _bars(model, (32, 32))}


def test_a_unet_is_a_u():
    bars = bars_of(models.build_model("unet", depth=2, filters=4, dropout={"skip1": 0.2}))
    assert [bars[n].row for n in ("images", "encoder2_conv1", "bottleneck_conv1", "decoder1_conv1", "head")] == [
        *(0, 1, 2, 1, 0)
    ]
    assert bars["bottleneck_conv1"].shape == (None, 8, 8, 16) and bars["skip1"].spec == "dropout:0.2"
    joined = {source.name for source in bars["decoder2_conv1"].sources}
    assert joined == {"skip1", "decoder2_up"}
    assert [source.name for source in bars["logits"].sources] == ["head"]  # the images give it their size alone
    assert len({(bar.column, bar.row) for bar in bars.values()}) == len(bars)


def test_models_that_are_not_ours():
    """Several inputs, a model inside, parallel branches, vectors."""
    one, two = keras.Input((16, 16, 3), name="one"), keras.Input((5,), name="two")
    inner = keras.Sequential(
        [K.Conv2D(4, 3, strides=2, padding="same", name="conv"), K.ReLU(name="relu")], name="in"
    )
    x = inner(one)
    x = K.Add(name="add")([K.Conv2D(4, 1, name="left")(x), K.Conv2D(4, 1, name="right")(x)])
    x = K.Concatenate(name="both")([K.GlobalAveragePooling2D(name="pool")(x), K.Dense(3, name="dense")(two)])
    bars = bars_of(keras.Model([one, two], K.Dense(2, name="out")(x)))
    assert [bars[n].row for n in ("one", "in/conv", "in/relu", "left", "add", "pool", "two", "out")] == [
        *(0, 1, 1, 1, 1, 2, 2, 2)
    ]
    assert {s.name for s in bars["add"].sources} == {"left", "right"}
    assert {s.name for s in bars["in/conv"].sources} == {"one"}
    assert {s.name for s in bars["both"].sources} == {"pool", "dense"}


@pytest.mark.parametrize(
    ("shape", "conv", "drawn"),
    [
        ((None, 3), K.Conv1D, (None, 32, 4)),
        ((None, 20, 3), K.Conv2D, (None, 32, 20, 4)),
        ((8, None, None, 3), K.Conv3D, (None, 8, 32, 32, 4)),
    ],
)
def test_only_lengths_that_are_open_are_filled_in(shape, conv, drawn):
    inputs, other = keras.Input(shape, name="input"), keras.Input((2,), name="other")
    model = keras.Model([inputs, other], [conv(4, 1, name="conv")(inputs), K.Dense(2, name="out")(other)])
    assert bars_of(model)["conv"].shape == drawn
    assert "conv" in {text.get_text() for text in draw_sites(model).axes[0].texts}


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("name", ["simple_cnn", "resnet20", "segnet"])
def test_every_site_is_drawn(name):
    model = models.build_model(name, dropout={"*": 0.1})
    texts = {text.get_text() for text in draw_sites(model).axes[0].texts}
    assert texts >= {site.name for site in models.list_sites(model)} | {"0.1", "logits"}
