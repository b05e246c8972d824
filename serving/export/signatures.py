"""The functions behind the signatures of an export, with the preprocessing inside."""

from collections.abc import Callable

import keras
import tensorflow as tf

from dropzoo.serving.export.inputs import Input
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.statistics import probabilities_of

Answer = dict[str, tf.Tensor]


def signatures(
    model: keras.Model, given: Input, num_samples: int, sampling: str, seed: int, kind: str
) -> dict[str, Callable[..., Answer]]:
    """Returns the signatures by name, as `export_model` describes them.

    Args:
        model: The model that is exported.
        given: The input, as requests give it.
        num_samples: Int, the number of Monte-Carlo samples. 0 leaves `predict_mc` out.
        sampling: As for `MonteCarlo`.
        seed: Int in [0, 2**32), the seed of the masks.
        kind: One of `KINDS`, what the output means.
    """
    probabilities = probabilities_of(model, kind)

    def restored(answer: Answer, images: tf.Tensor) -> Answer:
        """An answer with its masks resized to the size of the images. Other answers do not change."""
        if not given.resize or len(model.output_shape) != 4:
            return answer
        size = tf.shape(images)[1:3]
        return {name: _enlarged(value, size) for name, value in answer.items()}

    def answer(p: tf.Tensor) -> Answer:
        if kind == "regression":
            return {"values": p}
        if kind == "multi_label":
            return {"probabilities": p, "labels": tf.cast(p > 0.5, tf.int32)}
        best = tf.argmax(p, -1, tf.int32) if p.shape[-1] != 1 else tf.cast(p[..., 0] > 0.5, tf.int32)
        return {"probabilities": p, "classes": best}

    def serving_default(images: tf.Tensor) -> Answer:
        p = probabilities(model(given.taken(images), training=False))
        return answer(restored({"p": p}, images)["p"])

    def predict_bytes(image_bytes: tf.Tensor) -> Answer:
        return answer(probabilities(model(given.decoded(image_bytes), training=False)))

    found: dict[str, Callable[..., Answer]] = {"serving_default": serving_default}
    if given.is_file:
        found["predict_bytes"] = predict_bytes
    if num_samples:
        monte_carlo = MonteCarlo(model, num_samples, sampling, seed=seed, task=kind)

        def predict_mc(images: tf.Tensor) -> Answer:
            # Not every server can run XLA, so the sampling uses plain operations.
            statistics = monte_carlo.sample(given.taken(images), tf.constant(seed, tf.int64), plain=True)
            return restored(statistics, images)

        found["predict_mc"] = predict_mc
    specs = {name: given.file_spec if name == "predict_bytes" else given.spec for name in found}
    return {name: tf.function(body, [specs[name]], autograph=False) for name, body in found.items()}


def _enlarged(value: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A map, with or without channels, after a bilinear resize, which keeps probabilities in [0, 1]."""
    if value.shape.rank == 3:  # (batch, height, width)
        return tf.image.resize(value[..., None], size)[..., 0]
    return tf.image.resize(value, size)
