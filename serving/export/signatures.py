"""The functions behind the signatures of an export, with the preprocessing inside."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from dropzoo.serving.export.inputs import Input
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.sampler import MonteCarlo

Answer = dict[str, tf.Tensor]


class Signatures:
    """The signatures of a model, as `export_model` describes them.

    Args:
        reader: The model, which knows what its outputs mean.
        inputs: The inputs, as requests send them.
        monte_carlo: The sampler behind `predict_mc`, or None.
        seed: Int in [0, 2**32), the seed of the masks.
    """

    def __init__(self, reader: Reader, inputs: Sequence[Input], monte_carlo: MonteCarlo | None, seed: int) -> None:
        self._reader, self._inputs, self._monte_carlo, self._seed = reader, inputs, monte_carlo, seed

    def specs(self) -> dict[str, list[tf.TensorSpec]]:
        """Returns the shapes and dtypes of the inputs of each signature, by the name of the signature."""
        found = {"serving_default": [each.spec for each in self._inputs]}
        if any(each.is_file for each in self._inputs):
            found["predict_bytes"] = [each.file_spec for each in self._inputs]
        if self._monte_carlo is not None:
            found["predict_mc"] = [each.spec for each in self._inputs]
        return found

    def functions(self) -> dict[str, Callable[..., Answer]]:
        """Returns the signatures, traced, by name."""
        found = {}
        for name, specs in self.specs().items():
            body = tf.function(getattr(self, f"_{name}"), autograph=False)
            found[name] = body.get_concrete_function(**{str(spec.name): spec for spec in specs})
        return found

    def _serving_default(self, **given: tf.Tensor) -> Answer:
        found = self._reader.read(self._reader.call(self._taken(given)))
        return self._named([self._restored({"p": p}, given)["p"] for p in found])

    def _predict_bytes(self, **given: tf.Tensor) -> Answer:
        taken = [
            each.decoded(given[each.file_name]) if each.is_file else each.taken(given[each.name])
            for each in self._inputs
        ]
        return self._named(self._reader.read(self._reader.call(taken)))

    def _predict_mc(self, **given: tf.Tensor) -> Answer:
        # Not every server can run XLA, so the sampling uses plain operations.
        inputs, seed = self._reader.inputs.pack(self._taken(given)), tf.constant(self._seed, tf.int64)
        found = self._monte_carlo.sample(inputs, seed, plain=True)  # type: ignore[union-attr]
        if len(self._reader.outputs) == 1:
            return self._restored(found, given)
        return self._prefixed([self._restored(found[output.name], given) for output in self._reader.outputs])

    def _taken(self, given: Answer) -> list[tf.Tensor]:
        return [each.taken(given[each.name]) for each in self._inputs]

    def _named(self, found: Sequence[tf.Tensor]) -> Answer:
        outputs = self._reader.outputs
        return self._prefixed([_answer(output, p) for output, p in zip(outputs, found, strict=True)])

    def _prefixed(self, answers: Sequence[Answer]) -> Answer:
        """One answer from those of all outputs. If there are several, names of outputs come first."""
        if len(answers) == 1:
            return answers[0]
        pairs = zip(self._reader.outputs, answers, strict=True)
        return {f"{output.name}_{name}": value for output, answer in pairs for name, value in answer.items()}

    def _restored(self, answer: Answer, given: Answer) -> Answer:
        """An answer with its masks resized to the size of the images. Other answers do not change."""
        resized = next((each for each in self._inputs if each.resize), None)
        if resized is None:
            return answer
        size = tf.shape(given[resized.name])[1:3]
        # A mask has the classes as a fourth axis, and its entropies have three.
        mask = next(value for name, value in answer.items() if name in ("p", "mean")).shape.rank == 4
        return {name: _enlarged(value, size) for name, value in answer.items()} if mask else answer


def _answer(output: Output, p: tf.Tensor) -> Answer:
    """The answer of `serving_default` for one output."""
    if output.kind == "regression":
        return {"values": p}
    if output.kind == "multi_label":
        return {"probabilities": p, "labels": tf.cast(p > 0.5, tf.int32)}
    best = tf.argmax(p, -1, tf.int32) if p.shape[-1] != 1 else tf.cast(p[..., 0] > 0.5, tf.int32)
    return {"probabilities": p, "classes": best}


def _enlarged(value: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A map, with or without channels, after a bilinear resize, which keeps probabilities in [0, 1]."""
    if value.shape.rank == 3:  # (batch, height, width)
        return tf.image.resize(value[..., None], size)[..., 0]
    return tf.image.resize(value, size)
