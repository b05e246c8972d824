"""Private names of Keras: the only module that uses them.

Keras has no public way to do what these functions do. Each says why it is needed, and `NAMES` lists what it relies
on with the version in which it was last seen; `tests/common/test_internals.py` says which one is gone.
"""


import keras


def flatten_layers(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Returns all layers of a model, those inside layers and models too, each once.

    `keras.Model.layers` stops at the first level, so it misses wrapped layers and nested models.
    """
    return list(model._flatten_layers(include_self=include_self))
