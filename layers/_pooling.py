"""Base of the random pooling layers: their arguments and shapes, and the units of each window."""

from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_choice, check_data_format, check_pair
from dropzoo.layers._base import Stochastic
from dropzoo.layers.draws import Tensor


class RandomPooling2D(Stochastic):
    """Base of the pooling layers that draw random numbers.

    They do not subclass `keras.layers.MaxPooling2D`: its `__init__` builds the layer, after which it cannot get a
    seed generator.
    """

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
        padding = padding.lower() if isinstance(padding, str) else padding
        self.padding = check_choice(padding, "padding", ("valid", "same"))
        self.data_format = check_data_format(data_format)
        self.input_spec = keras.InputSpec(ndim=4)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = list(input_shape)
        for axis, pool, stride in zip(self._space(), self.pool_size, self.strides, strict=True):
            if shape[axis] is not None:
                shape[axis] = self._count(shape[axis], pool, stride)
        return tuple(shape)

    def windows(self, inputs: Tensor) -> Tensor:
        """Returns the units of each window on a new last axis; positions beyond the border are -inf.

        Args:
            inputs: Floating point tensor of rank 4.

        Returns:
            A tensor `(batch, height, width, channels, units)`, or `(batch, channels, height, width, units)` for
            `"channels_first"`. Height and width are those of the output.
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

    def _every(self, inputs: Tensor, which: int, start: int, count: int | Tensor) -> Tensor:
        """Returns `count` rows (or columns, for `which=1`), beginning at `start` and a stride apart."""
        index: list[Any] = [slice(None)] * 4
        stride = self.strides[which]
        index[self._space()[which]] = slice(start, start + (count - 1) * stride + 1, stride)
        return inputs[tuple(index)]

    def _count(self, size: int | Tensor, pool: int, stride: int) -> int | Tensor:
        return (size + stride - 1) // stride if self.padding == "same" else (size - pool) // stride + 1

    def _space(self) -> tuple[int, int]:
        return (1, 2) if self.data_format == "channels_last" else (2, 3)

    def get_config(self) -> dict[str, Any]:
        names = ("pool_size", "strides", "padding", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
