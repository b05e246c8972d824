"""Turns outputs into probabilities: by what the user says, by what the graph shows, or by the values.

An output is logits, or probabilities already. One softmax too many makes every answer wrong, and nobody notices.
So nothing is guessed: if none of the three decides, an error says how to decide.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.common.keras_versions import setting_of_loss
from dropzoo.models.graph.bounds import output_bounds
from dropzoo.models.graph.endings import Meaning, output_meanings, recorded_meanings
from dropzoo.serving.calibration.temperature import softmax
from dropzoo.serving.montecarlo.kinds import compiled_losses
from dropzoo.serving.montecarlo.outputs import KINDS, Output

Reading = Literal["as_is", "softmax", "sigmoid"]
"""The function that turns an output into probabilities or values."""

_FUNCTIONS: dict[Reading, Callable[[tf.Tensor], tf.Tensor]] = {
    "as_is": tf.identity,
    "softmax": softmax,
    "sigmoid": tf.sigmoid,
}
# Values this far outside of [0, 1] may still be probabilities, after an interpolation that overshoots.
_OVERSHOOT = 0.25


class Meanings:
    """The meaning of each output of a model: shown by the graph, said by the user, or found by a batch.

    Args:
        model: The model.
        outputs: Its outputs.
        said: For each output True for logits, False for probabilities, or None if the user says nothing.
        structure: The structure that the model takes, with symbolic tensors as inputs.

    Raises:
        ValueError: If an output does not fit its kind, or `said` is not None for an output of values.
    """

    def __init__(
        self, model: keras.Model, outputs: Sequence[Output], said: Sequence[bool | None], structure: Any
    ) -> None:
        self._model, self._outputs, self._said, self._structure = model, list(outputs), list(said), structure
        needed = any(o.kind != "regression" and s is None for o, s in zip(outputs, said, strict=True))
        recorded = recorded_meanings(model) or [None] * len(self._outputs)
        shown = output_meanings(model, structure) if needed else []
        self._found: list[Meaning | None] = shown or [None] * len(self._outputs)
        self._bounded: set[int] = set()  # probabilities, which may sum to 1 or not
        for i, (output, each) in enumerate(zip(outputs, said, strict=True)):
            if each not in (None, True, False):
                raise ValueError(f"`from_logits` must be True, False or None. Received: from_logits={each!r}")
            if each is not None and output.kind == "regression":
                raise ValueError(
                    "`from_logits` says whether an output is logits or probabilities, and task='regression' has "
                    f"neither. Received: from_logits={each!r} for the output {output.name!r}"
                )
            if each is not None:
                self._found[i] = "logits" if each else ("softmax" if _excluding(output) else "sigmoid")
            elif _excluding(output) and self._found[i] == "sigmoid" and recorded[i] is None:
                self._found[i] = None
                self._bounded.add(i)
            check_kind(output, self._found[i])
        self._checked = not any(s is False for s in said)

    @property
    def settled(self) -> bool:
        """Whether the meaning of each output is known, and what the user says has been compared with a batch."""
        return self._checked and not self._open()

    def readings(self) -> list[Reading]:
        """Returns how to read each output.

        Raises:
            ValueError: If the meaning of an output is not known yet; the error says what to do.
        """
        for i in self._open():
            raise _undecided(self._outputs[i], "its graph does not show it, and no batch has been seen yet")
        return [reading_of(output, each) for output, each in zip(self._outputs, self._found, strict=True)]

    def ask(self, values: Sequence[Any]) -> None:
        """Finds the meanings that are not known by the outputs of the model for a batch, in inference mode.

        Args:
            values: The outputs, arrays `(batch, ..., classes)` in the model's order.

        Raises:
            ValueError: If the values do not decide a meaning, or contradict what the user says.
        """
        arrays = [np.asarray(tf.cast(each, tf.float32)) for each in values]
        if not all(array.size for array in arrays):
            return
        for i in self._open():
            output, array = self._outputs[i], arrays[i]
            rounding = 1e-4 if tf.as_dtype(values[i].dtype).size >= 4 else 1e-2
            found = meaning_of_values(array, output, rounding)
            if i in self._bounded and found is None:
                _check_axis(array, output)
                found = "sigmoid"
            if found is None and _excluding(output):
                _check_axis(array, output)
            if found == "logits":
                self._check_scale(i, array)
            found = found or _compiled(self._model, output, self._outputs)
            if found is None:
                span = f"{array.min():.3g} to {array.max():.3g}"
                raise _undecided(
                    output, f"its graph does not show it, and its values, from {span}, could be either"
                )
            self._found[i] = found
            check_kind(output, found)
        for output, each, array in zip(self._outputs, self._said, arrays, strict=True):
            if each is False and array.size and (array.min() < -_OVERSHOOT or array.max() > 1 + _OVERSHOOT):
                raise ValueError(
                    f"from_logits=False says that the output {output.name!r} is probabilities, but its values are "
                    f"from {array.min():.3g} to {array.max():.3g}. For logits, pass from_logits=True; for "
                    "a regression, pass task='regression'"
                )
            if each is False and _excluding(output):
                _check_axis(array, output)
        self._checked = True

    def _check_scale(self, i: int, values: np.ndarray) -> None:
        """Raises a ValueError if values above 1 come from an output that is never negative, so cannot be a logit.

        A ReLU may end the logits of classes, but not a single logit, which would never be for the first class. An
        output between 0 and 5 is a rating, and one between 0 and 100 a percentage.
        """
        bounds = output_bounds(self._model, self._structure)
        known = bounds[i] if len(bounds) == len(self._outputs) else None
        if known is None or known.low < 0 or (known.high == np.inf and _excluding(self._outputs[i])):
            return
        most = "" if known.high == np.inf else f" and at most {known.high:.4g}"
        raise ValueError(
            f"The values of the output {self._outputs[i].name!r} reach {values.max():.3g} and, as its graph "
            f"shows, are at least {known.low:.4g}{most}, so they look like neither logits nor probabilities. For "
            "a regression, pass task='regression'; for probabilities, scale them to [0, 1]; for logits, pass "
            "from_logits=True"
        )

    def _open(self) -> list[int]:
        return [i for i, o in enumerate(self._outputs) if o.kind != "regression" and self._found[i] is None]


def _check_axis(values: np.ndarray, output: Output) -> None:
    """Raises a ValueError if values sum to 1 along an axis other than the last."""
    for axis in range(1, values.ndim - 1):
        if np.abs(values.astype("float64").sum(axis) - 1).max() < 1e-2:
            raise not_last(output.name, axis, values.ndim)


def not_last(name: str, axis: int, rank: int) -> ValueError:
    """Returns the error for an output whose classes or channels are on an axis other than the last."""
    order = (*(i for i in range(1, rank) if i != axis), axis)
    return ValueError(
        f"The classes of the output {name!r} are on its axis {axis}, and they must be last. Put "
        f"keras.layers.Permute({order}) after it: keras.Model(model.inputs, "
        f"keras.layers.Permute({order})(model.output))"
    )


def meaning_of_values(values: np.ndarray, output: Output, rounding: float = 1e-4) -> Meaning | None:
    """Returns the meaning of an output by its values for a batch, or None if they do not decide it.

    - Classes that exclude each other: values that sum to 1 at every position are probabilities. Other values are
      logits if some of them are clearly outside of [0, 1].
    - A single unit, and labels: values are logits if some of them are clearly outside of [0, 1]. Otherwise they
      decide nothing.

    Args:
        values: Array `(batch, ..., classes)`.
        output: The output.
        rounding: Float, by how much a sum of probabilities may differ from 1.
    """
    if not values.size or not np.isfinite(values).all():
        return None
    least, most = float(values.min()), float(values.max())
    if _excluding(output):
        sums = values.astype("float64").sum(-1)
        if np.abs(sums - 1).max() < rounding and least > -_OVERSHOOT and most < 1 + _OVERSHOOT:
            return "softmax"
        return "logits" if least < -1e-3 or most > 1 + 1e-3 else None
    return "logits" if least < -_OVERSHOOT or most > 1 + _OVERSHOOT else None


def reading_of(output: Output, meaning: Meaning | None) -> Reading:
    """Returns the function to apply to an output of a known meaning."""
    if output.kind == "regression" or meaning != "logits":
        return "as_is"
    return "softmax" if _excluding(output) else "sigmoid"


def read(tensor: Any, output: Output, reading: Reading) -> tf.Tensor:
    """Returns an output as probabilities, or as values for regression: float32 `(batch, ..., classes)`."""
    values = tf.cast(tensor, tf.float32)
    return _FUNCTIONS[reading](values[:, None] if output.flat else values)


def check_kind(output: Output, meaning: Meaning | None) -> None:
    """Raises a ValueError if an output of this meaning does not fit its kind, or the kind is unknown."""
    if output.kind not in KINDS:
        raise unknown("task", output.kind, KINDS)
    if output.kind == "binary" and output.classes != 1:
        raise ValueError(
            "task='binary' needs a model with one output unit. For several classes that exclude each other, pass "
            f"task='multi_class'. Received: an output of the shape {output.shape}"
        )
    fitting = {
        "multi_class": "softmax" if _excluding(output) else "sigmoid",
        "binary": "sigmoid",
        "multi_label": "sigmoid",
    }
    if meaning not in (None, "logits", fitting.get(output.kind, meaning)):
        ending = "several sigmoids" if meaning == "sigmoid" else "a softmax"
        task = "multi_label" if meaning == "sigmoid" else "multi_class"
        raise ValueError(
            f"task={output.kind!r} needs a model of logits, or one that ends in a {fitting[output.kind]}. "
            f"Received: a model of {output.classes} outputs that ends in a {meaning}. For {ending}, pass "
            f"task={task!r}; to use the probabilities as they are, pass from_logits=False"
        )


def _excluding(output: Output) -> bool:
    """Whether an output is for several classes that exclude each other."""
    return output.kind == "multi_class" and output.classes != 1


def _compiled(model: keras.Model, output: Output, outputs: Sequence[Output]) -> Meaning | None:
    """The meaning of an output by the loss that the model was compiled with, or None."""
    loss = compiled_losses(model, [each.name for each in outputs])[list(outputs).index(output)]
    from_logits = setting_of_loss(loss, "from_logits")
    if isinstance(loss, str) and "crossentropy" in loss:
        from_logits = False  # the default of Keras
    if from_logits is None:
        return None
    return "logits" if from_logits else ("softmax" if _excluding(output) else "sigmoid")


def _undecided(output: Output, why: str) -> ValueError:
    return ValueError(
        f"Is the output {output.name!r} logits or probabilities? It is not known: {why}. Pass from_logits=True "
        "for logits, or from_logits=False for probabilities. For values that are neither, pass task='regression'"
    )
