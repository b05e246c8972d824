"""The interface between a layer and its random draws."""

import abc
from collections.abc import Callable
from typing import Any

from keras import ops

from dropzoo.layers.draws.hash import Shape, Tensor, keep_mask, standard_normal, uniform


class Draw(abc.ABC):
    """Source of a layer's random draws: everything random in the layer's formula comes from it.

    Each call draws new numbers. A subclass says where the bits come from. It may also override the other methods
    to compute the same result faster.
    """

    @abc.abstractmethod
    def bits(self, shape: Shape) -> Tensor:
        """Returns 32 random bits for each element.

        Args:
            shape: Sequence of ints, or of int scalars where a size is dynamic. The first axis is the batch.

        Returns:
            A uint32 tensor of `shape`.
        """

    def __call__(self, shape: Shape) -> Tensor:
        """Returns `bits(shape)`: a custom layer can call a draw like a function."""
        return self.bits(shape)

    def uniform(self, shape: Shape) -> Tensor:
        """Returns a float32 tensor of `shape` with draws from U(0, 1), both ends excluded."""
        return uniform(self.bits(shape))

    def normal(self, shape: Shape) -> Tensor:
        """Returns a float32 tensor of `shape` with draws from N(0, 1)."""
        return standard_normal(self.bits(shape))

    def keep(self, shape: Shape, rate: Tensor) -> Tensor:
        """Returns a mask: a bool tensor of `shape`, whose elements are True with probability `1 - rate`."""
        return keep_mask(self.bits(shape), rate)

    def drop_units(self, inputs: Tensor, mask_shape: Shape, rate: Tensor) -> Tensor:
        """Returns the inputs after inverted dropout with a new mask.

        Args:
            inputs: Floating point tensor.
            mask_shape: Shape of the mask. It broadcasts to that of the inputs: axes of size 1 share their draws.
            rate: Float32 scalar in [0, 1), the probability to drop.

        Returns:
            A tensor like `inputs`.
        """
        return self.drop_and_scale(inputs, self.keep(mask_shape, rate), rate)

    def drop_and_scale(self, inputs: Tensor, keep: Tensor, rate: Tensor) -> Tensor:
        """Returns `inputs / (1 - rate)` where `keep`, and 0 elsewhere.

        This is a select, not a product: a dropped unit is 0 even where it was inf or NaN.

        Args:
            inputs: Floating point tensor.
            keep: Bool tensor that broadcasts to the shape of the inputs.
            rate: Float32 scalar in [0, 1).

        Returns:
            A tensor like `inputs`.
        """
        scale = ops.cast(1.0 / (1.0 - rate), inputs.dtype)
        return ops.where(keep, inputs * scale, ops.zeros((), inputs.dtype))

    def run(self, function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
        """Returns `function(x, *args)`, compiled if that is faster; no gradient flows through it."""
        return function(x, *args)
