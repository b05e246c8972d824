"""Convolutions of a concatenation, split: they are linear before their activation.

`conv([a, b]) = conv_a(a) + conv_b(b) + bias`, each half with its own channels of the kernel. Where no active
dropout reaches `a`, a U-Net's skip, its half is the same in every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dropzoo.models.graph.unroll import Step


def splits(join: Any, layer: Any, shape: Sequence[int | None]) -> bool:
    """Returns whether a layer can be split over the tensors that feed it.

    Only Keras' own layers can, whose arithmetic is known, and not on sequences, which may carry a mask.

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
    """A convolution or dense layer's sum over some of its input channels.

    Attributes:
        parts: Where the channels of each tensor that it reads begin and end among the layer's.
        whole: Bool. If True, one more tensor that it reads is the other half, and the result is the layer's, with
            bias and activation.
    """

    parts: tuple[tuple[int, int], ...]
    whole: bool

    @classmethod
    def of(
        cls, layer: Any, parts: list[tuple[int, tuple[int, int]]], other: int | None, writes: tuple[int, ...]
    ) -> "Half":
        """Makes a half of a layer.

        Args:
            layer: The layer.
            parts: Pairs of the number of a tensor and where its channels begin and end.
            other: The number of the other half, or None if that comes later.
            writes: The number of the result.
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
        channels, shape = self.operation.kernel.shape[-2], values[self.reads[0]].shape
        whole = keras.KerasTensor((*shape[:-1], channels), dtype=self.operation.compute_dtype)
        return self.operation.compute_output_spec(whole)
