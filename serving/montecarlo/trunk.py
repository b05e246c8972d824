"""A model's graph, cut in two: the trunk, which no active dropout reaches, and the head, which is the rest.

The trunk gives the same answer in every sample, so it is computed once. The frontier is where the two meet: all
tensors of the trunk that the head reads. In a U-Net these include the skips.
"""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.graph.unroll import Step, Unrolled
from dropzoo.serving.montecarlo.split import Half, splits


@dataclass(frozen=True)
class Costs:
    """The cost of one row.

    Attributes:
        trunk_macs: Int, multiplications in the trunk.
        head_macs: Int, multiplications in the head.
        head_bytes: Int, the bytes that the head holds at its peak.
        keeps_rows: Bool, whether active layers that are steps of their own see one row for each row of the inputs.
    """

    trunk_macs: int
    head_macs: int
    head_bytes: int
    keeps_rows: bool


class Trunk:
    """Cuts a model's graph before its active layers.

    A layer or model with a `call` of its own that holds an active layer is one step of the head; `opaque` lists
    their names. A convolution or dense layer that reads a concatenation through which the cut goes is split;
    `split` lists the names of these layers.

    Args:
        graph: The steps of the model. They are changed where a layer is split.
        active: The layers that drop while sampling.
        drawing: The steps that draw random numbers by themselves; see `probe`.
        cache: Bool. If False, the trunk is empty and the frontier is the inputs.
    """

    def __init__(
        self,
        graph: Unrolled,
        active: Collection[keras.Layer],
        drawing: Collection[Step] = (),
        cache: bool = True,
    ) -> None:
        self._active = {id(layer) for layer in active}
        self._graph, self._drawing = graph, {id(step) for step in drawing}
        stochastic: set[int] = set()
        for step in graph.steps:
            if not cache or self._draws(step) or not stochastic.isdisjoint(step.reads):
                stochastic.update(step.writes)
        self.split: tuple[str, ...] = ()
        if cache:
            self._split(stochastic)
        self.head = [step for step in graph.steps if not stochastic.isdisjoint(step.writes)]
        self.trunk = [step for step in graph.steps if stochastic.isdisjoint(step.writes)]
        wanted = set(graph.outputs).union(*(step.reads for step in self.head))
        self.frontier = sorted(wanted - stochastic)
        # In Keras the batch is a first axis of unknown length. A tensor without it cannot hold several samples.
        several = [graph.symbols[number].shape for number in {*self.frontier, *stochastic}]
        self.foldable = not self._drawing and all(len(shape) > 0 and shape[0] is None for shape in several)

    def run_trunk(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the frontier's tensors."""
        values: dict[int, Any] = dict(zip(self._graph.inputs, inputs, strict=True))
        for step in self.trunk:
            step.run(values)
        return [values[number] for number in self.frontier]

    def run_head(self, frontier: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the model's outputs, given the frontier's tensors."""
        values = dict(zip(self.frontier, frontier, strict=True))
        for step in self.head:
            step.run(values)
        return [values[number] for number in self._graph.outputs]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers whose outputs are the frontier."""
        return tuple(dict.fromkeys(self._graph.names[number] for number in self.frontier))

    @property
    def opaque(self) -> tuple[str, ...]:
        """The names of the layers and models that hold an active layer and cannot be cut inside."""
        steps = [
            step for step in self.head if self._holds_active(step.operation) and id(step) not in self._drawing
        ]
        return tuple(dict.fromkeys(s.operation.name for s in steps if id(s.operation) not in self._active))

    def costs(self, shapes: Sequence[tuple[int, ...]]) -> Costs:
        """Returns the cost of a row, computed from the shapes of all tensors and weights.

        Args:
            shapes: The shape of each input without the batch, all known: `(height, width, channels)` for an image.
        """
        symbols = zip(self._graph.inputs, shapes, strict=True)
        specs: dict[int, Any] = {
            n: keras.KerasTensor((1, *shape), dtype=self._graph.symbols[n].dtype) for n, shape in symbols
        }
        macs = {}
        for step in self._graph.steps:
            step.run(specs, symbolic=True)
            macs[step] = _macs(step, specs)
        head = sum(macs[step] for step in self.head)
        seen = [specs[step.reads[0]] for step in self.head if id(step.operation) in self._active]
        keeps_rows = all(x.shape[0] == 1 for x in seen)
        return Costs(
            sum(macs.values()) - head, head, self._peak({n: _bytes(x) for n, x in specs.items()}), keeps_rows
        )

    def _peak(self, size: dict[int, int]) -> int:
        """The most bytes that the head holds. A tensor lives from its step to the last step that reads it."""
        last = {number: i for i, step in enumerate(self.head) for number in step.reads}
        live, peak = set(self.frontier), 0
        for i, step in enumerate(self.head):
            live.update(step.writes)
            own = sum(size[number] for number in step.writes)  # counted twice: a step needs memory while it runs
            peak = max(peak, sum(size[number] for number in live) + own)
            live -= {number for number in live if last.get(number, -1) <= i and number not in self._graph.outputs}
        return peak

    def _split(self, stochastic: set[int]) -> None:
        """Splits each layer that reads a concatenation of both kinds: one half for the trunk, one for the head."""
        graph = self._graph
        writer = {number: step for step in graph.steps for number in step.writes}
        readers = Counter(number for step in graph.steps for number in set(step.reads))
        readers.update(graph.outputs)
        for step in [step for step in graph.steps if step.operation is not None and len(set(step.reads)) == 1]:
            join, shape = writer.get(number := step.reads[0]), graph.symbols[number].shape
            if join is None or readers[number] > 1 or not splits(join.operation, step.operation, shape):
                continue
            ends = list(itertools.accumulate(graph.symbols[n].shape[-1] for n in join.reads))
            parts = list(zip(join.reads, zip([0, *ends], ends, strict=False), strict=True))
            # A U-Net's block: the skip's channels are the same in every sample, the others are not.
            fixed, drawn = ([part for part in parts if (part[0] in stochastic) is kind] for kind in (False, True))
            if not fixed or not drawn:
                continue
            (half,) = graph.new([graph.symbols[step.writes[0]]], step.operation.name)
            graph.steps[graph.steps.index(join)] = Half.of(step.operation, fixed, None, (half,))
            graph.steps[graph.steps.index(step)] = Half.of(step.operation, drawn, half, step.writes)
            stochastic.difference_update(join.writes)
            self.split += (step.operation.name,)

    def _draws(self, step: Step) -> bool:
        return id(step) in self._drawing or self._holds_active(step.operation)

    def _holds_active(self, operation: Any) -> bool:
        if id(operation) in self._active:
            return True
        inside = flatten_layers(operation, include_self=False) if isinstance(operation, keras.Layer) else []
        return any(id(layer) in self._active for layer in inside)


def _macs(step: Step, specs: dict[int, Any]) -> int:
    """The number of multiplications. Each weight of a kernel is used once at each place of the output.

    A transposed convolution uses each weight once at each place of its input instead.
    """
    kernels = sum(math.prod(shape) for shape in step.weight_shapes if len(shape) > 1)
    if not kernels:
        return 0
    counted = step.reads if "Transpose" in type(step.operation).__name__ else step.writes
    shape = specs[counted[0]].shape
    first = getattr(step.operation, "data_format", None) == "channels_first"
    return kernels * math.prod(shape[2:] if first else shape[1:-1])


def _bytes(symbol: Any) -> int:
    return math.prod(symbol.shape) * tf.as_dtype(symbol.dtype).size
