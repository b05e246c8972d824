"""Random draws for layers: `Draw` is the interface, `own_draw` chooses a layer's own source once, for its backend.

`hash` holds the hash that all of them use. `samples` and `xla` need TensorFlow, `draw` and `plain` run anywhere.
"""

import keras

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, Tensor
from dropzoo.layers.draws.plain import PlainDraw

__all__ = ["Draw", "Shape", "Tensor", "own_draw"]


def own_draw(generator: keras.random.SeedGenerator) -> Draw:
    """Returns the draws of a layer in training, compiled by XLA on the TensorFlow backend.

    Args:
        generator: The layer's seed generator.

    Returns:
        A `Draw` that takes a new seed from the generator at each call.
    """
    if keras.backend.backend() == "tensorflow":
        from dropzoo.layers.draws.xla import XlaDraw  # here, since other backends must not import TensorFlow

        return XlaDraw(generator)
    return PlainDraw(generator)
