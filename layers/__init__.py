"""Dropout layers for convolutional networks, in plain Keras 3."""

from dropzoo.layers._base import BaseDropout, LiveRate, Stochastic
from dropzoo.layers._registry import (
    counterpart,
    describe,
    dropouts,
    get,
    get_class,
    has_live_rate,
    is_dropout,
    is_stochastic,
    list_layers,
    register_layer,
)
from dropzoo.layers.alpha_dropout import AlphaDropout
from dropzoo.layers.concrete_dropout import ConcreteDropout
from dropzoo.layers.cutout_dropout import CutoutDropout
from dropzoo.layers.drop_block import DropBlock2D
from dropzoo.layers.drop_connect import DropConnectConv2D, DropConnectDense
from dropzoo.layers.drop_path import DropPath
from dropzoo.layers.dropout import Dropout
from dropzoo.layers.gaussian_dropout import GaussianDropout
from dropzoo.layers.masksembles import Masksembles
from dropzoo.layers.max_dropout import MaxDropout
from dropzoo.layers.max_pool_dropout import MaxPoolDropout2D
from dropzoo.layers.shake_drop import ShakeDrop
from dropzoo.layers.spatial_dropout import SpatialDropout1D, SpatialDropout2D, SpatialDropout3D
from dropzoo.layers.stochastic_pooling import StochasticPooling2D
from dropzoo.layers.targeted_dropout import TargetedDropout
from dropzoo.layers.u_out import UOut
from dropzoo.layers.weighted_channel_dropout import WeightedChannelDropout

__all__ = [
    "AlphaDropout",
    "BaseDropout",
    "ConcreteDropout",
    "CutoutDropout",
    "DropBlock2D",
    "DropConnectConv2D",
    "DropConnectDense",
    "DropPath",
    "Dropout",
    "GaussianDropout",
    "LiveRate",
    "Masksembles",
    "MaxDropout",
    "MaxPoolDropout2D",
    "ShakeDrop",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Stochastic",
    "StochasticPooling2D",
    "TargetedDropout",
    "UOut",
    "WeightedChannelDropout",
    "counterpart",
    "describe",
    "dropouts",
    "get",
    "get_class",
    "has_live_rate",
    "is_dropout",
    "is_stochastic",
    "list_layers",
    "register_layer",
]
