"""The fast path on TensorFlow: masks drawn and applied in one pass over memory, compiled by XLA.

Compiled functions work inside a plain graph too, and cost there what they cost under `jit_compile=True`.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dropzoo.layers.draws.plain import derive_key, hash_bits, keep_mask

# Below so many elements the same operations one by one are as fast, and spare the compilation.
_COMPILE_FROM = 1 << 14

_weights_only = contextvars.ContextVar("weights_only", default=False)


@contextlib.contextmanager
def gradients_of_weights_only() -> Iterator[None]:
    """Traced inside, a ReLU and the dropout behind it are one operation, with the same gradients of weights.

    Its gradient needs no mask: a unit that is not positive behind both has none. So it works in place where else
    the gradient is copied, and only one of the two outputs is kept. The gradient of what the ReLU gives out,
    which nobody trains by but users may ask for, does not exist then.
    """
    token = _weights_only.set(True)
    try:
        yield
    finally:
        _weights_only.reset(token)


def pays(shape: Sequence[Any]) -> bool:
    """Whether to compile for tensors of this shape."""
    static = [n for n in shape if isinstance(n, int)]
    if len(static) < len(shape) or math.prod(static) >= _COMPILE_FROM:
        return True
    # Outside XLA a GPU has no uint32 arithmetic, and would send the mask through the host.
    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled by XLA, one `tf.function` for all who call it."""
    run = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)

    def call(*args: Any) -> Any:
        # The gradient of a `tf.cond` cannot hand what its branch holds to a compiled function, but a copy it can.
        return run(*(tf.identity(x) if tf.is_symbolic_tensor(x) else x for x in args))

    return call


def random_bits(shape: Sequence[Any], seed: Any) -> tf.Tensor:
    """See `_masks.random_bits`."""
    draw = compiled(hash_bits) if pays(shape) else hash_bits
    return _with_shape(draw(tf.stack(shape), _key(seed)), shape)


def draw_keep(shape: Sequence[Any], rate: Any, seed: Any) -> tf.Tensor:
    """See `_masks.draw_keep`."""
    return _with_shape(compiled(_keep)(tf.stack(shape), rate, seed, _replica()), shape)


def drop_units(inputs: tf.Tensor, mask_shape: Sequence[Any], rate: Any, seed: Any) -> tf.Tensor:
    """See `_masks.drop_units`."""
    replica = _replica()
    ones = [isinstance(drawn, int) and drawn == 1 for drawn in mask_shape]

    def drop(x: tf.Tensor, relu: bool = False) -> tf.Tensor:
        shape, shared = _merge_axes(x, ones)
        y = compiled(_drop)(tf.reshape(x, shape), rate, seed, replica, shared, relu)
        return tf.reshape(y, tf.shape(x))

    return _with_shape(_with_gradient(drop, inputs, rate), inputs.shape)


def drop_and_scale(inputs: tf.Tensor, keep: tf.Tensor, rate: Any) -> tf.Tensor:
    """See `_masks.drop_and_scale`."""

    def gate(x: tf.Tensor, relu: bool = False) -> tf.Tensor:
        return compiled(_gate)(x, keep, rate, relu)

    return _with_gradient(gate, inputs, rate)


def _with_gradient(gate: Callable[..., tf.Tensor], inputs: tf.Tensor, rate: Any) -> tf.Tensor:
    """`gate(inputs)`, whose gradient goes through the same gate, or `gate` and the ReLU before it as one."""
    if _weights_only.get() and tf.is_symbolic_tensor(inputs) and inputs.op.type == "Relu":

        @tf.custom_gradient
        def relu_and_drop(x: tf.Tensor) -> Any:
            y = gate(x, relu=True)
            scale = tf.cast(1.0 / (1.0 - rate), y.dtype)
            return y, lambda gradient: tf.raw_ops.ReluGrad(gradients=gradient * scale, features=y)

        return relu_and_drop(inputs.op.inputs[0])

    @tf.custom_gradient
    def drop(x: tf.Tensor) -> Any:
        return gate(x), drop

    return drop(inputs)


def _keep(shape: Any, rate: Any, seed: Any, replica: Any) -> tf.Tensor:
    return keep_mask(hash_bits(shape, derive_key(seed, replica)), rate)


def _drop(x: Any, rate: Any, seed: Any, replica: Any, shared: tuple[bool, ...], relu: bool) -> tf.Tensor:
    shape = [1 if one else n for one, n in zip(shared, tf.unstack(tf.shape(x)), strict=True)]
    return _gate(x, _keep(tf.stack(shape), rate, seed, replica), rate, relu)


def _gate(x: tf.Tensor, keep: tf.Tensor, rate: Any, relu: bool = False) -> tf.Tensor:
    """`x / (1 - rate)` (after a ReLU if asked) where `keep`, else 0, as the smaller of two bit patterns.

    A select costs twice as much (LLVM turns it into masked loads), a product would keep NaN.
    """
    bits = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[x.dtype.size]
    x = tf.nn.relu(x) if relu else x
    scaled = tf.bitcast(x * tf.cast(1.0 / (1.0 - rate), x.dtype), bits)
    limit = tf.where(keep, tf.constant(bits.max, bits), tf.constant(0, bits))
    return tf.bitcast(tf.minimum(scaled, limit), x.dtype)


def _merge_axes(x: tf.Tensor, ones: Sequence[bool]) -> tuple[Any, tuple[bool, ...]]:
    """The shape of `x` with neighbouring axes joined that share their draws (`ones`) or do not; and which share.

    So many shapes need one program: all of one size for `Dropout`.
    """
    merged: list[Any] = []
    shared: list[bool] = []
    for size, one in zip(tf.unstack(tf.shape(x), num=len(ones)), ones, strict=True):
        if shared and shared[-1] == one:
            merged[-1] = merged[-1] * size
        else:
            merged.append(size)
            shared.append(one)
    return tf.stack(merged), tuple(shared)


def _replica() -> Any:
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _key(seed: Any) -> tf.Tensor:
    return derive_key(seed, _replica())


def _with_shape(tensor: tf.Tensor, shape: Sequence[Any]) -> tf.Tensor:
    """Recalls what is known of the shape; a compiled function forgets it."""
    return tf.ensure_shape(tensor, [n if isinstance(n, int) else None for n in shape])
