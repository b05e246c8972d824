"""Monte-Carlo dropout over the members of an ensemble: the samples of all members enter the same statistics."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import check_count, check_seed
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.active import TRACING, NothingDraws
from dropzoo.serving.montecarlo.calibrated import answered
from dropzoo.serving.montecarlo.inputs import of_any_rows
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.reader import Said, Tasks
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.samples import SampleGraph
from dropzoo.serving.montecarlo.statistics import Sums

#: It is odd, so that the seeds of all members differ, and large, so that they are not those of the next seed.
_STEP = 2654435761


def seed_of_member(seed: int, number: int) -> int:
    """Returns the seed of a member's masks, an int in [0, 2**32): the first member has the seed of the ensemble.

    Args:
        seed: Int in [0, 2**32), the seed of the ensemble.
        number: Int, the number of the member, from 0.
    """
    return (seed + number * _STEP) % 2**32


def check_members_samples(num_samples: int, members: int) -> int:
    """Returns the number of samples of each member.

    Args:
        num_samples: Int, the number of samples of all members.
        members: Int, the number of members.

    Raises:
        ValueError: If `num_samples` is not a positive multiple of `members`.
    """
    each, more = divmod(check_count(num_samples, "num_samples"), members)
    if more:
        near = [n for n in (each * members, (each + 1) * members) if n]
        raise ValueError(
            f"`num_samples` must be a multiple of the number of members, which is {members}, so that all members "
            f"draw equally many samples: pass {' or '.join(map(str, near))}. Received: num_samples={num_samples}"
        )
    return each


def samplers_of(
    models: Sequence[keras.Model],
    tasks: Sequence[Tasks],
    from_logits: Said,
    num_samples: int,
    sampling: str,
    sites: dict[str, float | bool] | None,
    seed: int,
) -> list[MonteCarlo]:
    """Returns the sampler of each member, which draws its share of the samples.

    Args:
        models: The members.
        tasks: The output kinds of each member, as for `MonteCarlo`.
        from_logits: As for `MonteCarlo`.
        num_samples: Int, the number of samples of all members.
        sampling: As for `MonteCarlo`.
        sites: As for `MonteCarlo`.
        seed: Int in [0, 2**32), the seed of the ensemble.

    Raises:
        ValueError: If the arguments are bad, or a member has no dropout.
    """
    check_seed(seed)
    each = check_members_samples(num_samples, len(models))
    samplers = []
    for number, (model, task) in enumerate(zip(models, tasks, strict=True)):
        with _naming(number, model):
            own = seed_of_member(seed, number)
            samplers.append(MonteCarlo(model, each, sampling, sites, own, task=task, from_logits=from_logits))
    return samplers


class MemberSamples:
    """The statistics of the samples of several models, from running sums. All samples have the same weight.

    The members are computed one after another, so memory is that of one of them.

    Args:
        samplers: The sampler of each model. Its seed is read in each call.
        calibration: The calibration that the answers follow, or None.

    Attributes:
        count: Int, the number of samples of all models.
        sampling: Str, how masks are drawn.
    """

    def __init__(self, samplers: Sequence[MonteCarlo], calibration: Calibration | None) -> None:
        self._samplers, self._calibration = list(samplers), calibration
        self._reader = samplers[0].reader
        self.count = sum(each.max_samples for each in samplers)
        self.sampling: str | None = samplers[0].sampling
        self._run: Any = None
        self._run_each: Any = None

    def trace(self, checked: list[tf.Tensor]) -> None:
        """Traces the samples before their first batch.

        Args:
            checked: The inputs of the batch, in order.
        """
        if self._run is None:  # only tracing needs the lock: traced calls of many threads run side by side
            self._run = self._traced(self._statistics, checked)

    def statistics(self, checked: list[tf.Tensor]) -> Any:
        """Returns the statistics of a batch, by a traced function.

        Args:
            checked: The inputs of the batch, in order.
        """
        with self._unchanged():
            return self._run(checked, self._seeds())

    def each(self, checked: list[tf.Tensor]) -> list[list[tf.Tensor]]:
        """Returns the outputs of each sample, `(batch, ..., classes)`, member by member.

        Args:
            checked: The inputs of the batch, in order.
        """
        if self._run_each is None:
            self._run_each = self._traced(self._kept, checked)
        with self._unchanged():
            kept = self._run_each(checked, self._seeds())  # (batch, samples, ..., classes) by member and output
        pairs = zip(kept, self._samplers, strict=True)
        return [[x[:, t] for x in outputs] for outputs, each in pairs for t in range(each.max_samples)]

    def sample(self, flat: list[tf.Tensor], plain: bool = False) -> Any:
        """Returns the statistics of a batch, for use inside a graph.

        Args:
            flat: The inputs of the batch, in order.
            plain: Bool, whether to use only operations that run without XLA.
        """
        return self._statistics(of_any_rows(flat), self._seeds(), plain)

    def _statistics(self, flat: list[tf.Tensor], seeds: tf.Tensor, plain: bool = False) -> Any:
        graphs = self._graphs()
        total: list[Sums] = []
        for graph, seed in zip(graphs, tf.unstack(seeds, len(graphs)), strict=True):
            with tf.control_dependencies(tf.nest.flatten(total)):  # one member after another
                sums = graph.sums(flat, seed, plain)[0]
            total = [Sums(*map(tf.add, a, b)) for a, b in zip(total, sums, strict=True)] if total else sums
        outputs = self._reader.outputs
        found = [each.statistics(self.count, output) for each, output in zip(total, outputs, strict=True)]
        return answered(joined(found, self._reader.names), self._calibration)

    def _kept(self, flat: list[tf.Tensor], seeds: tf.Tensor) -> list[list[tf.Tensor]]:
        graphs = self._graphs(keep=True)
        found: list[list[tf.Tensor]] = []
        for graph, seed in zip(graphs, tf.unstack(seeds, len(graphs)), strict=True):
            with tf.control_dependencies(tf.nest.flatten(found)):
                found.append([each["samples"] for each in graph.sums(flat, seed)[2]])
        return found

    def _graphs(self, keep: bool = False) -> list[SampleGraph]:
        """The graphs of the samples, with the temperature of the calibration."""
        graphs = []
        for number, each in enumerate(self._samplers):
            with _naming(number, each.model):  # a subclassed model shows only now whether it has dropout
                own = each.graph
            wanted = replace(own.wanted, keep=keep)
            graphs.append(SampleGraph(own.reader, own.stage, wanted, self._calibration))
        return graphs

    def _seeds(self) -> tf.Tensor:
        return tf.constant([each.seed for each in self._samplers], tf.int64)

    def _traced(self, function: Any, checked: list[tf.Tensor]) -> Any:
        traced = self._reader.traced(function, tf.TensorSpec([len(self._samplers)], tf.int64))
        with TRACING:
            traced.get_concrete_function(checked, self._seeds())
        return traced

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for each in self._samplers:
                stack.enter_context(each.stage.unchanged(each.seed))
            yield


@contextlib.contextmanager
def _naming(number: int, model: keras.Model) -> Iterator[None]:
    """Adds to the error for a member that draws nothing which member it is, and what to do."""
    try:
        yield
    except NothingDraws as error:
        raise NothingDraws(
            "Every member needs dropout to draw samples. Received: no dropout in member number "
            f"{number + 1}, {model.name!r}. Add dropout with models.retrofit, or leave `num_samples` out to "
            "average the members without dropout"
        ) from error
