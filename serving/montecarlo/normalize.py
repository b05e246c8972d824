"""Batch normalization of images with fixed statistics, as one operation of TensorFlow.

Keras multiplies and then adds, which reads and writes all pixels twice. The one operation reads them once. On
CPUs, TensorFlow joins it with a convolution before it and a ReLU behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import mask_of
from dropzoo.models.graph.unroll import RecordedStep, Step, Unrolled

_LEAST_EPSILON = 1.001e-5  # cuDNN refuses smaller ones

# Layers that may read the result. TensorFlow 2.21 also joins it with tanh and mish, but cannot run what comes out,
# so a layer is only listed here if a test shows that its graph runs.
_READERS = (
    keras.layers.Add,
    keras.layers.AveragePooling2D,
    keras.layers.Concatenate,
    keras.layers.Conv2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
)


def at_once(graph: Unrolled) -> list[Step]:
    """Returns the steps of a model, with normalizations of images as one operation wherever that is possible."""
    readers: dict[int, list[Any]] = {}
    for step in graph.steps:
        for number in step.reads:
            readers.setdefault(number, []).append(step.operation)
    return [
        Normalization(step.operation, step.reads, step.writes, step.arguments, step.structure)
        if isinstance(step, RecordedStep)
        and _is_usual(step)
        and _may_read(readers.get(step.writes[0], ()))
        and step.writes[0] not in graph.outputs
        else step
        for step in graph.steps
    ]


def _is_usual(step: RecordedStep) -> bool:
    layer = step.operation
    if step.training or type(layer) is not keras.layers.BatchNormalization or "call" in vars(layer):
        return False
    images = layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
    return images and layer.compute_dtype == "float32" and layer.epsilon >= _LEAST_EPSILON


def _may_read(layers: Sequence[Any]) -> bool:
    return bool(layers) and all(type(layer) in _READERS or _is_relu(layer) for layer in layers)


def _is_relu(layer: Any) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu


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
