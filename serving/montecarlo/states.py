"""The states that stateful recurrent layers keep from batch to batch: each sample begins with the same ones."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers


class States:
    """The states of the stateful layers in a model.

    Args:
        model: A built model.
    """

    def __init__(self, model: keras.Model) -> None:
        layers = [layer for layer in flatten_layers(model) if getattr(layer, "stateful", False)]
        held = [state for layer in layers for state in keras.tree.flatten(getattr(layer, "states", None))]
        self._variables = list({id(v): v for v in held if isinstance(v, keras.Variable)}.values())

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of TensorFlow that hold the states."""
        return [variable.value for variable in self._variables]

    def read(self) -> list[tf.Tensor]:
        """Returns copies of the states."""
        return [tf.identity(variable.value) for variable in self._variables]

    def write(self, values: Sequence[tf.Tensor]) -> None:
        """Sets the states to copies from `read`."""
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
