"""A layer's own draws on any Keras backend."""

import keras

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, Tensor, derive_key, hash_bits


class PlainDraw(Draw):
    """The draws of a layer in training, from its seed generator, one operation after another."""

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self._generator = generator

    def bits(self, shape: Shape) -> Tensor:
        return hash_bits(tuple(shape), derive_key(self._generator.next()))
