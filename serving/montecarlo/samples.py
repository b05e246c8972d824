"""The samples of one batch in a graph: drawn in groups, several at a time, and summed to statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from dropzoo.layers.draws import Draw
from dropzoo.layers.draws.samples import SampleDraw, SharedMaskError
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.calibrated import answered, tempered
from dropzoo.serving.montecarlo.folding import tile, unfold
from dropzoo.serving.montecarlo.inputs import keys_of
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.stage import Stage
from dropzoo.serving.montecarlo.statistics import Sums, sum_samples, sum_until

#: The sums of each output, the number of samples, and further answers of each output by name.
Summed = tuple[list[Sums], int | tf.Tensor, list[dict[str, tf.Tensor]]]

_GROUP = 8  # with num_samples="auto", samples are balanced within groups of this size, and compared group by group


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which samples are wanted, and how many are computed at a time; see the arguments of `MonteCarlo`.

    Attributes:
        count: Int, the number of samples; with `auto` the largest number.
        auto: Bool, whether each image takes as many samples as it needs.
        sampling: `"balanced"`, `"independent"` or `"fixed"`.
        tolerances: List of floats, for `auto`, the standard error at which each output has enough samples.
        keep: Bool, whether to return the samples too.
        fold: Int, how many samples are computed at a time, or `"auto"`.
        memory_budget: Int, bytes of activations that `fold="auto"` may use.
    """

    count: int
    auto: bool
    sampling: str
    tolerances: list[float]
    keep: bool
    fold: int | str
    memory_budget: int


class SampleGraph:
    """Draws and sums the samples of a batch, for use inside a graph.

    Args:
        reader: The inputs and outputs of the model.
        stage: The model made ready for sampling.
        wanted: Which samples are wanted.
        calibration: The calibration that the answers follow, or None.

    Attributes:
        reader, stage, wanted, calibration: The arguments.
    """

    def __init__(self, reader: Reader, stage: Stage, wanted: Wanted, calibration: Calibration | None) -> None:
        self.reader, self.stage, self.wanted, self.calibration = reader, stage, wanted, calibration
        self._group_size = min(_GROUP, wanted.count) if wanted.auto else wanted.count
        self._balanced = wanted.sampling == "balanced"

    def statistics(self, flat: list[tf.Tensor], seed: tf.Tensor, plain: bool = False) -> Any:
        """Returns the same as a call of `MonteCarlo`.

        Args:
            flat: The inputs of the model, in order.
            seed: Int64 scalar tensor, in [0, 2**32).
            plain: Bool, whether to use only operations that run without XLA. It has nothing to do with plain
                passes.

        Raises:
            ValueError: If a dropout layer draws one mask for the whole batch, and `fold` is an int above 1.
        """
        sums, count, more = self.sums(flat, seed, plain)
        pairs = zip(sums, self.reader.outputs, more, strict=True)
        found = [each.statistics(count, output) | others for each, output, others in pairs]
        return answered(joined(found, self.reader.names), self.calibration)

    def sums(self, flat: list[tf.Tensor], seed: tf.Tensor, plain: bool = False) -> Summed:
        """Returns the sums of the samples, from which the statistics follow.

        Args:
            flat: The inputs of the model, in order.
            seed: Int64 scalar tensor, in [0, 2**32).
            plain: As for `statistics`.

        Returns:
            The sums of each output; the number of samples, an int or an int32 tensor `(batch,)`; and further
            answers of each output by name, such as `samples`.

        Raises:
            ValueError: As `statistics` does.
        """
        try:
            return self._sample(flat, seed, plain, self.at_once(flat))
        except SharedMaskError:
            if self.wanted.fold != "auto":
                raise ValueError(
                    "A dropout layer draws one mask for the whole batch, so several samples in one batch would "
                    f"have the same mask; pass fold=1. Received: fold={self.wanted.fold!r}"
                ) from None
            return self._sample(flat, seed, plain, 1)

    def _sample(self, flat: list[tf.Tensor], seed: tf.Tensor, plain: bool, at_once: int | tf.Tensor) -> Summed:
        batch, outputs, stage, wanted = tf.shape(flat[0])[0], self.reader.outputs, self.stage, self.wanted
        rows = tf.zeros([batch], tf.uint32) if wanted.sampling == "fixed" else keys_of(flat, plain)
        states = stage.states.read()
        frontier = stage.trunk.run_trunk(flat)

        def samples(group: int | tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> list[tf.Tensor]:
            """Probabilities of the samples of a group from `start` to `stop`, (samples, batch, ..., classes)."""
            if isinstance(at_once, int) and at_once == 1:
                count, keys, inputs, t = 1, rows, frontier, start
            else:
                count = stop - start
                keys, inputs = tf.tile(rows, [count]), [tile(x, count) for x in frontier]
                t = tf.repeat(tf.range(start, stop), batch)[:, None]  # (samples * batch, 1)
            if not self._balanced:  # one sequence over all groups
                t, group = t + group * self._group_size, 0
            stage.states.write(states)
            raw = stage.run_head(
                inputs,
                lambda stream: self.draw(stream, seed, stage.rows_of(stream, keys), t, plain, group),
                seed,
                group,
                t,
            )
            return [unfold(p, count, batch) for p in tempered(self.reader.read(raw), self.calibration)]

        def sums_of(group: int | tf.Tensor) -> tuple[list[Sums], list[tf.Tensor]]:
            return sum_samples(partial(samples, group), self._group_size, at_once, outputs, wanted.keep)

        more: list[dict[str, tf.Tensor]] = [{} for _ in outputs]
        count: int | tf.Tensor = self._group_size
        if wanted.auto:
            groups = wanted.count // self._group_size
            sums, count = sum_until(
                lambda g: sums_of(g)[0],
                self._group_size,
                groups,
                wanted.tolerances,
                batch,
                outputs,
                self._balanced,
            )
            more = [{"num_samples": count} for _ in outputs]
        else:
            sums, kept = sums_of(0)
            for each, drawn in zip(more, kept, strict=False):  # (samples, batch, ..., classes)
                each["samples"] = tf.experimental.numpy.moveaxis(drawn, 0, 1)
        stage.states.write(states)
        return sums, count, more

    def at_once(self, flat: Sequence[tf.Tensor]) -> int | tf.Tensor:
        """Returns how many samples to compute at a time: an int, or a tensor if it depends on the images."""
        if isinstance(self.wanted.fold, int):
            return min(self.wanted.fold, self._group_size)
        if self._group_size == 1 or self.stage.why_not_folded:
            return 1
        shapes, costs = self.stage.costs
        if costs is None:
            return 1
        largest = max(range(len(flat)), key=lambda i: math.prod(shapes[i]))
        size = tf.size(flat[largest], tf.int64)
        each = size * max(costs.head_bytes, 1) // math.prod(shapes[largest])  # bytes in one sample
        fitting = tf.clip_by_value(self.wanted.memory_budget // tf.maximum(each, 1), 1, self._group_size)
        chunks = -(-self._group_size // fitting)  # rounded up, here and below
        return tf.cast(-(-self._group_size // chunks), tf.int32)  # so that all chunks have about the same size

    def draw(
        self,
        stream: str,
        seed: tf.Tensor,
        rows: tf.Tensor,
        t: tf.Tensor,
        plain: bool,
        group: int | tf.Tensor = 0,
    ) -> Draw:
        """Returns the draws of a stream in sample `t`, an int scalar, or `(rows, 1)` if each row has its own."""
        return SampleDraw(stream, seed, group, rows, t, self._group_size, self._balanced, plain)
