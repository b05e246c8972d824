"""Splits a convolution that reads a concatenation in two halves, as it is linear before its activation.

`conv([a, b]) = conv_a(a) + conv_b(b) + bias`, where each half has its own channels of the kernel. If no active
dropout reaches `a`, such as the skip of a U-Net, its half is the same in every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dropzoo.models.graph.unroll import Step


def splits(join: Any, layer: Any, shape: Sequence[int | None]) -> bool:
    """Returns whether a layer can be split over the tensors that feed it.

    Only layers of Keras itself can be split, because their arithmetic is known. Layers that read sequences cannot,
    because sequences may carry a mask.

    Args:
        join: The operation that makes the layer's input, perhaps a `Concatenate`.
        layer: The layer or operation that reads it.
        shape: The shape of the layer's input.
    """
    if type(join).__name__ != "Concatenate" or join.axis not in (-1, len(shape) - 1) or "call" in vars(layer):
        return False
    if type(layer) is keras.layers.Dense:
        return len(shape) == 2 and layer.quantization_mode is None
    known = type(layer) in (keras.layers.Conv2D, keras.layers.Conv3D)
    return known and layer.groups == 1 and layer.data_format == "channels_last"


@dataclass(frozen=True, eq=False)
class Half(Step):
    """The part of a convolution or dense layer that reads some of its input channels.

    Attributes:
        parts: For each tensor that it reads, the first and the end index of its channels in the layer's input.
        whole: Bool. If True, the step also reads the result of the other half, as its last tensor, and returns the
            output of the layer, with bias and activation.
    """

    parts: tuple[tuple[int, int], ...]
    whole: bool

    @classmethod
    def of(
        cls, layer: Any, parts: list[tuple[int, tuple[int, int]]], other: int | None, writes: tuple[int, ...]
    ) -> "Half":
        """Returns one half of a layer.

        Args:
            layer: The layer.
            parts: Pairs `(number, (start, stop))` of a tensor and its channels in the layer's input.
            other: The number of the other half's result; None for the half that runs first.
            writes: The number of the result, as a tuple.
        """
        reads = tuple(number for number, _ in parts) + (() if other is None else (other,))
        return cls(layer, reads, writes, tuple(part for _, part in parts), other is not None)

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        channels = sum(stop - start for start, stop in self.parts)
        return [(*self.operation.kernel.shape[:-2], channels, self.operation.kernel.shape[-1])]

    def outputs(self, values: dict[int, Any]) -> Any:
        layer, dtype = self.operation, self.operation.compute_dtype
        tensors = [values[number] for number in self.reads]
        inputs = [ops.cast(x, dtype) for x in tensors[: len(self.parts)]]
        kernels = [layer.kernel[..., start:stop, :] for start, stop in self.parts]
        x = inputs[0] if len(inputs) == 1 else ops.concatenate(inputs, -1)
        kernel = ops.cast(kernels[0] if len(kernels) == 1 else ops.concatenate(kernels, -2), dtype)
        dense = isinstance(layer, keras.layers.Dense)
        x = ops.matmul(x, kernel) if dense else layer.convolution_op(x, kernel)
        if not self.whole:
            return x
        x = x + tensors[-1]
        if layer.bias is not None:
            x = x + ops.cast(layer.bias, dtype)
        return x if layer.activation is None else layer.activation(x)

    def specs(self, values: dict[int, Any]) -> Any:
        # Keras computes the shape of the output from the layer's whole input, and either half has that shape.
        channels, shape = self.operation.kernel.shape[-2], values[self.reads[0]].shape
        whole = keras.KerasTensor((*shape[:-1], channels), dtype=self.operation.compute_dtype)
        return self.operation.compute_output_spec(whole)
