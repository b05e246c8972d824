"""A model's calls in the order in which they run, with the calls inside a nested model in place of its call.

A nested model that is called twice appears twice. Its symbolic tensors would stand for both calls, so tensors are
identified by numbers instead. Nothing is cloned; the layers themselves are called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from dropzoo.common.keras_internals import nodes_of, recorded_graph, standardize_inputs
from dropzoo.models.graph.walk import graph_of


@dataclass(frozen=True, eq=False)
class Step:
    """One call. The subclasses say how it runs.

    Attributes:
        operation: The layer or operation that is called, or None.
        reads: The numbers of the tensors that the call reads, in the order of its arguments.
        writes: The numbers of its outputs.
    """

    operation: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the weights that the step uses."""
        return [tuple(weight.shape) for weight in getattr(self.operation, "weights", ())]

    def outputs(self, values: dict[int, Any]) -> Any:
        """Returns the outputs; `values` has the tensors by number."""
        raise NotImplementedError

    def specs(self, values: dict[int, Any]) -> Any:
        """Returns the symbolic outputs; `values` has symbolic tensors by number."""
        raise NotImplementedError

    def run(self, values: dict[int, Any], symbolic: bool = False) -> None:
        """Runs the step and adds its outputs to `values`, the tensors by number."""
        made = self.specs(values) if symbolic else self.outputs(values)
        values.update(zip(self.writes, keras.tree.flatten(made), strict=True))


@dataclass(frozen=True, eq=False)
class RecordedStep(Step):
    """A layer or operation, called as it was when the model was built.

    Attributes:
        arguments: Keras' record of the arguments, or None for the outermost model.
        structure: The structure of the inputs of the outermost model, with any leaves.
        training: Bool, whether a layer runs in training mode.
    """

    arguments: Any = None
    structure: Any = None
    training: bool = False

    def filled(self, values: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with the tensors in their places."""
        if self.arguments is None:
            return (keras.tree.pack_sequence_as(self.structure, [values[number] for number in self.reads]),), {}
        symbols = map(id, self.arguments.keras_tensors)
        return self.arguments.fill_in({s: values[number] for s, number in zip(symbols, self.reads, strict=True)})

    def outputs(self, values: dict[int, Any]) -> Any:
        args, kwargs = self.filled(values)
        if isinstance(self.operation, keras.Layer):
            kwargs["training"] = self.training
        return self.operation(*args, **kwargs)

    def specs(self, values: dict[int, Any]) -> Any:
        args, kwargs = self.filled(values)
        return self.operation.compute_output_spec(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class EntryStep(RecordedStep):
    """The entry into a Functional model, which casts its inputs and adjusts their ranks before its first layers.

    Attributes:
        graph: The Functional model.
    """

    graph: Any = None

    def outputs(self, values: dict[int, Any]) -> Any:
        return standardize_inputs(self.graph, self.specs(values))

    def specs(self, values: dict[int, Any]) -> Any:
        args, kwargs = self.filled(values)
        return args[0] if args else kwargs["inputs"]


class Unrolled:
    """The steps of a model.

    Nested Functional and Sequential models are split into their steps; a layer or model with a `call` of its own
    is one step.

    Args:
        model: A Keras model.
        structure: The structure of the inputs, with symbolic tensors; `model.input` if the model has it.
        outputs: List of symbolic tensors, the model's outputs; `model.outputs` if the model has them.
        input_names: Names of the inputs, for a model whose inputs have no layers.

    Attributes:
        steps: The steps, in Keras' order.
        symbols: A symbolic tensor for each number; the first ones are the inputs.
        names: The name of the layer that makes each tensor, or of an input without a layer, by number.
        inputs: The numbers of the model's inputs.
        outputs: The numbers of the model's outputs.
    """

    def __init__(
        self, model: keras.Model, structure: Any, outputs: list[keras.KerasTensor], input_names: Sequence[str] = ()
    ) -> None:
        self.steps: list[Step] = []
        self.symbols: list[keras.KerasTensor] = keras.tree.flatten(structure)
        nodes = nodes_of(recorded_graph(model)) if recorded_graph(model) is not None else []
        layers = {id(tensor): node.operation.name for node in nodes if node.is_input for tensor in node.outputs}
        others = input_names or [each.name for each in self.symbols]
        self.names: list[str] = [layers.get(id(x), name) for x, name in zip(self.symbols, others, strict=True)]
        self.inputs = tuple(range(len(self.symbols)))
        self.outputs = self._add(model, None, self.inputs, outputs, structure)

    def new(self, symbols: list[keras.KerasTensor], name: str) -> tuple[int, ...]:
        """Gives numbers to the outputs of the layer called `name`, and returns the numbers."""
        first = len(self.symbols)
        self.symbols += symbols
        self.names += [name] * len(symbols)
        return tuple(range(first, len(self.symbols)))

    def _add(
        self,
        operation: Any,
        arguments: Any,
        reads: tuple[int, ...],
        outputs: list[keras.KerasTensor],
        structure: Any = None,
    ) -> tuple[int, ...]:
        """Appends a call, or the calls inside a model; returns the numbers of its outputs."""
        graph = graph_of(operation)
        if graph is None:
            writes = self.new(outputs, operation.name)
            self.steps.append(RecordedStep(operation, reads, writes, arguments, structure))
            return writes
        writes = self.new(graph.inputs, operation.name)
        if structure is not None:  # the entry into the whole model, whose inputs keep their names
            self.names[writes[0] :] = self.names[: len(writes)]
        self.steps.append(EntryStep(None, reads, writes, arguments, structure, graph=graph))
        numbers = dict(zip(map(id, graph.inputs), writes, strict=True))
        for node in nodes_of(graph):
            if not node.is_input and all(id(tensor) in numbers for tensor in node.input_tensors):
                read = tuple(numbers[id(tensor)] for tensor in node.input_tensors)
                made = self._add(node.operation, node.arguments, read, node.outputs)
                numbers.update(zip(map(id, node.outputs), made, strict=True))
        return tuple(numbers[id(tensor)] for tensor in graph.outputs)
