"""The alternatives to Monte-Carlo dropout: deep ensembles and test-time augmentation, with the same statistics."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from dropzoo.common.checks import unknown
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.sampler import check_images, check_single
from dropzoo.serving.montecarlo.statistics import Sums, check_kind, probabilities_of

# For each name: whether the image is first mirrored left to right, and how many quarter turns it then makes,
# counter-clockwise.
_TRANSFORMS = {
    "identity": (False, 0),
    "rotate_90": (False, 1),
    "rotate_180": (False, 2),
    "rotate_270": (False, 3),
    "flip_horizontal": (True, 0),
    "flip_vertical": (True, 2),
    "transpose": (True, 1),
    "anti_transpose": (True, 3),
}


#: A function from a batch of float32 images to probabilities, or to values for regression.
Pass = Callable[[tf.Tensor], tf.Tensor]


class Rival:
    """Base class of the alternatives. It computes the statistics of a few deterministic passes from running sums.

    Args:
        model: A model with the input and output shapes of all passes.
        passes: Functions from float32 images to probabilities, or to values for regression.
        task: One of `KINDS`, what the output means.
    """

    def __init__(self, model: keras.Model, passes: Sequence[Pass], task: str) -> None:
        self.model = model
        self.task = task
        self.num_samples = len(passes)
        spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        functions = [tf.function(one, input_signature=[spec], autograph=False) for one in passes]
        with TRACING:  # Monte-Carlo sampling of the same model may be traced in another thread
            self._passes = [function.get_concrete_function() for function in functions]

    def __call__(self, images: ArrayLike) -> dict[str, tf.Tensor]:
        checked, shape = check_images(images, self.model.input_shape), self.model.output_shape
        sums = Sums.zero(len(shape), self.task)
        for one in self._passes:
            sums = sums.add(one(checked)[None], self.task)  # (1, batch, ..., classes)
        return sums.statistics(self.num_samples, shape, self.task)


class Ensemble(Rival):
    """Averages a deep ensemble: models trained alike from different initial weights.

    An ensemble is the usual yardstick for uncertainty, and costs the training, the memory and the time of M
    models. The statistics are those of `MonteCarlo`, with the members in place of samples: the variance divides by
    M, and the mutual information measures how far the members disagree. Dropout is off.

    Args:
        models: List of members: models, `.keras` files, or folders that `export_model` wrote. All members have
            the same input shape and the same output shape.
        task: What the outputs mean, as for `MonteCarlo`.

    Call arguments:
        images: Floating point tensor `(batch, height, width, channels)`.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`.

    Raises:
        ValueError: If there are no members, they do not fit each other or the task, or a path holds no model.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> members = [models.build_model("simple_cnn", filters=(4,)) for _ in range(3)]
    >>> ensemble = serving.Ensemble(members)
    >>> out = ensemble(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))

    Reference:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", 2017, arXiv:1612.01474
    """

    def __init__(self, models: Sequence[keras.Model | str | os.PathLike], task: str = "multi_class") -> None:
        if not isinstance(models, (list, tuple)) or not models:
            raise ValueError(f"`models` must be a list of models or paths, at least one. Received: {models!r}")
        self.models = [each if isinstance(each, keras.Model) else _load(each) for each in models]
        for i, each in enumerate(self.models):
            check_single(each)
            first, shapes = ((m.input_shape, m.output_shape) for m in (self.models[0], each))
            if shapes != first:
                raise ValueError(
                    "The members must have the same shapes of input and output. "
                    f"Received: {first} for the first, {shapes} for number {i + 1}"
                )
            check_kind(task, each)
        super().__init__(self.models[0], [_answer(each, task) for each in self.models], task)


class TestTimeAugmentation(Rival):
    """Averages one model's answers to an image that is mirrored and turned.

    It needs neither dropout nor a second model, and it measures something else: how far the answer depends on the
    orientation of the image. Use it only if an image keeps its meaning when it is mirrored or turned. An answer
    for each pixel, `(batch, height, width, classes)`, is turned back. Values that are directions in the image are
    moved to their pixels, but not rotated themselves.

    Args:
        model: A Functional or Sequential model of one image input and one output. Its dropout is off.
        transforms: List of different names: `"identity"`, `"flip_horizontal"` (left to right), `"flip_vertical"`,
            `"rotate_90"` (counter-clockwise), `"rotate_180"`, `"rotate_270"`, `"transpose"`, `"anti_transpose"`.
            Transforms that swap height and width need a model that takes square images, or images of any size.
        task: What the output means, as for `MonteCarlo`.

    Call arguments:
        images: Floating point tensor `(batch, height, width, channels)`.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`.

    Raises:
        ValueError: If `transforms` is empty, has an unknown name or the same name twice, or if the model does not
            fit them or the task.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("unet", num_classes=2, depth=1, filters=4)
    >>> tta = serving.TestTimeAugmentation(model, ("identity", "flip_horizontal", "rotate_90"))
    >>> out = tta(np.zeros((2, 20, 30, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 20, 30, 2]), TensorShape([2, 20, 30]))

    Reference:
        Wang et al., "Aleatoric uncertainty estimation with test-time augmentation for medical image segmentation
        with convolutional neural networks", 2019, arXiv:1807.07356
    """

    __test__ = False  # otherwise pytest would collect the class, because its name begins with "Test"

    def __init__(
        self,
        model: keras.Model,
        transforms: Sequence[str] = ("identity", "flip_horizontal"),
        task: str = "multi_class",
    ) -> None:
        check_single(model)
        check_kind(task, model)
        if not isinstance(transforms, (list, tuple)) or not transforms:
            raise ValueError(f"`transforms` must be a list of names, at least one. Received: {transforms!r}")
        for name in transforms:
            if name not in _TRANSFORMS:
                raise unknown("transform", name, _TRANSFORMS)
        if len(set(transforms)) < len(transforms):
            raise ValueError(f"`transforms` must name each transform once. Received: {transforms!r}")
        shape, answer = model.input_shape, _answer(model, task)
        if len(shape) != 4 or len(model.output_shape) not in (2, 4):
            raise ValueError(
                "The model must take (batch, height, width, channels) and answer with (batch, classes) or "
                f"(batch, height, width, classes). Received: {shape} to {model.output_shape}"
            )
        swapping = [name for name in transforms if _TRANSFORMS[name][1] % 2]
        if swapping and shape[1] != shape[2]:
            raise ValueError(
                f"{swapping} swap height and width, so the model must take square images. Received: {shape}"
            )
        self.transforms = tuple(transforms)
        super().__init__(model, [_seen(answer, *_TRANSFORMS[name]) for name in transforms], task)


def _load(path: str | os.PathLike) -> keras.Model:
    """The model in a `.keras` file or in the folder of an export."""
    if isinstance(path, (str, os.PathLike)):
        for file in (Path(path), Path(path) / "assets.extra" / "model.keras"):
            if file.is_file() and file.suffix == ".keras":
                return keras.models.load_model(file, compile=False)
    raise ValueError(f"Expected a model, a .keras file or a folder that export_model wrote. Received: {path!r}")


def _answer(model: keras.Model, kind: str) -> Pass:
    """The function from images to what the model's output means."""
    probabilities = probabilities_of(model, kind)
    return lambda images: probabilities(model(images, training=False))


def _seen(answer: Pass, flip: bool, turns: int) -> Pass:
    """The answer to the transformed image, transformed back if it has values for each pixel."""

    def transformed(images: tf.Tensor) -> tf.Tensor:
        y = answer(_turn(tf.reverse(images, [2]) if flip else images, turns))
        if len(y.shape) != 4:
            return y
        y = _turn(y, -turns)
        return tf.reverse(y, [2]) if flip else y

    return transformed


def _turn(x: tf.Tensor, turns: int) -> tf.Tensor:
    """Images `(batch, height, width, channels)` after a number of quarter turns, counter-clockwise."""
    x = tf.transpose(x, [0, 2, 1, 3]) if turns % 2 else x
    axes = ([], [1], [1, 2], [2])[turns % 4]
    return tf.reverse(x, axes) if axes else x
