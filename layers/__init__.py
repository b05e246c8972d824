"""What is dropped: dropout layers for convolutional networks, plain Keras 3."""

from dropzoo.layers._base import BaseDropout
from dropzoo.layers._registry import (
    counterpart,
    describe,
    get,
    is_dropout,
    is_stochastic,
    list_layers,
    register_layer,
)
from dropzoo.layers.alpha_dropout import AlphaDropout
from dropzoo.layers.drop_block import DropBlock2D
from dropzoo.layers.drop_path import DropPath
from dropzoo.layers.dropout import Dropout
from dropzoo.layers.gaussian_dropout import GaussianDropout
from dropzoo.layers.spatial_dropout import SpatialDropout1D, SpatialDropout2D, SpatialDropout3D

__all__ = [
    "AlphaDropout",
    "BaseDropout",
    "DropBlock2D",
    "DropPath",
    "Dropout",
    "GaussianDropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "counterpart",
    "describe",
    "get",
    "is_dropout",
    "is_stochastic",
    "list_layers",
    "register_layer",
]
