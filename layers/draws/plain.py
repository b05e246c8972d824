"""The one place that draws random bits for masks, and drops by them.

A mask is a pure function of (seed, replica, index of the element): an integer hash of a counter, not a stream.
So one seed gives one mask whether it is drawn eagerly, in a graph or under XLA, and two replicas never share
one. The hash is triple32 (C. Wellons, hash-prospector, 2018) of `index * a + b`, where the key gives the odd `a`
and `b`: with a key that is only added, all masks would be windows of one and the same sequence.

On TensorFlow a layer's own draws are compiled by XLA (`_xla.py`); everything here runs on any Keras backend.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Draw = Callable[[Any], Any]
"""`draw(shape)` gives 32 random bits for each element of `shape` as uint32, new ones at each call."""


class OwnDraw:
    """The draws of a layer in training: by its seed generator, and compiled where that is faster."""

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self._generator = generator

    def __call__(self, shape: Sequence[Any]) -> Any:
        return random_bits(shape, self.next_seed())

    def next_seed(self) -> Any:
        """Two integers, others at each call."""
        return self._generator.next()


def random_bits(shape: Sequence[Any], seed: Any) -> Any:
    """32 uniform random bits for each element.

    Args:
        shape: the shape to draw; entries may be scalar tensors where a dimension is dynamic.
        seed: two integers, as `keras.random.SeedGenerator.next()` gives them.

    Returns:
        A uint32 tensor.
    """
    if keras.backend.backend() == "tensorflow":
        from dropzoo.layers.draws import xla as _xla

        return _xla.random_bits(shape, seed)
    return hash_bits(tuple(shape), derive_key(seed))


def keep_mask(bits: Any, rate: Any) -> Any:
    """True with probability `1 - rate`, to within 2**-32."""
    return ops.greater_equal(bits, ops.cast(ops.cast(rate, "float32") * 4294967296.0, "uint32"))


def draw_keep(shape: Sequence[Any], rate: Any, draw: Draw) -> Any:
    """A mask of `shape`, True with probability `1 - rate` for each element on its own."""
    if _compiles(draw, shape):
        from dropzoo.layers.draws import xla as _xla

        return _xla.draw_keep(shape, rate, draw.next_seed())  # type: ignore[attr-defined]
    return keep_mask(draw(shape), rate)


def drop_units(inputs: Any, mask_shape: Sequence[Any], rate: Any, draw: Draw) -> Any:
    """Inverted dropout with one draw for each element of `mask_shape`, which broadcasts to the inputs' shape.

    Compiled, it costs about as much as a copy; the gradient draws the mask again, so that none is stored.
    """
    if _compiles(draw, ops.shape(inputs)):
        from dropzoo.layers.draws import xla as _xla

        return _xla.drop_units(inputs, mask_shape, rate, draw.next_seed())  # type: ignore[attr-defined]
    if (fused := getattr(draw, "drop_units", None)) is not None:  # in Monte-Carlo samples
        return fused(inputs, mask_shape, rate)
    return drop_and_scale(inputs, keep_mask(draw(mask_shape), rate), rate)


def drop_and_scale(inputs: Any, keep: Any, rate: Any, draw: Draw | None = None) -> Any:
    """Inverted dropout: `inputs / (1 - rate)` where `keep`, 0 elsewhere; `keep` broadcasts.

    A select and not a product: what is dropped is gone even where it is inf or NaN. With the layer's own `draw`
    it may be compiled.
    """
    if draw is not None and _compiles(draw, ops.shape(inputs)):
        from dropzoo.layers.draws import xla as _xla

        return _xla.drop_and_scale(inputs, keep, rate)
    scale = ops.cast(1.0 / (1.0 - rate), inputs.dtype)
    return ops.where(keep, inputs * scale, ops.zeros((), inputs.dtype))


def run(function: Callable[..., Any], x: Any, *args: Any, draw: Draw) -> Any:
    """`function(x, *args)`, compiled where that is faster; without a gradient."""
    if _compiles(draw, ops.shape(x)):
        from dropzoo.layers.draws import xla as _xla

        return _xla.compiled(function)(x, *args)
    return function(x, *args)


def standard_normal(bits: Any) -> Any:
    """Float32 draws of N(0, 1) by the inverse of the distribution function, cut at 5.3 standard deviations."""
    return math.sqrt(2.0) * ops.erfinv(2.0 * uniform(bits) - 1.0)


def uniform(bits: Any) -> Any:
    """Float32 draws of U(0, 1), both ends excluded; of 23 bits, so that the half added to them is not rounded."""
    return (ops.cast(ops.right_shift(bits, u32(9)), "float32") + 0.5) * 2.0**-23


def derive_key(seed: Any, replica: Any = 0) -> Any:
    """(seed, counter, replica) as 64 well mixed bits; replica 0 draws what a single device draws."""
    seed = ops.cast(seed, "uint32")
    first = mix(mix(ops.bitwise_xor(seed[0], u32(0x9E3779B9))) + seed[1])
    second = mix(mix(ops.bitwise_xor(seed[1], u32(0x85EBCA6B))) + seed[0])
    return ops.stack([first, ops.bitwise_xor(second, mix(ops.cast(replica, "uint32")))])


def hash_bits(shape: Any, key: Any) -> Any:
    """The bits of each element of `shape` (a tuple, or a tensor where it is dynamic) under a key."""
    size = math.prod(shape) if isinstance(shape, tuple) else ops.prod(shape)
    index = ops.cast(ops.arange(size, dtype="int32"), "uint32")
    h = index * ops.bitwise_or(key[1], u32(1)) + key[0]
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        h = ops.bitwise_xor(h, ops.right_shift(h, u32(shift))) * u32(factor)
    return ops.reshape(ops.bitwise_xor(h, ops.right_shift(h, u32(14))), shape)


def mix(h: Any) -> Any:
    """lowbias32 of the same author, for keys: every bit of the result depends on every bit of the uint32 `h`."""
    h = ops.bitwise_xor(h, ops.right_shift(h, u32(16))) * u32(0x7FEB352D)
    h = ops.bitwise_xor(h, ops.right_shift(h, u32(15))) * u32(0x846CA68B)
    return ops.bitwise_xor(h, ops.right_shift(h, u32(16)))


def u32(value: int) -> Any:
    """A uint32 scalar."""
    return ops.convert_to_tensor(value, dtype="uint32")


def _compiles(draw: Draw, shape: Sequence[Any]) -> bool:
    if keras.backend.backend() != "tensorflow" or not isinstance(draw, OwnDraw):
        return False
    from dropzoo.layers.draws import xla as _xla

    return _xla.pays(shape)
