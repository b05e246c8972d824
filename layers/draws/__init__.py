"""Random draws for layers: `Draw` is the interface, `own_draw` makes a layer's own source for the current backend.

`hash` holds the hash that all sources use. `samples` and `xla` need TensorFlow, `jax` needs JAX and `torch` needs
PyTorch; the other modules run on any backend.
"""

import keras

from dropzoo.layers.draws.draw import Draw
from dropzoo.layers.draws.hash import Shape, Tensor
from dropzoo.layers.draws.plain import PlainDraw

__all__ = ["Draw", "Shape", "Tensor", "own_draw"]


def own_draw(generator: keras.random.SeedGenerator) -> Draw:
    """Returns the source of a layer's draws in training on the current backend; all give the same masks.

    Args:
        generator: The layer's seed generator.

    Returns:
        A `Draw` that takes a new seed from the generator at each call.
    """
    match keras.backend.backend():  # imported here, so that no backend needs another one
        case "tensorflow":
            from dropzoo.layers.draws.xla import XlaDraw

            return XlaDraw(generator)
        case "jax":
            from dropzoo.layers.draws.jax import JaxDraw

            return JaxDraw(generator)
        case "torch":
            from dropzoo.layers.draws.torch import TorchDraw

            return TorchDraw(generator)
    return PlainDraw(generator)
