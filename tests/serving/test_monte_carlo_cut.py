"""Monte-Carlo dropout: where a model is cut, and what that is worth."""

import keras
import numpy as np
import pytest

from _graphs import joined, late_cnn, nested, opaque, own_call, unet
from _small_cnn import small_cnn
from dropzoo import layers, serving

kl = keras.layers


class Subclassed(keras.Model):
    """A model without a graph, of an image or of a dict of two."""

    def __init__(self):
        super().__init__()
        self.drop, self.dense = layers.Dropout(0.5), kl.Dense(3)

    def build(self, input_shape):
        self.dense.build((None, 4))

    def call(self, x, training=None):
        x = x["left"] + x["right"] if isinstance(x, dict) else x
        return self.dense(self.drop(x, training=training))


@pytest.mark.parametrize("keys, frontier", [((), ("input_1",)), (("left", "right"), ("left", "right"))])
def test_the_inputs_of_a_subclassed_model_have_names(keys, frontier):
    mc = serving.MonteCarlo(Subclassed(), 2, from_logits=True)
    x = np.ones((2, 4), "float32")
    mc({key: x for key in keys} or x)
    assert mc.cut().frontier == frontier
    assert f"computed once, up to: {', '.join(frontier)}\n" in str(mc.cut())


def test_where_the_model_is_cut():
    cut = serving.MonteCarlo(unet(depth=2, dropout={"bottleneck_conv2": 0.5})).cut((32, 48))
    convs = ("decoder1_conv1_conv", "decoder2_conv1_conv")
    assert set(cut.frontier) == {"images", *convs, "bottleneck_conv2"} and not cut.opaque
    assert cut.split == convs and "computed once in part: decoder1_conv1_conv, decoder2" in str(cut)
    cut = serving.MonteCarlo(nested()).cut()
    assert not cut.opaque and 0 < cut.f < 1
    cut = serving.MonteCarlo(opaque()).cut()
    assert cut.frontier == ("stem",) and cut.opaque == ("wrapped",)
    assert "computed whole in each sample: wrapped" in str(cut)
    cut = serving.MonteCarlo(own_call()).cut()
    assert cut.f == 0 and cut.speedup == 1 and len(cut.opaque) == 1
    cut = serving.MonteCarlo(late_cnn(), cache=False).cut()
    assert cut.f == 0 and len(cut.frontier) == 1
    model = small_cnn()
    mc = serving.MonteCarlo(model)
    assert serving.MonteCarlo(model, sites={"dense1": True}).cut().f > mc.cut().f
    assert mc.plan() == mc.cut()  # its other name


def test_which_convolutions_are_split():
    cut = serving.MonteCarlo(joined()).cut()
    assert cut.split == ("strided", "dilated", "dense")
    first = 9 * 64 * (3 + 5)  # of the two convolutions of the images
    halves = 9 * (3 + 1) * 4 * 16 + 9 * (5 + 3) * 2 * 16 + 192 * 3
    assert cut.trunk_macs == first + halves
    assert cut.head_macs == 9 * 5 * 4 * 16 + 9 * 4 * 2 * 16 + 32 * 3
    assert serving.MonteCarlo(joined(), cache=False).cut().split == ()

    def model(axis=-1, twice=False, **options):
        inputs = keras.Input((8, 8, 2))
        x = kl.Concatenate(axis)([layers.Dropout(0.5)(inputs), inputs])
        y = kl.GlobalMaxPooling2D()(kl.Conv2D(4, 3, **options)(x))
        return keras.Model(inputs, kl.Add()([y, kl.GlobalMaxPooling2D()(x)]) if twice else y)

    for kept in (model(axis=1), model(twice=True), model(groups=2)):  # rows joined; read by others too; in groups
        assert serving.MonteCarlo(kept).cut().split == ()
    assert serving.MonteCarlo(model()).cut().split != ()


def test_multiplications_by_hand():
    inputs = keras.Input((None, None, 2))
    x = kl.Conv2D(4, 3, strides=2, padding="same", groups=2)(inputs)  # 3*3*1*4 at 4x6
    x = kl.DepthwiseConv2D(3, padding="same")(x)  # 3*3*4 at 4x6
    x = layers.Dropout(0.5)(kl.BatchNormalization()(x))
    x = kl.Conv2DTranspose(3, 2, strides=2)(x)  # 2*2*3*4 at 4x6
    x = kl.SeparableConv2D(5, 3, padding="same")(x)  # 3*3*3 + 3*5 at 8x12
    model = keras.Model(inputs, kl.Dense(6)(kl.GlobalMaxPooling2D()(x)))  # 5*6
    cut = serving.MonteCarlo(model, 10).cut((8, 12))
    assert cut.trunk_macs == (36 + 36) * 24
    assert cut.head_macs == 48 * 24 + (27 + 15) * 96 + 30
    assert cut.f == cut.trunk_macs / (cut.trunk_macs + cut.head_macs)
    assert cut.speedup == pytest.approx(1 / (cut.f / 10 + 1 - cut.f))
    assert "8x12x2" in str(cut) and f"f = {cut.f:.3f}" in str(cut)


def test_the_trunk_runs_once():
    """The convolution before the cut stands outside the loop, the one after it inside."""
    stack = [kl.Conv2D(2, 3), layers.Dropout(0.5), kl.Conv2D(3, 3), kl.GlobalMaxPooling2D()]
    mc = serving.MonteCarlo(keras.Sequential([keras.Input((8, 8, 1)), *stack]), 4)
    graph = mc._run.get_concrete_function().graph.as_graph_def()
    assert sum(node.op == "Conv2D" for node in graph.node) == 1
    inside = [sum(node.op == "Conv2D" for node in f.node_def) for f in graph.library.function]
    assert sum(inside) == 1
