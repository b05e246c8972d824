"""The work of samplers in three steps, for runtimes whose files hold the loop over the samples themselves."""

from collections.abc import Sequence

import tensorflow as tf

from dropzoo.common.keras_internals import mask_of, put_mask
from dropzoo.serving.montecarlo.calibrated import answered, tempered
from dropzoo.serving.montecarlo.ensembles import Rival, samplers_behind
from dropzoo.serving.montecarlo.folding import tile, unfold
from dropzoo.serving.montecarlo.inputs import keys_of
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.statistics import Differences, Sums, added, sums_of

_BATCH = 32  # a file takes batches of any size, and folds the same number of samples for all of them


class Steps:
    """The computations of samplers before, in and after their loop over the samples, with the same masks.

    Args:
        predictor: A sampler with a fixed number of samples; or an ensemble whose members draw samples, each of
            them equally many in each turn of the loop.
        fold: Bool, whether `add` computes several samples of a model at a time.

    Attributes:
        at_once: Int, how many samples of a model `add` computes at a time; it divides their number.
        turns: Int, how often `add` has to be called.

    Raises:
        ValueError: If a layer is sampled by plain passes, or keeps a state from batch to batch.
    """

    def __init__(self, predictor: MonteCarlo | Rival, fold: bool = True) -> None:
        samplers = samplers_behind(predictor)
        for each in samplers:
            _check(each)
        self._samplers, self._calibration = samplers, predictor.calibration
        self._outputs, self._count = samplers[0].reader.outputs, samplers[0].max_samples
        self._shares = [_Share(each) for each in samplers]
        self.at_once = min(map(_samples_at_once, samplers)) if fold else 1

    @property
    def turns(self) -> int:
        """How often `add` has to be called."""
        return self._count // self.at_once

    def start(self, flat: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns what all samples share: a key for each image, and of each model what `_Share.start` returns.

        Args:
            flat: The inputs of the models, in order.
        """
        fixed = self._samplers[0].sampling == "fixed"
        rows = tf.zeros([tf.shape(flat[0])[0]], tf.uint32) if fixed else keys_of(flat)
        return [rows, *(x for each in self._shares for x in each.start(flat))]

    def zeros(self) -> list[tf.Tensor]:
        """Returns the sums of no samples, for each output three; they broadcast."""
        return [x for output in self._outputs for x in sums_of(output).zero(output)]

    def add(self, turn: tf.Tensor, sums: Sequence[tf.Tensor], shared: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the sums after the samples of one turn.

        Args:
            turn: Int32 scalar in [0, turns).
            sums: The sums before.
            shared: The tensors that `start` returns.
        """
        rows, *others = shared
        found = list(sums)
        for number, share in enumerate(self._shares):
            mine, others = others[: share.size], others[share.size :]
            samples = tempered(share.samples(turn, self.at_once, rows, mine), self._calibration)
            before = turn * len(self._shares) + number  # 0 for the very first samples
            found = self._added(found, samples, before)
        return found

    def _added(
        self, sums: Sequence[tf.Tensor], samples: Sequence[tf.Tensor], before: tf.Tensor
    ) -> list[tf.Tensor]:
        found = zip(self._grouped(sums), samples, self._outputs, strict=True)
        return [x for each, p, output in found for x in added(each, p, before, output)]

    def finish(self, sums: Sequence[tf.Tensor]) -> dict:
        """Returns the statistics of the samples, as `MonteCarlo` does, from the sums after all turns.

        Args:
            sums: The sums.
        """
        count = self._count * len(self._samplers)
        each = zip(self._grouped(sums), self._outputs, strict=True)
        found = [one.statistics(count, output) for one, output in each]
        return answered(joined(found, self._samplers[0].reader.names), self._calibration)

    def _grouped(self, sums: Sequence[tf.Tensor]) -> list[Sums | Differences]:
        return [sums_of(output)(*sums[3 * i : 3 * i + 3]) for i, output in enumerate(self._outputs)]


class _Share:
    """The part of one model in the steps.

    Args:
        sampler: The sampler of the model.

    Attributes:
        size: Int, the number of tensors that `start` returned.
    """

    def __init__(self, sampler: MonteCarlo) -> None:
        self._sampler, self._stage = sampler, sampler.stage
        self._masked: list[int] = []
        self.size = 0

    def start(self, flat: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns what the samples of the model share: the tensors of the trunk, and their Keras masks.

        Args:
            flat: The inputs of the model, in order.
        """
        frontier = self._stage.trunk.run_trunk(flat)
        masks = [mask_of(x) for x in frontier]
        self._masked = [i for i, mask in enumerate(masks) if mask is not None]
        shared = [*frontier, *(mask for mask in masks if mask is not None)]
        self.size = len(shared)
        return shared

    def samples(
        self, turn: tf.Tensor, count: int, rows: tf.Tensor, shared: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Returns the probabilities or values of the samples of one turn, `(samples, batch, ..., classes)`.

        Args:
            turn: Int32 scalar, the number of the turn.
            count: Int, how many samples to compute.
            rows: uint32 tensor `(batch,)`, the keys of the images.
            shared: The tensors that `start` returned.
        """
        sampler, stage = self._sampler, self._stage
        frontier = self._with_masks(list(shared))
        batch, first = tf.shape(rows)[0], turn * count
        if count > 1:
            numbers = tf.tile((first + tf.range(count))[:, None], tf.stack([1, batch]))
            first = tf.reshape(numbers, [-1, 1])  # (samples * batch, 1)
            signed = tf.tile(tf.bitcast(rows, tf.int32), [count])  # few runtimes tile unsigned integers
            rows, frontier = tf.bitcast(signed, tf.uint32), [tile(x, tf.constant(count)) for x in frontier]
        raw = stage.run_head(
            frontier, lambda stream: sampler.draw(stream, stage.rows_of(stream, rows), first), 0, 0, first
        )
        return [unfold(p, count, batch) for p in sampler.reader.read(raw)]

    def _with_masks(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the tensors of the trunk with the masks that follow them."""
        frontier = tensors[: len(tensors) - len(self._masked)]
        for i, mask in zip(self._masked, tensors[len(frontier) :], strict=True):
            frontier[i] = tf.identity(frontier[i])
            put_mask(frontier[i], mask)
        return frontier


def _samples_at_once(sampler: MonteCarlo) -> int:
    """The most samples that fit in the memory budget for a usual batch and divide the number of samples."""
    stage = sampler.stage
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
