"""The trace that looks for random draws in code that is not known leaves out what only computes.

The rule: a layer of Keras that never draws gives a tensor like its output in the trace, and no operations, so that
the trace costs a small part of the first call. The draws around such layers are found all the same.
"""

import keras
import pytest
import tensorflow as tf
from keras import layers as kl

from dropzoo.models.graph.unroll import Unrolled
from dropzoo.serving.montecarlo import probe

PLAIN = {  # the layer, and the rank of its inputs
    "dense": (lambda: kl.Dense(3), 2),
    "einsum_dense": (lambda: kl.EinsumDense("abc,cd->abd", (8, 3)), 3),
    "conv1d": (lambda: kl.Conv1D(3, 2, dilation_rate=2, padding="causal"), 3),
    "conv2d": (lambda: kl.Conv2D(3, 2, strides=2, padding="same"), 4),
    "conv2d_first": (lambda: kl.Conv2D(3, 2, data_format="channels_first"), 4),
    "conv3d": (lambda: kl.Conv3D(3, 2), 5),
    "conv1d_transpose": (lambda: kl.Conv1DTranspose(3, 2), 3),
    "conv2d_transpose": (lambda: kl.Conv2DTranspose(3, 3, strides=2, output_padding=1), 4),
    "conv3d_transpose": (lambda: kl.Conv3DTranspose(3, 2), 5),
    "depthwise_conv1d": (lambda: kl.DepthwiseConv1D(2, depth_multiplier=2), 3),
    "depthwise_conv2d": (lambda: kl.DepthwiseConv2D(2), 4),
    "separable_conv1d": (lambda: kl.SeparableConv1D(3, 2), 3),
    "separable_conv2d": (lambda: kl.SeparableConv2D(3, 2), 4),
    "batch_norm": (kl.BatchNormalization, 4),
    "layer_norm": (kl.LayerNormalization, 3),
    "group_norm": (lambda: kl.GroupNormalization(2), 4),
    "float16": (lambda: kl.Dense(3, dtype="mixed_float16"), 4),
}


@pytest.mark.parametrize(("make", "rank"), PLAIN.values(), ids=PLAIN)
def test_a_plain_layer_gives_a_tensor_like_its_output(make, rank):
    layer, shape = make(), (5, *[8] * (rank - 2), 4)
    layer.build(shape)
    like = layer.compute_output_spec(keras.KerasTensor(shape))
    assert probe._is_plain(layer)

    @tf.function(input_signature=[tf.TensorSpec(shape)], autograph=False)
    def run(x):
        return probe._blank(layer, [])(x)

    traced = run.get_concrete_function().graph
    (output,) = traced.outputs
    assert output.shape.is_compatible_with(like.shape) and output.shape.is_fully_defined()
    assert output.dtype == layer.compute_dtype
    assert {op.type for op in traced.get_operations()} <= {"Placeholder", "Identity"}


def test_a_layer_that_leaves_a_length_open_is_traced():
    layer = kl.EinsumDense("abc,cd->abd", (None, 3))
    layer.build((5, 8, 4))
    run = tf.function(probe._blank(layer, []), input_signature=[tf.TensorSpec((5, 8, 4))], autograph=False)
    assert run.get_concrete_function().outputs[0].shape == (5, 8, 3)


class Block(kl.Layer):
    """Draws between plain layers, by an operation whose shape depends on theirs."""

    def __init__(self, always, **kwargs):
        super().__init__(**kwargs)
        self.always, self.first, self.second = always, kl.Conv2D(4, 3), kl.Dense(2)
        self.drop = kl.Dropout(0.5)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, x, training=None):
        x = self.first(x)
        if self.always:
            x = x * tf.random.uniform([tf.shape(x)[0], 1, 1, x.shape[-1]])
        return self.second(self.drop(x) if training else x)


@pytest.mark.parametrize("always", [False, True])
def test_draws_between_plain_layers_are_found(always):
    block = Block(always)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, block(inputs))
    (code,) = probe.codes_of(model, Unrolled(model, model.input, model.outputs), [block.drop])
    assert (code.draws, code.always, code.training, code.repeatable) == (always, always, True, not always)
    assert code.rows == {probe.ROWS} and not code.looped
