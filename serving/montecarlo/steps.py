"""The work of a sampler in three steps, for runtimes whose files hold the loop over the samples themselves."""

from collections.abc import Sequence

import tensorflow as tf

from dropzoo.common.keras_internals import mask_of, put_mask
from dropzoo.serving.montecarlo.calibrated import answered, tempered
from dropzoo.serving.montecarlo.folding import tile, unfold
from dropzoo.serving.montecarlo.inputs import keys_of
from dropzoo.serving.montecarlo.outputs import Output, joined
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.statistics import Moments, Sums

_BATCH = 32  # a file takes batches of any size, and folds the same number of samples for all of them


class Steps:
    """The computations of a sampler before, in and after its loop over the samples, with the same masks.

    Args:
        sampler: The sampler, with a fixed number of samples.
        small: Bool, whether the runtime has no float64, and `add` computes one sample at a time, as on phones.

    Attributes:
        at_once: Int, how many samples `add` computes at a time; it divides the number of samples.
        turns: Int, how often `add` has to be called.

    Raises:
        ValueError: If a layer is sampled by plain passes, or keeps a state from batch to batch.
    """

    def __init__(self, sampler: MonteCarlo, small: bool = False) -> None:
        self._sampler, self._stage, self._small = sampler, sampler.stage, small
        _check(sampler)
        self.at_once = 1 if small else self._samples_at_once()
        self._masked: list[int] = []

    @property
    def turns(self) -> int:
        """How often `add` has to be called."""
        return self._sampler.max_samples // self.at_once

    def start(self, flat: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns what all samples share: a key for each image, the tensors of the trunk, and their Keras masks.

        Args:
            flat: The inputs of the model, in order.
        """
        fixed = self._sampler.sampling == "fixed"
        rows = tf.zeros([tf.shape(flat[0])[0]], tf.uint32) if fixed else keys_of(flat)
        frontier = self._stage.trunk.run_trunk(flat)
        masks = [mask_of(x) for x in frontier]
        self._masked = [i for i, mask in enumerate(masks) if mask is not None]
        return [rows, *frontier, *(mask for mask in masks if mask is not None)]

    def zeros(self) -> list[tf.Tensor]:
        """Returns the sums of no samples, for each output two or three; they broadcast."""
        return [x for output in self._sampler.reader.outputs for x in self._kind_of(output).zero(output)]

    def add(self, turn: tf.Tensor, sums: Sequence[tf.Tensor], shared: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the sums after the samples of one turn.

        Args:
            turn: Int32 scalar in [0, turns).
            sums: The sums before.
            shared: The tensors that `start` returns.
        """
        sampler, stage, count = self._sampler, self._stage, self.at_once
        rows, *frontier = shared
        frontier = self._with_masks(frontier)
        batch, first = tf.shape(rows)[0], turn * count
        if count > 1:
            numbers = tf.tile((first + tf.range(count))[:, None], tf.stack([1, batch]))
            first = tf.reshape(numbers, [-1, 1])  # (samples * batch, 1)
            signed = tf.tile(tf.bitcast(rows, tf.int32), [count])  # few runtimes tile unsigned integers
            rows, frontier = tf.bitcast(signed, tf.uint32), [tile(x, tf.constant(count)) for x in frontier]
        raw = stage.run_head(
            frontier, lambda stream: sampler.draw(stream, stage.rows_of(stream, rows), first), 0, 0, first
        )
        outputs = sampler.reader.outputs
        found = [unfold(p, count, batch) for p in tempered(sampler.reader.read(raw), sampler.calibration)]
        added = zip(self._grouped(sums), found, outputs, strict=True)
        return [
            x
            for each, p, output in added
            for x in (each.add(p[0], turn) if isinstance(each, Moments) else each.add(p, output.kind))
        ]

    def finish(self, sums: Sequence[tf.Tensor]) -> dict:
        """Returns the statistics of the samples, as `MonteCarlo` does, from the sums after all turns.

        Args:
            sums: The sums.
        """
        sampler, outputs = self._sampler, self._sampler.reader.outputs
        each = zip(self._grouped(sums), outputs, strict=True)
        found = [one.statistics(sampler.max_samples, output) for one, output in each]
        return answered(joined(found, sampler.reader.names), sampler.calibration)

    def _with_masks(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the tensors of the trunk with the masks that follow them."""
        frontier = tensors[: len(tensors) - len(self._masked)]
        for i, mask in zip(self._masked, tensors[len(frontier) :], strict=True):
            frontier[i] = tf.identity(frontier[i])
            put_mask(frontier[i], mask)
        return frontier

    def _kind_of(self, output: Output) -> type[Sums] | type[Moments]:
        return Moments if self._small and output.kind == "regression" else Sums

    def _grouped(self, sums: Sequence[tf.Tensor]) -> list[Sums | Moments]:
        """The sums of each output."""
        rest, found = list(sums), list[Sums | Moments]()
        for kind in map(self._kind_of, self._sampler.reader.outputs):
            count = len(kind._fields)
            found.append(kind(*rest[:count]))
            del rest[:count]
        return found

    def _samples_at_once(self) -> int:
        """The most samples that fit in the memory budget for a usual batch and divide the number of samples."""
        sampler, stage = self._sampler, self._stage
        costs = None if stage.why_not_folded else stage.costs[1]
        if costs is None or not all(_is_known(shape) for shape in sampler.reader.inputs.shapes):
            return 1
        fits = max(sampler.memory_budget // max(_BATCH * costs.head_bytes, 1), 1)
        count = sampler.max_samples
        return max(n for n in range(1, count + 1) if n <= fits and count % n == 0)


def _is_known(shape: Sequence[int | None]) -> bool:
    return None not in shape[1:]


def _check(sampler: MonteCarlo) -> None:
    """Raises a ValueError if only TensorFlow can draw the masks or keep the states of the model."""
    if sampler.plain_passes:
        raise ValueError(
            f"Only a SavedModel can sample {sampler.plain_passes}. Use a dropout layer of dropzoo.layers "
            f"instead, pass "
            "num_samples=0 for the deterministic answer, or format='saved_model'"
        )
    if sampler.stage.states.variables:
        raise ValueError(
            "The model has stateful layers, which only a SavedModel supports. "
            "Pass num_samples=0 for the deterministic answer, or format='saved_model'"
        )
