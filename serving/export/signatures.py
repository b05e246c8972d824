"""The functions behind the signatures of an export, with the preprocessing inside."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from dropzoo.serving.jpeg import decode_jpeg
from dropzoo.serving.montecarlo.reader import probabilities_of
from dropzoo.serving.montecarlo.sampler import MonteCarlo

Answer = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Preprocess:
    """Turns the images of a request into the model's input, and resizes masks back to the size of the images.

    Args:
        model: The model that is exported.
        dtype: Dtype of the images in a request: `"float32"` for images in [0, 1], or `"uint8"`.
        resize: `(height, width)` to which every image is resized, or None.
    """

    model: keras.Model
    dtype: str
    resize: tuple[int, int] | None

    @property
    def spec(self) -> tf.TensorSpec:
        """The shape and the dtype of the images in a request."""
        shape = self.model.input_shape[1:]
        return tf.TensorSpec([None, *((None, None, shape[-1]) if self.resize else shape)], self.dtype, "images")

    def spec_of(self, signature: str) -> tf.TensorSpec:
        """Returns the shape and the dtype of the input of a signature."""
        return tf.TensorSpec([None], tf.string, "image_bytes") if signature == "predict_bytes" else self.spec

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """`(height, width)` of all images that reach the model, or None if their sizes differ."""
        height, width = self.resize or self.model.input_shape[1:3]
        return None if height is None or width is None else (height, width)

    def pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the images of a request, scaled and resized for the model."""
        return self._resized(self._scaled(images), self.resize)

    def decoded(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Returns PNG or JPEG files as images for the model.

        They are resized to the model's size. If it takes any size, all files must have the same size.
        """
        channels = self.model.input_shape[-1]

        def decode(data: tf.Tensor) -> tf.Tensor:
            image = tf.cond(
                tf.io.is_jpeg(data),
                lambda: decode_jpeg(data, channels, tf.image.extract_jpeg_shape(data)[-1] == 4),
                lambda: tf.io.decode_image(data, channels=channels, expand_animations=False),
            )
            return self._resized(self._scaled(image[None]), self.fixed_size)[0]

        each = tf.TensorSpec([*(self.fixed_size or (None, None)), channels], tf.float32)
        return tf.map_fn(decode, image_bytes, fn_output_signature=each)

    def restored(self, answer: Answer, images: tf.Tensor) -> Answer:
        """Returns an answer with its masks resized to the size of the images. Other answers do not change."""
        if not self.resize or len(self.model.output_shape) != 4:
            return answer
        size = tf.shape(images)[1:3]
        return {name: _enlarged(value, size) for name, value in answer.items()}

    def _scaled(self, images: tf.Tensor) -> tf.Tensor:
        bytes_sent = images.dtype == tf.uint8 and not takes_integers(self.model)
        return tf.cast(images, tf.float32) / (255.0 if bytes_sent else 1.0)

    def _resized(self, pixels: tf.Tensor, size: tuple[int, int] | None) -> tf.Tensor:
        if size is None:
            return pixels
        pixels = tf.image.resize(pixels, size, antialias=True)
        return tf.round(pixels) if takes_integers(self.model) else pixels


def signatures(
    model: keras.Model, preprocess: Preprocess, num_samples: int, sampling: str, seed: int, kind: str
) -> dict[str, Callable[..., Answer]]:
    """Returns the signatures by name, as `export_model` describes them.

    Args:
        model: The model that is exported.
        preprocess: The preprocessing of the images.
        num_samples: Int, the number of Monte-Carlo samples. 0 leaves `predict_mc` out.
        sampling: As for `MonteCarlo`.
        seed: Int in [0, 2**32), the seed of the masks.
        kind: One of `KINDS`, what the output means.
    """
    probabilities = probabilities_of(model, kind)

    def answer(p: tf.Tensor) -> Answer:
        if kind == "regression":
            return {"values": p}
        if kind == "multi_label":
            return {"probabilities": p, "labels": tf.cast(p > 0.5, tf.int32)}
        best = tf.argmax(p, -1, tf.int32) if p.shape[-1] != 1 else tf.cast(p[..., 0] > 0.5, tf.int32)
        return {"probabilities": p, "classes": best}

    def serving_default(images: tf.Tensor) -> Answer:
        p = probabilities(model(preprocess.pixels(images), training=False))
        return answer(preprocess.restored({"p": p}, images)["p"])

    def predict_bytes(image_bytes: tf.Tensor) -> Answer:
        return answer(probabilities(model(preprocess.decoded(image_bytes), training=False)))

    found: dict[str, Callable[..., Answer]] = {"serving_default": serving_default}
    if len(model.input_shape) == 4 and model.input_shape[-1] in (1, 3, 4):
        found["predict_bytes"] = predict_bytes
    if num_samples:
        monte_carlo = MonteCarlo(model, num_samples, sampling, seed=seed, task=kind)

        def predict_mc(images: tf.Tensor) -> Answer:
            # Not every server can run XLA, so the sampling uses plain operations.
            statistics = monte_carlo.sample(preprocess.pixels(images), tf.constant(seed, tf.int64), plain=True)
            return preprocess.restored(statistics, images)

        found["predict_mc"] = predict_mc
    specs = {name: [preprocess.spec_of(name)] for name in found}
    return {name: tf.function(body, specs[name], autograph=False) for name, body in found.items()}


def takes_integers(model: keras.Model) -> bool:
    """Returns whether the model takes pixels of an integer dtype, which it scales itself."""
    return tf.as_dtype(model.inputs[0].dtype).is_integer


def _enlarged(value: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A map, with or without channels, after a bilinear resize, which keeps probabilities in [0, 1]."""
    if value.shape.rank == 3:  # (batch, height, width)
        return tf.image.resize(value[..., None], size)[..., 0]
    return tf.image.resize(value, size)
