"""Batch normalization of images with fixed statistics, as one operation of TensorFlow.

Keras multiplies and then adds, which reads and writes all pixels twice. The one operation reads them once, and
TensorFlow joins it with the convolution before it and the activation behind it.
"""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import mask_of
from dropzoo.models.graph.unroll import RecordedStep, Step

_LEAST_EPSILON = 1.001e-5  # cuDNN refuses smaller ones


def at_once(step: Step) -> Step:
    """Returns a step that computes the same with one operation, or the step itself if there is no such operation.

    Args:
        step: A step of a model.
    """
    layer = step.operation
    if not isinstance(step, RecordedStep) or step.training or type(layer) is not keras.layers.BatchNormalization:
        return step
    images = layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
    usual = images and layer.compute_dtype == "float32" and "call" not in vars(layer)
    if not usual or layer.epsilon < _LEAST_EPSILON:
        return step
    return Normalization(layer, step.reads, step.writes, step.arguments, step.structure)


@dataclass(frozen=True, eq=False)
class Normalization(RecordedStep):
    """A `BatchNormalization` of images in inference mode."""

    def outputs(self, values: dict[int, Any]) -> Any:
        x, layer = values[self.reads[0]], self.operation
        if mask_of(x) is not None:
            return super().outputs(values)
        mean = tf.convert_to_tensor(layer.moving_mean)
        return tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(x, tf.float32),
            scale=layer.gamma if layer.scale else tf.ones_like(mean),
            offset=layer.beta if layer.center else tf.zeros_like(mean),
            mean=mean,
            variance=layer.moving_variance,
            epsilon=layer.epsilon,
            is_training=False,
        ).y
