"""dropout_report: what it counts and what it notes."""

import keras
import numpy as np
import pytest

from _foreign import inputs_for, siamese, with_dropout
from dropzoo import layers, models

K = keras.layers


class Forgetful(K.Layer):
    """Has dropout, and does not tell it when it trains."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = K.Dropout(0.5, name="inner")

    def call(self, inputs):
        return self.inner(inputs, training=False)


def cnn(**dropout):
    """conv1 -> norm1 -> relu1 -> conv2 -> relu2 -> pool -> logits, with dropout layers behind layers by name."""
    x = inputs = keras.Input((12, 10, 2), name="image")
    for layer in (
        K.Conv2D(6, 3, name="conv1"),
        K.BatchNormalization(name="norm1"),
        K.ReLU(name="relu1"),
        K.Conv2D(6, 3, name="conv2"),
        K.ReLU(name="relu2"),
        K.GlobalAveragePooling2D(name="pool"),
        K.Dense(3, name="logits"),
    ):
        x = layer(x)
        if layer.name in dropout:
            x = dropout[layer.name](x)
    return keras.Model(inputs, x)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("spec", "rate", "draws"),
    [
        ("dropout:0.2", 0.2, 4e4),
        ("spatial_dropout2d:0.3", 0.3, 64 * 8 * 3),  # a map that is zero everywhere does not count
        ("drop_block2d:0.1,block_size=3", 0.1, 4e4 / 9),
        ("drop_path:0.4", 0.4, 64 * 8),
        ("alpha_dropout:0.2", 0.2, 4e4),
        ("gaussian_dropout:0.2", 0.0, 1),
    ],
)
def test_fraction_of_what_is_not_zero(spec, rate, draws):
    """After a ReLU, where half is zero already."""
    model = models.retrofit(cnn(), {"relu2": spec})
    (row,) = models.dropout_report(model)
    assert (row.site, row.spec, row.rate) == ("relu2", spec, float(spec.partition(":")[2].partition(",")[0]))
    assert abs(row.dropped - rate) <= 5 * (rate * (1 - rate) / draws) ** 0.5
    assert any("adds noise" in note for note in row.notes) == spec.startswith("gaussian")


def test_keras_own_layers_and_edges():
    rows = models.dropout_report(with_dropout())
    assert [(row.site, row.rate) for row in rows] == [("conv1", 0.2), ("edge", 0.3), ("end/flatten", 0.5)]
    for row in rows:
        assert abs(row.dropped - row.rate) < 0.03


def noted(model):
    return {row.site: " / ".join(row.notes) for row in models.dropout_report(model, masks=2)}


def test_notes():
    Dropout = K.Dropout
    notes = noted(cnn(conv1=Dropout(0.2), relu1=Dropout(0.5), relu2=Dropout(0.5), pool=Dropout(0.5)))
    assert notes == {
        "conv1": "precedes BatchNormalization 'norm1': variance shift (Li 2018)",
        "relu1": "0.5 or more is a high rate on feature maps: use spatial or block dropout, or a lower rate",
        "relu2": "0.5 or more is a high rate on feature maps: use spatial or block dropout, or a lower rate",
        "pool": "",
    }
    assert noted(cnn(conv1=Dropout(0.0))) == {"conv1": "the rate is 0"}
    frozen = cnn(conv1=Dropout(0.2))
    frozen.get_layer("norm1").trainable = False
    assert noted(frozen) == {"conv1": ""}
    (row,) = models.dropout_report(cnn(relu2=Forgetful(name="forgetful")))
    assert row.site == "forgetful/inner" and row.dropped is None and "never drops" in row.notes[0]
    dead = cnn(relu2=Dropout(0.2))
    dead.get_layer("conv2").set_weights([np.zeros((3, 3, 6, 6)), -np.ones(6)])
    assert noted(dead) == {"relu2": "its inputs are all zero"}


class AlwaysOn(K.Dropout):
    """As books have it: Monte Carlo dropout."""

    def call(self, inputs):
        return super().call(inputs, training=True)


class OursAlwaysOn(layers.Dropout):
    def call(self, inputs, **kwargs):
        return super().call(inputs, training=True)


@pytest.mark.parametrize("always_on", [AlwaysOn, OursAlwaysOn])
def test_dropout_that_is_always_on(always_on):
    (row,) = models.dropout_report(cnn(relu2=always_on(0.2)))
    assert row.site == "relu2" and abs(row.dropped - 0.2) < 0.02 and row.notes == ()


def test_a_rate_of_1_is_noted():
    try:
        (row,) = models.dropout_report(cnn(pool=K.Dropout(1.0)))
    except ValueError as error:
        assert "Dropout.call" in str(error)
        pytest.skip("this Keras takes a rate of 1 and refuses to run the layer")
    assert (row.rate, row.dropped, row.notes) == (1, None, ("the rate is 1: nothing gets through",))


def test_a_norm_is_near_over_one_layer_with_weights_and_far_over_two():
    for between, note in ((0, True), (1, True), (2, False)):
        convs = [K.Conv2D(2, 1) for _ in range(between)]
        chain = [K.Dropout(0.2, name="drop"), *convs, K.ReLU(), K.BatchNormalization(name="norm"), K.Flatten()]
        model = keras.Sequential([keras.Input((4, 4, 2)), K.ReLU(name="first"), *chain])
        assert bool(noted(model)["first"]) == note


def test_the_model_stays_as_it_is():
    model = models.build_model(
        "unet", depth=1, filters=2, input_shape=(8, 8, 1), dropout={"skip1": 0.2, "head": 0.2}
    )
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    first, second = (models.dropout_report(model, masks=2) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
    assert first == second
    assert not any("call" in vars(layer) for layer in model.layers)


def test_live_rate():
    model = cnn(relu2=K.Dropout(0.1))
    model = models.retrofit(model, {"relu2": 0.1})
    model.get_layer("relu2_dropout").rate = 0.6
    (row,) = models.dropout_report(model)
    assert (row.spec, row.rate) == ("dropout:0.6", 0.6) and abs(row.dropped - 0.6) < 0.03


def test_several_inputs_of_ones_own():
    model = models.retrofit(siamese(), {"after:Conv2D": 0.25})
    (row,) = models.dropout_report(model, inputs_for(model, 16), masks=16)
    assert row.site == "tower/conv" and abs(row.dropped - 0.25) < 0.02


def test_it_prints_as_a_table():
    text = str(models.dropout_report(cnn(conv1=K.Dropout(0.0), pool=K.Dropout(0.5)), masks=2))
    head, *lines = text.splitlines()
    assert head.split() == ["site", "layer", "rate", "dropped", "notes"]
    assert [line.split()[:3] for line in lines] == [["conv1", "dropout:0.0", "0"], ["pool", "dropout:0.5", "0.5"]]
    assert str(models.dropout_report(cnn())).splitlines() == ["site  layer  rate  dropped  notes"]


def test_the_number_of_masks_is_checked():
    with pytest.raises(ValueError, match="`masks` must be a positive int. Received: masks=0"):
        models.dropout_report(cnn(), masks=0)
