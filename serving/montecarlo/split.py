"""Convolutions of a concatenation, split: they are linear before their activation.

`conv([a, b]) = conv_a(a) + conv_b(b) + bias`, each half with its own channels of the kernel. Where no active
dropout reaches `a`, a U-Net's skip, its half is the same in every sample.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def splits(join: Any, layer: Any, shape: Sequence[int | None]) -> bool:
    """Whether `layer` can be split over the tensors that `join` joins to one of this shape.

    Only Keras' own layers, whose arithmetic is known; not sequences, which may carry a mask.
    """
    if type(join).__name__ != "Concatenate" or join.axis not in (-1, len(shape) - 1) or "call" in vars(layer):
        return False
    if type(layer) is keras.layers.Dense:
        return len(shape) == 2 and layer.quantization_mode is None
    known = type(layer) in (keras.layers.Conv2D, keras.layers.Conv3D)
    return known and layer.groups == 1 and layer.data_format == "channels_last"


class Half:
    """A layer's sum over some of its input channels, to be called with the tensors that hold these.

    Args:
        layer: A convolution or dense layer.
        parts: Where the channels of each tensor begin and end among the layer's.
        whole: Bool: one more tensor is the other half, and the result the layer's, with bias and activation.
    """

    def __init__(self, layer: Any, parts: Sequence[tuple[int, int]], whole: bool) -> None:
        self.name, self._layer, self._parts, self._whole = layer.name, layer, parts, whole
        channels = sum(stop - start for start, stop in parts)
        self.weights = [keras.KerasTensor((*layer.kernel.shape[:-2], channels, layer.kernel.shape[-1]))]

    def __call__(self, *tensors: Any) -> Any:
        layer, dtype = self._layer, self._layer.compute_dtype
        inputs = [ops.cast(x, dtype) for x in tensors[: len(self._parts)]]
        kernels = [layer.kernel[..., start:stop, :] for start, stop in self._parts]
        x = inputs[0] if len(inputs) == 1 else ops.concatenate(inputs, -1)
        kernel = ops.cast(kernels[0] if len(kernels) == 1 else ops.concatenate(kernels, -2), dtype)
        dense = isinstance(layer, keras.layers.Dense)
        x = ops.matmul(x, kernel) if dense else layer.convolution_op(x, kernel)
        if not self._whole:
            return x
        x = x + tensors[-1]
        if layer.bias is not None:
            x = x + ops.cast(layer.bias, dtype)
        return x if layer.activation is None else layer.activation(x)

    def compute_output_spec(self, *tensors: Any) -> Any:
        channels = self._layer.kernel.shape[-2]
        whole = keras.KerasTensor((*tensors[0].shape[:-1], channels), dtype=self._layer.compute_dtype)
        return self._layer.compute_output_spec(whole)
