"""A layer's own draws on TensorFlow: large masks are drawn and applied in one pass over memory, compiled by XLA.

Compiled functions work inside a plain graph too, and cost there what they cost under `jit_compile=True`.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, derive_key, hash_bits, keep_mask

_weights_only = contextvars.ContextVar("weights_only", default=False)


class XlaDraw(Draw):
    """The draws of a layer in training, by its seed generator, compiled where that is faster.

    Attributes:
        compile_from: Int. Number of elements from which on a computation is compiled. Below it, one operation
            after another is as fast, and spares the compilation. 0 compiles everything.
    """

    compile_from = 1 << 14

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self._generator = generator

    def bits(self, shape: Shape) -> tf.Tensor:
        draw = compiled(hash_bits) if self._pays(shape) else hash_bits
        return _with_shape(draw(tf.stack(shape), derive_key(self._generator.next(), _replica())), shape)

    def keep(self, shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        if not self._pays(shape):
            return super().keep(shape, rate)
        return _with_shape(compiled(_keep)(tf.stack(shape), rate, self._generator.next(), _replica()), shape)

    def drop_units(self, inputs: tf.Tensor, mask_shape: Shape, rate: tf.Tensor) -> tf.Tensor:
        """See `Draw.drop_units`.

        It costs about as much as a copy; the gradient draws the mask again, so that none is stored.
        """
        if not self._pays(ops.shape(inputs)):
            return super().drop_units(inputs, mask_shape, rate)
        seed, replica = self._generator.next(), _replica()
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
        """Whether to compile for tensors of this shape."""
        static = [n for n in shape if isinstance(n, int)]
        if len(static) < len(shape) or math.prod(static) >= self.compile_from:
            return True
        # Outside XLA a GPU has no uint32 arithmetic, and would send the mask through the host.
        return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def gradients_of_weights_only() -> Iterator[None]:
    """Traces a ReLU and the dropout behind it as one operation, with the same gradients of weights.

    The gradient of the pair needs no mask, since a unit that is not positive behind both has none. So it works in
    place where a gradient is otherwise copied, and only one of the two outputs is kept. The gradient with respect
    to the ReLU's output does not exist then; training does not need it, but a user may ask for it.
    """
    token = _weights_only.set(True)
    try:
        yield
    finally:
        _weights_only.reset(token)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled by XLA, as one `tf.function` for all its callers."""
    run = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)

    def call(*args: Any) -> Any:
        # The gradient of a `tf.cond` cannot hand a tensor of its branch to a compiled function, but a copy it can.
        return run(*(tf.identity(x) if tf.is_symbolic_tensor(x) else x for x in args))

    return call


def gate(x: tf.Tensor, keep: tf.Tensor, rate: tf.Tensor, relu: bool = False) -> tf.Tensor:
    """Returns `x / (1 - rate)` (after a ReLU if asked) where `keep`, else 0, as the smaller of two bit patterns.

    A select costs twice as much (LLVM turns it into masked loads), and a product would keep NaN.
    """
    bits = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[x.dtype.size]
    x = tf.nn.relu(x) if relu else x
    scaled = tf.bitcast(x * tf.cast(1.0 / (1.0 - rate), x.dtype), bits)
    limit = tf.where(keep, tf.constant(bits.max, bits), tf.constant(0, bits))
    return tf.bitcast(tf.minimum(scaled, limit), x.dtype)


def _with_gradient(drop: Callable[..., tf.Tensor], inputs: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """`drop(inputs)`, whose gradient is dropped by the same mask; or the ReLU before it and `drop` as one."""
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
    """Returns the shape of a mask for `x`, an int tensor `(rank,)`: 1 along the axes that share their draws."""
    sizes = tf.unstack(tf.shape(x), num=len(shared))
    return tf.stack([1 if one else size for one, size in zip(shared, sizes, strict=True)])


def _merge_axes(x: tf.Tensor, ones: Sequence[bool]) -> tuple[tf.Tensor, tuple[bool, ...]]:
    """The shape of `x` with neighbouring axes joined if both share their draws (`ones`) or neither does.

    The second result says which of the joined axes share. So one program serves many shapes: for `Dropout`, all
    shapes of one size.
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
    """The tensor with the sizes that are known; a compiled function forgets them."""
    return tf.ensure_shape(tensor, [n if isinstance(n, int) else None for n in shape])
