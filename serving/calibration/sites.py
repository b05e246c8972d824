"""The dropout sites of a model by the names that `MonteCarlo(sites=)` takes."""

import keras

from dropzoo import layers
from dropzoo.models.graph.random import has_known_call, random_layers

#: Dict from the sites that drop to their rates (True if the rate cannot be set). Empty for one pass.
Sites = dict[str, float | bool]


def named_sites(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of a model that draw random numbers, in its order, by the names of their sites."""
    named = {}
    for each in random_layers(model):
        name = each.path.removesuffix("_dropout") if each.kind == "dropout" else each.path
        named[each.path if name in named else name] = each.layer
    return named


def can_set(layer: keras.Layer) -> bool:
    """Returns whether a layer has a rate that Monte-Carlo sampling can set, and is off at a rate of 0.

    `ShakeDrop` and `Dropout(scaling="standard")` scale their inputs by their rate in inference, so a network in
    which they drop nothing is not the one in which they are off.
    """
    scales = isinstance(layer, layers.ShakeDrop) or getattr(layer, "scaling", "inverted") == "standard"
    sets = layers.is_dropout(layer) and has_known_call(layer) and hasattr(layers.counterpart(layer), "drop")
    return sets and not scales
