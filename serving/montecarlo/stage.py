"""A model made ready for sampling: it knows which layers drop and where the model is cut, and runs a sample."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers
from dropzoo.layers.draws import Draw
from dropzoo.models.graph.random import random_layers
from dropzoo.models.graph.unroll import Unrolled
from dropzoo.serving.montecarlo.active import TRACING, Sites, choose, redirectable, redirected, warn_of
from dropzoo.serving.montecarlo.cut import costs_or_none, fill_shapes
from dropzoo.serving.montecarlo.normalize import at_once
from dropzoo.serving.montecarlo.plain import seeded
from dropzoo.serving.montecarlo.probe import ROWS, codes_of, frozen_layers, out_of_order
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.states import States
from dropzoo.serving.montecarlo.trunk import Costs, Trunk


class Stage:
    """The steps of a model, cut into trunk and head after the dropout layers to sample were chosen.

    Args:
        reader: The model, with its inputs and outputs known.
        sites: Which sites drop, as for `MonteCarlo`.
        cache: Bool, whether layers that do not depend on active dropout are computed only once.

    Attributes:
        active: The dropout layers whose masks the sampler draws.
        trunk: The trunk and the head.
        states: The states of stateful layers, with which each sample has to begin.
    """

    def __init__(self, reader: Reader, sites: Sites, cache: bool) -> None:
        model = reader.model
        self._reader, self.states = reader, States(model)
        self._graph = Unrolled(model, reader.inputs.structure, reader.symbols, reader.inputs.names)
        self._found = redirectable(model)
        with TRACING:
            self._codes = codes_of(model, self._graph, self._found)
            if looped := {key for code in self._codes for key in code.looped}:
                self._found = [layer for layer in self._found if id(layer) not in looped]
                self._codes = codes_of(model, self._graph, self._found)
        self.active, self._on, self._off = choose(model, self._found, self._codes, sites)
        on_layers = {id(each.layer) for each in self.active}
        self._trained: list[Any] = []  # the operations that run in training mode
        drawing = []
        for code in self._codes:
            holds = any(id(layer) in on_layers for layer in flatten_layers(code.step.operation))
            step = code.step
            if code.training and (code in self._on or holds):
                step = replace(code.step, training=True)
                self._graph.steps[self._graph.steps.index(code.step)] = step
                self._trained.append(step.operation)
            if code.always or (step.training and code.draws):
                drawing.append(step)
        self._graph.steps = at_once(self._graph)
        self._frozen = self._held_back(on_layers)
        self._draws = bool(drawing)
        self.trunk = Trunk(self._graph, [each.layer for each in self.active], drawing, cache)
        loose = self._loose_layers()
        self._loose_streams = {each.stream for each in self.active if id(each.layer) in loose}
        self._loose_names = (
            [each.path for each in random_layers(model) if id(each.layer) in loose] if loose else []
        )

    @property
    def plain(self) -> tuple[tuple[str, str], ...]:
        """The layers that are sampled by plain passes, as pairs of a name and a reason."""
        drawn = [(name, code.why) for code in self._on for name in code.names]
        return *drawn, *((name, "its rows do not match the images one by one") for name in self._loose_names)

    @property
    def keeps_nothing(self) -> bool:
        """Whether a call changes no variable, not even for a while, so that calls may run side by side."""
        return not (self.plain or self._trained or self.states.variables)

    def warn(self, sampling: str) -> None:
        """Warns of draws that cannot be repeated, turned off or fixed."""
        warn_of(self._codes, self._on, [name for name, _ in self.plain] if sampling == "fixed" else [])

    def rows_of(self, stream: str, rows: tf.Tensor) -> tf.Tensor:
        """Returns the keys of the rows that a layer sees: those of the images, or a single key for all rows.

        Args:
            stream: The name of the layer's stream.
            rows: uint32 tensor `(batch,)`, the keys of the images.
        """
        return tf.zeros([1], tf.uint32) if stream in self._loose_streams else rows

    def run_head(
        self,
        frontier: Sequence[tf.Tensor],
        source: Callable[[str], Draw],
        seed: tf.Tensor,
        group: int | tf.Tensor,
        sample: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Returns the model's outputs in one sample, or in several that are folded into the batch.

        Args:
            frontier: The tensors of the trunk.
            source: Function from the name of a stream to its random draws.
            seed: Int scalar, the sampler's seed.
            group: Int scalar, the number of the group of samples.
            sample: Int tensor, the number of the sample; a scalar if a layer is sampled by plain passes.
        """
        with redirected(self.active, source, self._frozen):
            with seeded(seed, group, sample) if self._draws else contextlib.nullcontext():
                return self.trunk.run_head(frontier)

    @contextlib.contextmanager
    def unchanged(self, seed: int) -> Iterator[None]:
        """Restores, after the block, the variables that code in training mode may change, such as moving averages.

        TensorFlow generators that a layer holds start from the seed.
        """
        inside = [layer for operation in self._trained for layer in flatten_layers(operation)]
        held = [value for layer in inside for value in vars(layer).values()]
        generators = [value for value in held if isinstance(value, tf.random.Generator)]
        variables = {id(v): v for operation in self._trained for v in operation.non_trainable_variables}
        before = [(variable, variable.numpy()) for variable in variables.values()]
        states = [(generator, generator.state.numpy()) for generator in generators]
        for generator in generators:
            generator.reset_from_seed(seed)
        try:
            yield
        finally:
            for variable, value in before:
                if (variable.numpy() != value).any():
                    variable.assign(value)
            for generator, state in states:
                generator.state.assign(state)

    @cached_property
    def costs(self) -> tuple[list[tuple[int, ...]], Costs | None]:
        """The shape of a row of each input, and the cost of such a row, or None if that cannot be computed."""
        shapes = fill_shapes(self._reader.inputs)
        return shapes, costs_or_none(self.trunk, shapes)

    @cached_property
    def why_not_folded(self) -> str | None:
        """Why several samples cannot be computed as one larger batch, or None if they can."""
        if self._draws:
            names = self._on_names()
            return f"Samples are computed one at a time, since {names} is sampled by plain passes in training mode"
        if not self.trunk.foldable:
            return "The model mixes the images of a batch"
        if self._loose_streams:
            return "Dropout acts on rows that do not match the images one by one"
        return None

    def _on_names(self) -> str:
        return ", ".join(name for name, _ in self.plain) or "the model"

    def _loose_layers(self) -> set[int]:
        """The ids of the active layers whose rows are not those of the images in order.

        Only operations and unknown code can move rows; the layers of Keras keep them in place.
        """
        moves = any(_may_move_rows(step.operation) for step in self._graph.steps)
        if moves:
            costs = self.costs[1]
            moves = costs is None or not costs.keeps_rows
        if not moves and not any(code.rows - {ROWS} for code in self._codes):
            return set()
        with TRACING, tf.init_scope():
            three = self._reader.inputs.example(3)
            batches = [[tf.gather(x, [i, 2]) for x in three] for i in (0, 1)]
            return out_of_order(self._graph, [each.layer for each in self.active], self._frozen, batches)

    def _held_back(self, on_layers: set[int]) -> list[keras.Layer]:
        """The layers that stay in inference mode inside of steps that run in training mode, without repeats."""
        held: dict[int, keras.Layer] = {}
        on = on_layers.union(*(code.held for code in self._codes)) - self._off
        for operation in self._trained:
            inside = {id(layer) for layer in flatten_layers(operation)}
            off = [layer for layer in self._found if id(layer) in inside and id(layer) not in on_layers]
            loose = [layer for layer in flatten_layers(operation) if id(layer) in self._off]
            off += [layer for layer in loose if on.isdisjoint(map(id, flatten_layers(layer)))]
            held |= {id(layer): layer for layer in [*frozen_layers(operation), *off]}
        return list(held.values())


def _may_move_rows(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Concatenate):
        return operation.axis == 0
    return operation is not None and not isinstance(operation, keras.Layer)
