"""Layers that let a network with poolings take images of any size."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="dropzoo")
class PadToMultiple(keras.Layer):
    """Pads height and width with zeros, at the bottom and on the right, to the next multiple of `multiple`.

    Args:
        multiple: Positive int.

    Input shape:
        `(batch, height, width, channels)`; sizes may be unknown.

    Output shape:
        The input shape, with height and width rounded up to multiples.
    """

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        down, right = _missing(height, self.multiple), _missing(width, self.multiple)
        if isinstance(down, int) and isinstance(right, int) and down == right == 0:
            return inputs
        return _with_zeros(_with_zeros(inputs, 1, 0, down), 2, 0, right)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *size, channels = input_shape
        return (batch, *(n if n is None else n + _missing(n, self.multiple) for n in size), channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}


def _missing(size: Any, multiple: int) -> Any:
    """How much is missing to the next multiple. Some runtimes get the remainder of a negative number wrong."""
    return (multiple - size % multiple) % multiple


def _with_zeros(x: Any, axis: int, before: Any, after: Any) -> Any:
    """A map with rows or columns of zeros at both ends of an axis.

    This is a concatenation, since OpenVINO merges a `pad` with the convolution after it, and then forgets that the
    convolution pads too.
    """

    def zeros(count: Any) -> list[Any]:
        shape = [count if i == axis else n for i, n in enumerate(ops.shape(x))]
        return [] if isinstance(count, int) and count == 0 else [ops.zeros(shape, x.dtype)]

    parts = [*zeros(before), x, *zeros(after)]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis)


def _positive(number: Any) -> Any:
    """The number, or 0 if it is negative."""
    return max(number, 0) if isinstance(number, int) else ops.maximum(number, 0)


@keras.saving.register_keras_serializable(package="dropzoo")
class CropLike(keras.Layer):
    """Crops a padded map to the height and width of the image it came from: `CropLike()([map, image])`.

    Input shape:
        `(batch, height', width', channels')` and `(batch, height, width, channels)`, where height' and width' are
        not smaller than height and width.

    Output shape:
        `(batch, height, width, channels')`
    """

    def call(self, inputs: Any) -> Any:
        x, like = inputs
        _, height, width, _ = ops.shape(like)
        return x[:, :height, :width, :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        padded, like = input_shape
        return (padded[0], *like[1:3], padded[3])


@keras.saving.register_keras_serializable(package="dropzoo")
class FitTo(keras.Layer):
    """Pads a map with zeros or crops it, at both ends, to the size of another map: `FitTo()([map, other])`.

    Some encoders do not halve exactly. Then a map of the decoder is some pixels larger or smaller than its skip.

    Input shape:
        `(batch, height', width', channels')` and `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, channels')`
    """

    def call(self, inputs: Any) -> Any:
        x, like = inputs
        for axis in (1, 2):
            missing = ops.shape(like)[axis] - ops.shape(x)[axis]
            more, less = _positive(missing), _positive(-missing)
            before = more // 2
            x = _with_zeros(x, axis, before, more - before)
            start = less // 2
            size = ops.shape(like)[axis]
            x = x[:, start : start + size] if axis == 1 else x[:, :, start : start + size]
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        x, like = input_shape
        return (x[0], *like[1:3], x[3])


@keras.saving.register_keras_serializable(package="dropzoo")
class SubsampleAndPad(keras.Layer):
    """Keeps every `strides`-th pixel and adds channels of zeros: a shortcut without weights, option A of ResNet.

    Args:
        strides: Positive int, by how much height and width shrink.
        channels: Positive int, channels of the output, not fewer than the input has. Half of the new channels come
            before the old ones, half after them.

    Input shape:
        `(batch, height, width, channels')`

    Output shape:
        `(batch, ceil(height / strides), ceil(width / strides), channels)`

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv:1512.03385.
    """

    def __init__(self, strides: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strides = strides
        self.channels = channels

    def call(self, inputs: Any) -> Any:
        missing = self.channels - inputs.shape[-1]
        x = inputs[:, :: self.strides, :: self.strides]
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strides": self.strides, "channels": self.channels}
