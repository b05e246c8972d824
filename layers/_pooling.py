"""What the random pooling layers share: arguments, shapes, and the windows side by side."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_data_format, check_pair
from dropzoo.layers._base import Stochastic


class RandomPooling2D(Stochastic, keras.Layer):
    """Base of the pooling layers that draw; `keras.layers.MaxPooling2D` cannot be given a seed generator."""

    def __init__(
        self,
        pool_size: int | tuple[int, int],
        strides: int | tuple[int, int] | None,
        padding: str,
        data_format: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = check_pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else check_pair(strides, "strides")
        if str(padding).lower() not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}")
        self.padding = padding.lower()
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=4)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = list(input_shape)
        for axis, pool, stride in zip(self._space(), self.pool_size, self.strides, strict=True):
            if shape[axis] is not None:
                shape[axis] = self._count(shape[axis], pool, stride)
        return tuple(shape)

    def windows(self, inputs: Any) -> Any:
        """The units of each window on a new last axis; -inf where a window hangs over the border.

        Returns:
            `(batch, height, width, channels, units)`, height and width those of the output, or with the channels
            first.
        """
        sizes = []
        for axis, pool, stride in zip(self._space(), self.pool_size, self.strides, strict=True):
            size = ops.shape(inputs)[axis]
            sizes.append(self._count(size, pool, stride))
            if self.padding == "same":
                missing = (sizes[-1] - 1) * stride + pool - size
                missing = max(missing, 0) if isinstance(missing, int) else ops.maximum(missing, 0)
                edges: list[Any] = [(0, 0)] * 4
                edges[axis] = (missing // 2, missing - missing // 2)
                inputs = ops.pad(inputs, edges, constant_values=float("-inf"))
        return ops.stack(
            [
                self._every(self._every(inputs, 0, row, sizes[0]), 1, column, sizes[1])
                for row in range(self.pool_size[0])
                for column in range(self.pool_size[1])
            ],
            axis=-1,
        )

    def _every(self, inputs: Any, which: int, start: int, count: Any) -> Any:
        """`count` rows (or columns) from `start` on, a stride apart."""
        index: list[Any] = [slice(None)] * 4
        stride = self.strides[which]
        index[self._space()[which]] = slice(start, start + (count - 1) * stride + 1, stride)
        return inputs[tuple(index)]

    def _count(self, size: Any, pool: int, stride: int) -> Any:
        return (size + stride - 1) // stride if self.padding == "same" else (size - pool) // stride + 1

    def _space(self) -> tuple[int, int]:
        return (1, 2) if self.data_format == "channels_last" else (2, 3)

    def get_config(self) -> dict[str, Any]:
        names = ("pool_size", "strides", "padding", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
