"""Models whose layers keep their order, so that weights files load with any dropout."""

import warnings
from typing import Any

import keras

from dropzoo.common.keras_internals import KerasFunctional
from dropzoo.models.graph.walk import calls_of, makers_of


@keras.saving.register_keras_serializable(package="dropzoo", name="OrderedModel")
class Functional(KerasFunctional):
    """A Functional model whose layers have a given order.

    Keras orders layers by their distance from the outputs, and uses that order in weights files and in
    `get_weights()`. So dropout in one of two parallel branches can change the order of their layers; a given order
    prevents that. The class has the name of Keras' own class, because files call a nested model by the name of its
    class.

    Args:
        inputs: As for `keras.Model`.
        outputs: As for `keras.Model`.
        name: Name of the model.
        order: List of strs, names of layers. Layers that are not in it come last.
    """

    # Keras up to 3.13 saves the graph only of a class whose `__init__` has these very arguments.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not by assignment: Keras allows that only after its own `__init__`, which already reads `layers`.
        object.__setattr__(self, "order", list(kwargs.pop("order", ())))
        super().__init__(*args, **kwargs)

    @property
    def layers(self) -> list[keras.Layer]:
        """The layers in the given order."""
        place = {name: i for i, name in enumerate(self.order)}
        return sorted(super().layers, key=lambda layer: place.get(layer.name, len(place)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": list(self.order)}


def in_forward_order(inputs: Any, outputs: Any, name: str) -> Functional:
    """Returns a model whose layers are in the order of the forward pass, which does not depend on dropout."""
    order = [call.layer.name for call in calls_of(keras.Model(inputs, outputs))]
    return Functional(inputs, outputs, name=name, order=order)


def in_order(cls: type, inputs: Any, outputs: Any, name: str, order: list[str]) -> keras.Model:
    """Returns a model whose layers are in `order`; a new layer comes after the layer whose output it reads."""
    new = cls(inputs, outputs, name=name)
    kept = [layer.name for layer in new.layers if layer.name in order and layer.weights]
    if kept == [name for name in order if name in kept]:
        return new
    if cls is not keras.Model:
        warnings.warn(
            f"Weights files of {name!r} will not load into this copy, because its layers are in another order, "
            f"which cannot be changed for a {cls.__name__}. Save and load whole models (.keras) instead.",
            stacklevel=2,
        )
        return new
    order = [known for known in order if known in {layer.name for layer in new.layers}]
    calls = calls_of(new)
    makers = makers_of(calls)
    sources = {call.layer.name: makers[id(call.inputs[0])].layer.name for call in calls if call.inputs}
    for layer in new.layers:
        if layer.name not in order:
            source = sources[layer.name]
            order.insert(order.index(source) + 1 if source in order else len(order), layer.name)
    return Functional(inputs, outputs, name=name, order=order)
