"""A model's graph cut in two: the trunk, which no active dropout reaches, and the head, which follows one.

The trunk gives the same answer in every sample, so it is computed once. Where the two meet is the frontier: all
tensors of the trunk that the head reads, in a U-Net the skips too. Nothing is cloned: the walk over the nodes is
Keras' own, in Keras' order, and it is the layers themselves that are called.
"""

import itertools
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo.serving.montecarlo.split import Half, splits


@dataclass(frozen=True)
class Step:
    """One call in the graph. Tensors are numbered, since a nested model may be called twice."""

    operation: Any
    arguments: Any  # Keras' record of how it was called
    reads: dict[int, int]  # the number of each symbolic tensor among the arguments, by its id
    writes: tuple[int, ...]

    def fill_in(self, values: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.arguments.fill_in({symbol: values[number] for symbol, number in self.reads.items()})

    def run(self, values: dict[int, Any]) -> None:
        args, kwargs = self.fill_in(values)
        if "training" in getattr(self.operation, "_call_context_args", ()):
            kwargs["training"] = False
        outputs = keras.tree.flatten(self.operation(*args, **kwargs))
        values.update(zip(self.writes, outputs, strict=True))


@dataclass(frozen=True)
class Costs:
    """Of one image: multiplications of trunk and head, and the bytes that the head holds at its peak."""

    trunk_macs: int
    head_macs: int
    head_bytes: int


class Trunk:
    """The cut before the active layers.

    Nested Functional and Sequential models are entered. A layer or model with a `call` of its own that holds an
    active layer is one step of the head (`opaque` names them). A convolution of a concatenation that the cut goes
    through is cut itself (`split` names them).

    Args:
        model: A built Functional or Sequential model of one input and one output.
        active: The layers that drop.
        cache: Bool; without, the trunk is empty and the frontier is the images.
    """

    def __init__(self, model: keras.Model, active: Collection[keras.Layer], cache: bool = True) -> None:
        self._active = {id(layer) for layer in active}
        self._symbols: list[Any] = [model.inputs[0]]  # by number; 0 is the images
        self._names: list[str] = [model.inputs[0].name]
        self._steps: list[Step] = []
        call = _Tensors([model.inputs[0]])
        (self._output,) = self._add(model, call, {id(model.inputs[0]): 0}, model.outputs)

        stochastic: set[int] = set()
        for step in self._steps:
            if not cache or self._holds_active(step.operation) or not stochastic.isdisjoint(step.reads.values()):
                stochastic.update(step.writes)
        self.split: tuple[str, ...] = ()
        if cache:
            self._split(stochastic)
        self.head = [step for step in self._steps if not stochastic.isdisjoint(step.writes)]
        self.trunk = [step for step in self._steps if stochastic.isdisjoint(step.writes)]
        wanted = {self._output}.union(*(step.reads.values() for step in self.head))
        self.frontier = sorted(wanted - stochastic)
        # Keras knows the batch as an unknown first axis. What has none cannot hold several samples.
        several = [self._symbols[number].shape for number in {*self.frontier, *stochastic}]
        self.foldable = all(len(shape) > 0 and shape[0] is None for shape in several)

    def run_trunk(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The frontier's tensors."""
        values: dict[int, Any] = {0: images}
        for step in self.trunk:
            step.run(values)
        return [values[number] for number in self.frontier]

    def run_head(self, frontier: list[tf.Tensor]) -> tf.Tensor:
        """The model's output."""
        values = dict(zip(self.frontier, frontier, strict=True))
        for step in self.head:
            step.run(values)
        return values[self._output]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers whose outputs are the frontier."""
        return tuple(dict.fromkeys(self._names[number] for number in self.frontier))

    @property
    def opaque(self) -> tuple[str, ...]:
        """Layers and models with an active layer inside that could not be cut within."""
        steps = [step.operation for step in self.head if self._holds_active(step.operation)]
        return tuple(dict.fromkeys(op.name for op in steps if id(op) not in self._active))

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """What an image of this shape costs, from the shapes of all tensors and weights."""
        shapes: dict[int, Any] = {0: keras.KerasTensor((1, *image_shape), dtype=self._symbols[0].dtype)}
        macs = {}
        for step in self._steps:
            args, kwargs = step.fill_in(shapes)
            outputs = keras.tree.flatten(step.operation.compute_output_spec(*args, **kwargs))
            shapes.update(zip(step.writes, outputs, strict=True))
            inputs = [shapes[number] for number in step.reads.values()]
            macs[id(step)] = _macs(step.operation, inputs, outputs)
        head = sum(macs[id(step)] for step in self.head)
        return Costs(sum(macs.values()) - head, head, self._peak({n: _bytes(x) for n, x in shapes.items()}))

    def _peak(self, size: dict[int, int]) -> int:
        """The bytes of the head when it holds most: tensors live from their step to the last that reads them."""
        last = {number: i for i, step in enumerate(self.head) for number in step.reads.values()}
        live, peak = set(self.frontier), 0
        for i, step in enumerate(self.head):
            live.update(step.writes)
            own = sum(size[number] for number in step.writes)  # again for what a step needs while it runs
            peak = max(peak, sum(size[number] for number in live) + own)
            live -= {number for number in live if last.get(number, -1) <= i and number != self._output}
        return peak

    def _add(self, operation: Any, arguments: Any, scope: dict[int, int], symbols: list[Any]) -> list[int]:
        """Appends a call, or the calls inside a nested model; gives the numbers of its outputs."""
        reads = {symbol: number for symbol, number in scope.items() if symbol in _ids(arguments.keras_tensors)}
        graph = _graph(operation)
        if graph is None:
            return self._append(operation, arguments, reads, symbols, operation.name)
        name = operation.name if self._steps else self._names[0]  # the first is the model's own entry
        inputs = self._append(_Entry(graph), arguments, reads, graph.inputs, name)
        inside = {id(symbol): number for symbol, number in zip(graph.inputs, inputs, strict=True)}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if not node.is_input and all(id(symbol) in inside for symbol in node.input_tensors):
                    outputs = self._add(node.operation, node.arguments, inside, node.outputs)
                    inside.update(zip(map(id, node.outputs), outputs, strict=True))
        return [inside[id(symbol)] for symbol in graph.outputs]

    def _append(
        self, operation: Any, arguments: Any, reads: dict[int, int], symbols: list[Any], name: str
    ) -> list[int]:
        first = len(self._symbols)
        self._symbols += symbols
        self._names += [name] * len(symbols)
        writes = tuple(range(first, len(self._symbols)))
        self._steps.append(Step(operation, arguments, reads, writes))
        return list(writes)

    def _split(self, stochastic: set[int]) -> None:
        """Takes the sum over what is deterministic out of each convolution of both kinds."""
        writer = {number: step for step in self._steps for number in step.writes}
        readers = Counter(number for step in self._steps for number in step.reads.values())
        readers[self._output] += 1
        for step in [step for step in self._steps if len(step.reads) == 1]:
            join = writer.get(number := next(iter(step.reads.values())))
            shape = self._symbols[number].shape
            if join is None or readers[number] > 1 or not splits(join.operation, step.operation, shape):
                continue
            joined = [join.reads[id(symbol)] for symbol in join.arguments.keras_tensors]
            ends = list(itertools.accumulate(self._symbols[n].shape[-1] for n in joined))
            parts = list(zip(joined, zip([0, *ends], ends, strict=False), strict=True))
            fixed, drawn = ([p for p in parts if (p[0] in stochastic) is kind] for kind in (False, True))
            if not fixed or not drawn:
                continue
            self._symbols.append(self._symbols[step.writes[0]])
            self._names.append(step.operation.name)
            half = len(self._symbols) - 1
            first = self._half(step, fixed, None, (half,))
            second = self._half(step, drawn, half, step.writes)
            self._steps[self._steps.index(join)] = first
            self._steps[self._steps.index(step)] = second
            stochastic.difference_update(join.writes)
            self.split += (step.operation.name,)

    def _half(self, step: Step, parts: list[Any], other: int | None, writes: tuple[int, ...]) -> Step:
        numbers = [number for number, _ in parts] + ([] if other is None else [other])
        symbols = [keras.KerasTensor(self._symbols[n].shape, self._symbols[n].dtype) for n in numbers]
        half = Half(step.operation, [part for _, part in parts], other is not None)
        return Step(half, _Tensors(symbols), dict(zip(map(id, symbols), numbers, strict=True)), writes)

    def _holds_active(self, operation: Any) -> bool:
        if id(operation) in self._active:
            return True
        return isinstance(operation, keras.Layer) and any(
            id(layer) in self._active for layer in operation._flatten_layers(include_self=False)
        )


class _Tensors:
    """The arguments of a call with tensors alone, as Keras records them."""

    def __init__(self, symbols: list[Any]) -> None:
        self.keras_tensors = symbols

    def fill_in(self, values: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(values[id(symbol)] for symbol in self.keras_tensors), {}


class _Entry:
    """What a Functional model does to its inputs before its first layer: their dtype and rank."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        return self._graph._standardize_inputs(inputs)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        return inputs


def _graph(operation: Any) -> Any:
    """The Functional graph that a model's call runs through, or None where its call is something else."""
    graph = getattr(operation, "_functional", operation)
    if not hasattr(graph, "_nodes_by_depth") or "call" in vars(operation):
        return None
    methods = (getattr(type(operation), name) for name in ("call", "__call__"))
    return graph if all(method.__module__.startswith("keras.") for method in methods) else None


def _ids(symbols: list[Any]) -> set[int]:
    return {id(symbol) for symbol in symbols}


def _macs(operation: Any, inputs: list[Any], outputs: list[Any]) -> int:
    """Each weight of a kernel is used once at each place of the output; of the input, where that is spread out."""
    kernels = sum(math.prod(w.shape) for w in getattr(operation, "weights", ()) if len(w.shape) > 1)
    if not kernels:
        return 0
    shape = (inputs if "Transpose" in type(operation).__name__ else outputs)[0].shape
    first = getattr(operation, "data_format", None) == "channels_first"
    return kernels * math.prod(shape[2:] if first else shape[1:-1])


def _bytes(symbol: Any) -> int:
    return math.prod(symbol.shape) * tf.as_dtype(symbol.dtype).size
