"""Adam's update by a single TensorFlow operation for each variable, instead of fifteen."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import adam_slots

#: Variables with fewer elements are left to Keras, whose operations run side by side.
SMALL = 1 << 14


@contextlib.contextmanager
def fused(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Lets `Adam` and `AdamW` update each large variable in one pass over it, in steps that the block traces.

    The formula is the same, but the rounding differs: the single operation is more exact, which shows when
    `beta_2` is very near 1. Keras still does everything around the update (clipping, decay, accumulation,
    averages), and the updates of other optimizers, with `amsgrad`, and with sparse gradients.

    The block changes the instance and not the class, because the optimizer is the user's own object: it must be
    saved and rebuilt as the `Adam` or `AdamW` that it is.

    Args:
        optimizer: Any Keras optimizer.
    """
    if type(optimizer) not in (keras.optimizers.Adam, keras.optimizers.AdamW) or optimizer.amsgrad:
        yield
        return
    keras_step = optimizer.update_step

    def update_step(gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        large = isinstance(gradient, tf.Tensor) and variable.shape.num_elements() >= SMALL
        slots = adam_slots(optimizer, variable) if large else None
        if slots is None:
            return keras_step(gradient, variable, learning_rate)
        (momentum, velocity), dtype = slots, variable.dtype
        beta_1, beta_2 = tf.constant(optimizer.beta_1, dtype), tf.constant(optimizer.beta_2, dtype)
        step = tf.cast(optimizer.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
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
