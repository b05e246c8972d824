"""The outputs of a model, and the targets that belong to each of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.keras_internals import recorded_graph
from dropzoo.common.words import count_of
from dropzoo.models.graph.endings import Meaning, output_meanings


class Output(NamedTuple):
    """One output of a model.

    Attributes:
        name: Str. Its key or its name; empty if it is the only output.
        shape: The shape with the batch, with None where a size is not known.
        meaning: `"logits"`, `"softmax"` or `"sigmoid"`, or None if the graph does not show it.
    """

    name: str
    shape: tuple[int | None, ...]
    meaning: Meaning | None

    @property
    def classes(self) -> int:
        """The size of the last axis."""
        return self.shape[-1] or 0

    @property
    def words(self) -> str:
        """The output, for people."""
        return f"output {self.name!r}" if self.name else "the output"


class Outputs:
    """All outputs of a model, read off its graph, or off a call on a few examples.

    Args:
        model: A built model.
        examples: Function that returns inputs for the model, as tensors.

    Attributes:
        each: The list of `Output`, in the order of `keras.tree.flatten`.
        structure: The outputs as the model returns them.
    """

    def __init__(self, model: keras.Model, examples: Callable[[], Any]) -> None:
        self._model, self._examples, self._predicted = model, examples, None
        if not getattr(model, "outputs", None):
            self.predictions()  # the first call builds a model
        graph = recorded_graph(model) if getattr(model, "outputs", None) else None
        self.structure: Any = graph.output if graph is not None else self.predictions()
        flat = keras.tree.flatten(self.structure)
        meanings = output_meanings(model) if graph is not None else [None] * len(flat)
        names = self._names(len(flat))
        self.each = [
            Output(name, (None, *leaf.shape[1:]), meaning)
            for name, leaf, meaning in zip(names, flat, meanings, strict=True)
        ]

    def predictions(self) -> Any:
        """Returns the predictions of the model for the examples."""
        if self._predicted is None:
            self._predicted = self._model(self._examples())
        return self._predicted

    def meaning(self, index: int) -> Meaning | None:
        """Returns the meaning of an output, by the graph or else by its values; None if neither shows it.

        Values below 0 or above 1 are logits. Values that sum to 1 along the last axis are probabilities. Other
        values in [0, 1] may be either.
        """
        found = self.each[index]
        if found.meaning is not None:
            return found.meaning
        values = np.asarray(keras.tree.flatten(self.predictions())[index], "float32")
        if values.min() < 0 or values.max() > 1:
            return "logits"
        return "softmax" if found.classes > 1 and np.abs(values.sum(-1) - 1).max() < 1e-3 else None

    def targets(self, y: Any) -> list[Any]:
        """Returns the targets of each output, in the order of `each`; None for an output without targets.

        Args:
            y: Targets as the data give them: one, a sequence in the order of the outputs, or a dict by names.
        """
        if isinstance(y, Mapping) and len(self.each) > 1:
            return [y.get(output.name) for output in self.each]
        flat = [] if y is None else keras.tree.flatten(y)
        return flat if len(flat) == len(self.each) else [None] * len(self.each)

    def all_targets(self, y: Any) -> list[Any]:
        """Returns the targets of each output, or raises a ValueError if there is not one for each."""
        found = self.targets(y)
        missing = [output.name for output, target in zip(self.each, found, strict=True) if target is None]
        if missing:
            names = ", ".join(output.name for output in self.each).strip(", ")
            received = sorted(y) if isinstance(y, Mapping) else count_of(len(keras.tree.flatten(y)), "target")
            raise ValueError(
                f"The default loss needs a target for each of the {len(self.each)} outputs"
                f"{names and f' ({names})'}, in the order of the outputs, or in a dict by name. To train some "
                "outputs only, pass `loss`, or train "
                f"keras.Model(model.inputs, [these outputs]). Received: {received}"
            )
        return found

    def packed(self, things: Sequence[Any]) -> Any:
        """Returns one thing for each output in the structure in which `compile` takes them."""
        if len(self.each) == 1:
            return things[0]
        if isinstance(self.structure, dict):
            return {output.name: thing for output, thing in zip(self.each, things, strict=True)}
        return list(things)

    def _names(self, count: int) -> list[str]:
        if count == 1:
            return [""]
        if isinstance(self.structure, dict):
            return [str(key) for key in keras.tree.flatten({key: key for key in self.structure})]
        names = getattr(self._model, "output_names", None)
        return list(names) if names else [str(index) for index in range(count)]


def few(x: Any) -> Any:
    """Returns the first examples of a batch."""
    return tf.nest.map_structure(lambda tensor: tensor[:8], x)
