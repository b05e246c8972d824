"""The answers of an export as functions around one loop, for runtimes whose files hold the loop themselves."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.layers.draws.samples import SharedMaskError
from dropzoo.serving.export.inputs import Input
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.export.signatures import Answer, Signatures
from dropzoo.serving.montecarlo.ensembles import Rival, samplers_behind
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.steps import Steps


@dataclass(frozen=True)
class Parts:
    """The functions of an export, traced; each takes and returns tensors by name.

    Attributes:
        before: Takes the inputs. Returns the answers that need no loop, and what all samples share.
        turn: Takes the number of the turn (`turn`), the sums (`dz_sum_0` and so on) and what all samples share.
            Returns the new sums (`dz_total_0` and so on). None without a loop.
        after: Takes the last sums and the inputs. Returns the answers of the samples. None without a loop.
        turns: Int, the number of turns of the loop.
        answers: The names of the answers that `before` returns.
        shared: The names of what all samples share.
        zeros: The sums before the first turn.
    """

    before: Any
    turn: Any = None
    after: Any = None
    turns: int = 0
    answers: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    zeros: tuple[np.ndarray, ...] = ()


class Unrolled(Signatures):
    """Signatures without loops of TensorFlow; the arguments are those of `Signatures`.

    Raises:
        ValueError: If masks depend on pixels that two runtimes may round differently.
    """

    def __init__(self, predictors: Predictors, inputs: Sequence[Input], seed: int) -> None:
        sampling = next((each.sampling for each in predictors.samplers), "fixed")
        if sampling != "fixed" and any(each.resize for each in inputs):
            advice = (
                "Pass sampling='fixed'" if predictors.calibration is None else "Calibrate with sampling='fixed'"
            )
            raise ValueError(
                "The dropout masks of an image depend on its pixels, and other runtimes round them differently "
                f"when they resize the image. {advice}, or resize the images beforehand and leave `resize` out. "
                f"Received: sampling={sampling!r}"
            )
        super().__init__(predictors, [dataclasses.replace(each, portable=True) for each in inputs], seed)

    @property
    def models(self) -> list[keras.Model]:
        """The models behind the signatures."""
        return self._predictors.models

    @property
    def samples(self) -> bool:
        """Whether there are samples of dropout."""
        return bool(self._predictors.samplers)

    def parts(self) -> Parts:
        """Returns the functions of the export.

        Raises:
            ValueError: If only a SavedModel can hold the samples of the model.
        """
        sampled = self._predictors.sampled
        if sampled is None or not self.samples:
            return self._without_loop()
        steps = Steps(sampled)
        try:
            return self._without_loop() if steps.turns == 1 else self._with_loop(steps)
        except SharedMaskError:  # samples cannot differ in a mask that serves a whole batch
            steps.at_once = 1
            return self._with_loop(steps)

    def looped(self) -> dict[str, Any]:
        """Returns the functions behind `serving_default` and `predict_mc`, traced, with a loop of TensorFlow.

        Raises:
            ValueError: If only a SavedModel can hold the samples of the model.
        """
        found = {"serving_default": _traced(self._serving_default, self._given())}
        sampled = self._predictors.sampled
        if sampled is not None:
            predict = self._in_loop(Steps(sampled, fold=False)) if self.samples else self._predict_mc
            found["predict_mc"] = _traced(predict, self._given())
        return found

    def _in_loop(self, steps: Steps) -> Callable[..., Answer]:
        def predict(**given: tf.Tensor) -> Answer:
            shared, sums = steps.start(self._taken(given)), steps.zeros()
            _, sums = tf.while_loop(
                lambda turn, sums: turn < steps.turns,
                lambda turn, sums: (turn + 1, steps.add(turn, sums, shared)),
                (tf.constant(0), sums),
                shape_invariants=(tf.TensorShape([]), [tf.TensorShape([None] * x.shape.rank) for x in sums]),
            )
            return self._answer(steps.finish(sums), given)

        return predict

    def _answer(self, found: Any, given: Answer) -> Answer:
        return self._prefixed([self._restored(answer, given) for answer in self._of_each(found)])

    def _without_loop(self) -> Parts:
        def before(**given: tf.Tensor) -> Answer:
            answers = self._serving_default(**given)
            return answers if self._predictors.sampled is None else answers | self._predict_mc(**given)

        traced = _traced(before, self._given())
        return Parts(traced, answers=tuple(traced.structured_outputs))

    def _with_loop(self, steps: Steps) -> Parts:
        names: list[str] = []

        def before(**given: tf.Tensor) -> Answer:
            shared = steps.start(self._taken(given))
            answers = self._serving_default(**given)
            names.extend(answers)
            return answers | _numbered("dz_shared", shared)

        def turn(turn: tf.Tensor, **values: tf.Tensor) -> Answer:
            return _numbered("dz_total", steps.add(turn, _listed("dz_sum", values), _listed("dz_shared", values)))

        def after(**values: tf.Tensor) -> Answer:
            return self._answer(steps.finish(_listed("dz_total", values)), values)

        first = _traced(before, self._given())
        shared = _specs({name: x for name, x in first.structured_outputs.items() if name not in names})
        zeros = [x.numpy() for x in steps.zeros()]
        sums = [tf.TensorSpec([None] * x.ndim, x.dtype, f"dz_sum_{i}") for i, x in enumerate(zeros)]
        one = _traced(turn, [tf.TensorSpec([], tf.int32, "turn"), *sums, *shared])
        last = _traced(after, [*_specs(one.structured_outputs), *self._given()])
        return Parts(first, one, last, steps.turns, tuple(names), tuple(s.name for s in shared), tuple(zeros))

    def _given(self) -> list[tf.TensorSpec]:
        return [each.spec for each in self.inputs]

    def _statistics(self, predictor: MonteCarlo | Rival | None, flat: list[tf.Tensor]) -> list[Answer]:
        if predictor is None or not samplers_behind(predictor):
            return super()._statistics(predictor, flat)
        steps = Steps(predictor)
        found = steps.finish(steps.add(tf.constant(0), steps.zeros(), steps.start(flat)))
        return self._of_each(found)


def _traced(function: Callable[..., Answer], specs: list[tf.TensorSpec]) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(**{str(s.name): s for s in specs})


def _specs(tensors: dict[str, tf.Tensor]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(x.shape, x.dtype, name) for name, x in tensors.items()]


def _numbered(name: str, tensors: list[tf.Tensor]) -> Answer:
    return {f"{name}_{i}": x for i, x in enumerate(tensors)}


def _listed(name: str, values: Answer) -> list[tf.Tensor]:
    """The numbered tensors among others, whose names are those of the user's inputs."""
    names = itertools.takewhile(values.__contains__, (f"{name}_{i}" for i in itertools.count()))
    return [values[each] for each in names]
