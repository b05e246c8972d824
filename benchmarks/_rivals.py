"""What our layers are measured against, where Keras has none."""

from typing import Any

import keras


class PlainDropBlock2D(keras.layers.Layer):
    """DropBlock as it is usually written: uniform draws, padding, one square max-pooling, a renormalisation."""

    def __init__(self, rate: float, block_size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.block_size = rate, block_size
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        batch, height, width, channels = keras.ops.shape(inputs)
        size = self.block_size
        valid = (batch, height - size + 1, width - size + 1, channels)
        gamma = self.rate * height * width / size**2 / (valid[1] * valid[2])
        starts = keras.ops.cast(keras.random.uniform(valid, seed=self.seed_generator) < gamma, inputs.dtype)
        before, after = (size - 1) // 2, size // 2
        starts = keras.ops.pad(starts, [(0, 0), (before, after), (before, after), (0, 0)])
        keep = 1 - keras.ops.max_pool(starts, size, strides=1, padding="same")
        return inputs * keep * (keras.ops.cast(keras.ops.size(keep), keep.dtype) / keras.ops.sum(keep))
