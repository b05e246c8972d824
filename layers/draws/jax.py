"""A layer's own draws on JAX: eager calls run compiled functions, as XLA merges all steps of the hash into one."""

import functools
import math
from typing import Any

import jax
from keras import ops

from dropzoo.layers.draws.hash import Shape, derive_key, hash_bits, keep_mask
from dropzoo.layers.draws.plain import PlainDraw


class JaxDraw(PlainDraw):
    """The draws of a layer in training, from its seed generator, compiled."""

    def bits(self, shape: Shape) -> Any:
        return _bits(self._generator.next(), tuple(shape))

    def keep(self, shape: Shape, rate: Any) -> Any:
        return _keep(self._generator.next(), rate, tuple(shape))

    def drop_units(self, inputs: Any, mask_shape: Shape, rate: Any) -> Any:
        return _drop(inputs, self._generator.next(), rate, tuple(mask_shape))


@functools.partial(jax.jit, static_argnums=1)
def _bits(seed: Any, shape: tuple[int, ...]) -> Any:
    return hash_bits(shape, derive_key(seed))


@functools.partial(jax.jit, static_argnums=2)
def _keep(seed: Any, rate: Any, shape: tuple[int, ...]) -> Any:
    return keep_mask(hash_bits(shape, derive_key(seed)), rate)


@functools.partial(jax.jit, static_argnums=3)
def _drop(x: Any, seed: Any, rate: Any, shape: tuple[int, ...]) -> Any:
    scale = ops.cast(1.0 / (1.0 - rate), x.dtype)
    keep = _keep(seed, rate, shape)
    if math.prod(shape) < x.size:
        # Without the barrier XLA merges the two loops, and draws a shared element again for each place.
        keep = jax.lax.optimization_barrier(keep)
    return ops.where(keep, x * scale, ops.zeros((), x.dtype))
