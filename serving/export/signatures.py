"""The functions behind the signatures of an export, with the preprocessing inside."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dropzoo.serving.calibration.answers import ANSWERS
from dropzoo.serving.export.inputs import Input
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.montecarlo.ensembles import Rival
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.sampler import MonteCarlo

Answer = dict[str, tf.Tensor]


class Signatures:
    """The signatures of a model, as `export_model` describes them.

    Args:
        predictors: The predictors behind the signatures.
        inputs: The inputs, as requests send them.
        seed: Int in [0, 2**32), the seed of the masks.

    Attributes:
        inputs: The inputs, as requests send them.
    """

    def __init__(self, predictors: Predictors, inputs: Sequence[Input], seed: int) -> None:
        self._predictors, self._reader, self.inputs, self._seed = predictors, predictors.reader, inputs, seed

    def specs(self) -> dict[str, list[tf.TensorSpec]]:
        """Returns the shapes and dtypes of the inputs of each signature, by the name of the signature."""
        found = {"serving_default": [each.spec for each in self.inputs]}
        if any(each.is_file for each in self.inputs):
            found["predict_bytes"] = [each.file_spec for each in self.inputs]
        if self._predictors.sampled is not None:
            found["predict_mc"] = [each.spec for each in self.inputs]
        return found

    def functions(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the signatures, traced, by name."""
        found = {}
        for name, specs in self.specs().items():
            body = tf.function(getattr(self, f"_{name}"), autograph=False)
            found[name] = body.get_concrete_function(**{str(spec.name): spec for spec in specs})
        return found

    def _serving_default(self, **given: tf.Tensor) -> Answer:
        return self._named([self._restored(each, given) for each in self._once(self._taken(given))])

    def _predict_bytes(self, **given: tf.Tensor) -> Answer:
        taken = [
            each.decoded(given[each.file_name]) if each.is_file else each.taken(given[each.name])
            for each in self.inputs
        ]
        return self._named(self._once(taken))

    def _predict_mc(self, **given: tf.Tensor) -> Answer:
        found = self._statistics(self._predictors.sampled, self._taken(given))
        return self._prefixed([self._restored(each, given) for each in found])

    def _once(self, flat: list[tf.Tensor]) -> list[Answer]:
        """The probabilities or values of each output, `p`, and the answers of a calibration."""
        if self._predictors.default is None:
            return [{"p": p} for p in self._reader.read(self._reader.call(flat))]
        found = self._statistics(self._predictors.default, flat)
        means = [
            # The mean of a model that returns `(batch,)` has its shape, and probabilities are `(batch, 1)`.
            each["mean"][:, None] if output.flat else each["mean"]
            for output, each in zip(self._reader.outputs, found, strict=True)
        ]
        answers = [{name: each[name] for name in ANSWERS if name in each} for each in found]
        return [{"p": mean} | each for mean, each in zip(means, answers, strict=True)]

    def _statistics(self, predictor: MonteCarlo | Rival | None, flat: list[tf.Tensor]) -> list[Answer]:
        """The statistics of each output."""
        inputs = self._reader.inputs.pack(flat)
        # Not every server can run XLA, so the sampling uses plain operations.
        if isinstance(predictor, MonteCarlo):
            found = predictor.sample(inputs, tf.constant(self._seed, tf.int64), plain=True)
        else:
            found = predictor.sample(inputs, plain=True)  # type: ignore[union-attr]  # None has no signature
        return self._of_each(found)

    def _of_each(self, found: Any) -> list[Answer]:
        """The statistics of each output, from those of a predictor."""
        outputs = self._reader.outputs
        return [found] if len(outputs) == 1 else [found[each.name] for each in outputs]

    def _taken(self, given: Answer) -> list[tf.Tensor]:
        return [each.taken(given[each.name]) for each in self.inputs]

    def _named(self, found: Sequence[Answer]) -> Answer:
        outputs = self._reader.outputs
        return self._prefixed([_answer(output, each) for output, each in zip(outputs, found, strict=True)])

    def _prefixed(self, answers: Sequence[Answer]) -> Answer:
        """One answer from those of all outputs. If there are several, names of outputs come first."""
        if len(answers) == 1:
            return answers[0]
        pairs = zip(self._reader.outputs, answers, strict=True)
        return {f"{output.name}_{name}": value for output, answer in pairs for name, value in answer.items()}

    def _restored(self, answer: Answer, given: Answer) -> Answer:
        """An answer with its masks resized to the size of the images. Other answers do not change."""
        resized = next((each for each in self.inputs if each.resize), None)
        if resized is None:
            return answer
        size = tf.shape(given[resized.name])[2:4] if resized.channels_first else tf.shape(given[resized.name])[1:3]
        # A mask has the classes as a fourth axis, and its entropies have three.
        mask = next(value for name, value in answer.items() if name in ("p", "mean")).shape.rank == 4
        return {name: _enlarged(value, size) for name, value in answer.items()} if mask else answer


def _answer(output: Output, found: Answer) -> Answer:
    """The answer of `serving_default` for one output."""
    p, more = found["p"], {name: value for name, value in found.items() if name != "p"}
    if output.kind == "regression":
        return {"values": p, **more}
    if output.kind == "multi_label":
        return {"probabilities": p, "labels": tf.cast(p > 0.5, tf.int32), **more}
    best = tf.argmax(p, -1, tf.int32) if p.shape[-1] != 1 else tf.cast(p[..., 0] > 0.5, tf.int32)
    return {"probabilities": p, "classes": best, **more}


def _enlarged(value: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A map, with or without channels, after a resize; an answer for a whole image does not change.

    A bilinear resize keeps probabilities in [0, 1]. Masks of true and false take their nearest pixel.
    """
    if value.shape.rank < 3:
        return value
    image = value[..., None] if value.shape.rank == 3 else value  # (batch, height, width)
    if value.dtype == tf.bool:
        large = tf.cast(tf.image.resize(tf.cast(image, tf.uint8), size, "nearest"), tf.bool)
    else:
        large = tf.image.resize(image, size)
    return large[..., 0] if value.shape.rank == 3 else large
