"""A few deterministic passes whose answers are averaged: of the members of an ensemble, or of transforms."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.calibrated import answered, tempered
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.statistics import Sums, added, sums_of

#: Function from the inputs of a model, in order, to its outputs as probabilities or values.
Pass = Callable[[list[tf.Tensor]], list[tf.Tensor]]


def answer_of(reader: Reader, calibration: Calibration | None = None) -> Pass:
    """Returns the function from inputs to outputs as probabilities or values, at the temperature of a calibration.

    Args:
        reader: The model.
        calibration: The calibration, or None.
    """
    return lambda flat: tempered(reader.read(reader.call(flat)), calibration)


class Passes:
    """The statistics of a few deterministic passes, from running sums.

    Args:
        reader: The first model of the passes.
        passes: Functions from the inputs to the outputs.
        calibration: The calibration that the answers follow, or None.

    Attributes:
        count: Int, the number of passes.
        sampling: None, since nothing drops.
    """

    sampling: str | None = None

    def __init__(self, reader: Reader, passes: Sequence[Pass], calibration: Calibration | None) -> None:
        self.count = len(passes)
        self._reader, self._passes, self._calibration = reader, list(passes), calibration
        self._traced: list[Any] = []

    def trace(self, checked: list[tf.Tensor]) -> None:
        """Traces the passes before their first batch.

        Args:
            checked: The inputs of the batch, in order.
        """
        if self._traced:
            return
        functions = [self._reader.traced(one) for one in self._passes]
        with TRACING:  # Monte-Carlo sampling of the same model may be traced in another thread
            for function in functions:
                function.get_concrete_function(checked)
        self._traced = functions

    def statistics(self, checked: list[tf.Tensor]) -> Any:
        """Returns the statistics of a batch, by traced functions.

        Args:
            checked: The inputs of the batch, in order.
        """
        return self._statistics(self._traced, checked)

    def each(self, checked: list[tf.Tensor]) -> list[list[tf.Tensor]]:
        """Returns the outputs of each pass, `(batch, ..., classes)`, by traced functions.

        Args:
            checked: The inputs of the batch, in order.
        """
        return [one(checked) for one in self._traced]

    def sample(self, flat: list[tf.Tensor], plain: bool = False) -> Any:
        """Returns the statistics of a batch, for use inside a graph.

        Args:
            flat: The inputs of the batch, in order.
            plain: Bool, whether to use only operations that run without XLA and without 64 bits.
        """
        return self._statistics(self._passes, flat, plain)

    def _statistics(self, passes: Sequence[Pass], flat: list[tf.Tensor], plain: bool = False) -> Any:
        outputs = self._reader.outputs
        sums = [(sums_of(output) if plain else Sums).zero(output) for output in outputs]
        for turn, one in enumerate(passes):
            found = zip(sums, one(flat), outputs, strict=True)  # samples are (1, batch, ..., classes)
            sums = [added(each, p[None], tf.constant(turn), output) for each, p, output in found]
        answers = [each.statistics(self.count, o) for each, o in zip(sums, outputs, strict=True)]
        return answered(joined(answers, self._reader.names), self._calibration)
