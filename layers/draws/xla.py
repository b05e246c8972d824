"""A layer's own draws on TensorFlow: large masks are drawn and applied in one pass over memory, compiled by XLA.

Compiled functions also work inside a plain graph, and cost the same there as under `jit_compile=True`.
"""

import contextlib
import contextvars
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, derive_key, hash_bits, keep_mask
from dropzoo.layers.draws.recompute import next_seed

_weights_only = contextvars.ContextVar("weights_only", default=False)


class XlaDraw(Draw):
    """The draws of a layer in training, from its seed generator, compiled if that is faster.

    Attributes:
        compile_from: Int. The least number of elements for which a computation is compiled. With fewer elements it
            is as fast to run one operation after another, and no time is spent on compilation. 0 compiles
            everything.
    """

    compile_from = 1 << 14

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self._generator = generator

    def bits(self, shape: Shape) -> tf.Tensor:
        draw = compiled(hash_bits) if self._pays(shape) else hash_bits
        return _with_shape(draw(tf.stack(shape), derive_key(next_seed(self._generator), _replica())), shape)

    def keep(self, shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        if not self._pays(shape):
            return super().keep(shape, rate)
        return _with_shape(compiled(_keep)(tf.stack(shape), rate, next_seed(self._generator), _replica()), shape)

    def drop_units(self, inputs: tf.Tensor, mask_shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        """See `Draw.drop_units`.

        It costs about as much as a copy. The gradient draws the mask again, so that no mask is stored.
        """
        if not self._pays(ops.shape(inputs)):
            return super().drop_units(inputs, mask_shape, rate)
        seed, replica = next_seed(self._generator), _replica()
        ones = [isinstance(drawn, int) and drawn == 1 for drawn in mask_shape]

        def drop(x: tf.Tensor, relu: bool = False) -> tf.Tensor:
            shape, shared = _merge_axes(x, ones)
            y = compiled(_drop)(tf.reshape(x, shape), rate, seed, replica, shared, relu)
            return tf.reshape(y, tf.shape(x))

        return _with_shape(_with_gradient(drop, inputs, rate), inputs.shape)

    def drop_and_scale(self, inputs: tf.Tensor, keep: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        if not self._pays(ops.shape(inputs)):
            return super().drop_and_scale(inputs, keep, rate)

        def drop(x: tf.Tensor, relu: bool = False) -> tf.Tensor:
            return compiled(gate)(x, keep, rate, relu)

        return _with_gradient(drop, inputs, rate)

    def run(self, function: Callable[..., tf.Tensor], x: tf.Tensor, *args: Any) -> tf.Tensor:
        return (compiled(function) if self._pays(ops.shape(x)) else function)(x, *args)

    def _pays(self, shape: Shape) -> bool:
        """Returns whether to compile for tensors of this shape; an unknown size counts as large."""
        static = [n for n in shape if isinstance(n, int)]
        if len(static) < len(shape) or math.prod(static) >= self.compile_from:
            return True
        # Without XLA, TensorFlow has no uint32 arithmetic for GPUs, so the mask would pass through the host.
        return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def gradients_of_weights_only() -> Iterator[None]:
    """Makes the block trace a ReLU and the dropout after it as one operation, with the same gradients of weights.

    The gradient of this pair needs no mask, because it is zero wherever the output of the pair is not positive. So
    the gradient is computed in place instead of in a copy, and only one of the two outputs is kept in memory. But
    there is no gradient with respect to the output of the ReLU. Training does not need that gradient, but a user
    may ask for it.
    """
    token = _weights_only.set(True)
    try:
        yield
    finally:
        _weights_only.reset(token)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled by XLA, as one `tf.function` for all its callers.

    Without a compiler for the devices of this machine, it returns the function itself.
    """
    if not has_compiler():
        return function
    run = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)

    def call(*args: Any) -> Any:
        # The gradient of a `tf.cond` can pass a copy of a tensor of its branch to a compiled function, but not the
        # tensor itself.
        return run(*(tf.identity(x) if tf.is_symbolic_tensor(x) else x for x in args))

    return call


def has_compiler() -> bool:
    """Returns whether XLA can compile for all devices here; tensorflow-metal, for the GPUs of Macs, cannot."""
    return not (sys.platform == "darwin" and tf.config.list_physical_devices("GPU"))


def gate(x: tf.Tensor, keep: tf.Tensor, rate: tf.Tensor, relu: bool = False) -> tf.Tensor:
    """Returns `x / (1 - rate)` where `keep`, else 0; with `relu`, a ReLU comes first.

    The result is the smaller of two bit patterns. A select costs twice as much (LLVM turns it into masked loads),
    and a product would keep NaN.
    """
    bits = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[x.dtype.size]
    x = tf.nn.relu(x) if relu else x
    scaled = tf.bitcast(x * tf.cast(1.0 / (1.0 - rate), x.dtype), bits)
    limit = tf.where(keep, tf.constant(bits.max, bits), tf.constant(0, bits))
    return tf.bitcast(tf.minimum(scaled, limit), x.dtype)


def _with_gradient(drop: Callable[..., tf.Tensor], inputs: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Returns `drop(inputs)`, whose gradient the same mask drops; or `drop` and the ReLU before it as one."""
    if _weights_only.get() and tf.is_symbolic_tensor(inputs) and inputs.op.type == "Relu":

        @tf.custom_gradient
        def relu_and_drop(x: tf.Tensor) -> Any:
            y = drop(x, relu=True)
            scale = tf.cast(1.0 / (1.0 - rate), y.dtype)
            return y, lambda gradient: tf.raw_ops.ReluGrad(gradients=gradient * scale, features=y)

        return relu_and_drop(inputs.op.inputs[0])

    @tf.custom_gradient
    def drop_alone(x: tf.Tensor) -> Any:
        return drop(x), drop_alone

    return drop_alone(inputs)


def _keep(shape: tf.Tensor, rate: tf.Tensor, seed: tf.Tensor, replica: tf.Tensor) -> tf.Tensor:
    return keep_mask(hash_bits(shape, derive_key(seed, replica)), rate)


def _drop(
    x: tf.Tensor, rate: tf.Tensor, seed: tf.Tensor, replica: tf.Tensor, shared: tuple[bool, ...], relu: bool
) -> tf.Tensor:
    return gate(x, _keep(shape_of_mask(x, shared), rate, seed, replica), rate, relu)


def shape_of_mask(x: tf.Tensor, shared: Sequence[bool]) -> tf.Tensor:
    """Returns the shape of a mask for `x` as an int tensor `(rank,)`: 1 along the axes that share their draws."""
    sizes = tf.unstack(tf.shape(x), num=len(shared))
    return tf.stack([1 if one else size for one, size in zip(shared, sizes, strict=True)])


def _merge_axes(x: tf.Tensor, ones: Sequence[bool]) -> tuple[tf.Tensor, tuple[bool, ...]]:
    """Returns the shape of `x` in which neighbouring axes are joined if both share their draws or neither does.

    The second result says which of the joined axes share their draws. So one compiled program serves many shapes:
    for `Dropout`, all shapes with the same number of elements.
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


def _replica() -> int | tf.Tensor:
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _with_shape(tensor: tf.Tensor, shape: Sequence[Any]) -> tf.Tensor:
    """Returns the tensor with the sizes that are known statically, which a compiled function forgets."""
    return tf.ensure_shape(tensor, [n if isinstance(n, int) else None for n in shape])
