"""Adam's update as the one operation that TensorFlow has for it, in place of Keras' fifteen a variable."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

#: Variables of fewer elements are left to Keras, whose operations run side by side.
SMALL = 1 << 14


@contextlib.contextmanager
def fused(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """While a step is traced, `Adam` and `AdamW` update each large variable in one pass over it.

    The formula is the same; what differs is rounding, the operation being the more exact one. With a `beta_2` very
    near 1 that can be seen. Everything around it (clipping, decay, accumulation, averages) stays Keras'. Other
    optimizers, `amsgrad` and sparse gradients too.
    """
    if type(optimizer) not in (keras.optimizers.Adam, keras.optimizers.AdamW) or optimizer.amsgrad:
        yield
        return
    keras_step = optimizer.update_step

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not isinstance(gradient, tf.Tensor) or variable.shape.num_elements() < SMALL:
            return keras_step(gradient, variable, learning_rate)
        index, dtype = optimizer._get_variable_index(variable), variable.dtype
        beta_1, beta_2 = tf.constant(optimizer.beta_1, dtype), tf.constant(optimizer.beta_2, dtype)
        step = tf.cast(optimizer.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(optimizer.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    optimizer.update_step = update_step
    try:
        yield
    finally:
        del optimizer.update_step
