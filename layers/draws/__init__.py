"""Random draws for layers: `Draw` is the interface, `own_draw` makes a layer's own source for the current backend.

`hash` holds the hash that all sources use. `samples` and `xla` need TensorFlow; the other modules run on any
backend.
"""

import keras

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, Tensor
from dropzoo.layers.draws.plain import PlainDraw

__all__ = ["Draw", "Shape", "Tensor", "own_draw"]


def own_draw(generator: keras.random.SeedGenerator) -> Draw:
    """Returns the source of a layer's draws in training; on the TensorFlow backend XLA compiles large ones.

    Args:
        generator: The layer's seed generator.

    Returns:
        A `Draw` that takes a new seed from the generator at each call.
    """
    if keras.backend.backend() == "tensorflow":
        from dropzoo.layers.draws.xla import XlaDraw  # here, since other backends must not import TensorFlow

        return XlaDraw(generator)
    return PlainDraw(generator)
