"""Test-time augmentation: the mean over an image that is mirrored and turned."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.models.graph.order import channels_first_inputs
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.ensembles import Pass, Rival, answer_of
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks

# For each name: whether the image is first mirrored left to right, and how many quarter turns it then makes,
# counter-clockwise. The horizontal axis is the last one before the channels, the vertical axis the one before it.
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


class TestTimeAugmentation(Rival):
    """Averages one model's answers to an image that is mirrored and turned.

    It needs neither dropout nor a second model, and it measures something else: how far the answer depends on the
    orientation of the image. Use it only if an image keeps its meaning when it is mirrored or turned. An answer
    for each pixel, `(batch, height, width, classes)`, is turned back. Values that are directions in the image are
    moved to their pixels, but not rotated themselves.

    Args:
        model: A Keras model of images. Its dropout is off. If it has several inputs, those with the most axes are
            the images, and the others stay as they are.
        transforms: List of different names: `"identity"`, `"flip_horizontal"` (left to right), `"flip_vertical"`,
            `"rotate_90"` (counter-clockwise), `"rotate_180"`, `"rotate_270"`, `"transpose"`, `"anti_transpose"`.
            Transforms that swap height and width need a model that takes square images, or images of any size.
            For volumes they act on the last two spatial axes; a signal can only be flipped horizontally.
        task: What the output means, as for `MonteCarlo`.
        from_logits: Whether the output is logits, as for `MonteCarlo`.
        calibration: A `Calibration` that `calibrate` fitted for this model and these transforms, as for
            `MonteCarlo`.

    Call arguments:
        images: One batch of the inputs, as Keras takes them.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. For several outputs, a dict of such dicts by
        name.

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
        task: Tasks = None,
        from_logits: Said = None,
        calibration: Calibration | None = None,
    ) -> None:
        reader = Reader(model, task, from_logits)
        if not isinstance(transforms, (list, tuple)) or not transforms:
            raise ValueError(f"`transforms` must be a list of names, at least one. Received: {transforms!r}")
        for name in transforms:
            if name not in _TRANSFORMS:
                raise unknown("transform", name, _TRANSFORMS)
        if len(set(transforms)) < len(transforms):
            raise ValueError(f"`transforms` must name each transform once. Received: {transforms!r}")
        self.transforms = tuple(transforms)
        first = channels_first_inputs(model)
        passes = [_seen(answer_of(reader, calibration), first, *_TRANSFORMS[name]) for name in transforms]
        super().__init__([reader], passes, task, from_logits, calibration)
        if reader.known:
            self._check_known()

    def _check_known(self) -> None:
        shapes, answers = self.reader.inputs.shapes, [output.shape for output in self.reader.outputs]
        rank = max(map(len, shapes))
        if rank < 3 or any(len(answer) not in (2, rank) for answer in answers):
            one = shapes[0] if len(shapes) == 1 else shapes
            raise ValueError(
                "The model must take (batch, height, width, channels), with more or fewer spatial axes, and "
                "answer with (batch, classes) or a value for each pixel. Received: "
                f"{one} to {', '.join(map(str, answers))}"
            )
        turning = [name for name in self.transforms if _TRANSFORMS[name][1]]
        if turning and rank < 4:
            raise ValueError(f"{turning} need two spatial axes. Received: a model that takes {shapes[0]}")
        swapping = [name for name in turning if _TRANSFORMS[name][1] % 2]
        first = channels_first_inputs(self.model) or [False] * len(shapes)
        for shape, is_first in zip(shapes, first, strict=True):
            height, width = shape[-2:] if is_first else shape[-3:-1]
            if swapping and len(shape) == rank and height != width:
                raise ValueError(
                    f"{swapping} swap height and width, so the model must take square images. Received: {shape}"
                )
        super()._check_known()


def _seen(answer: Pass, first: Sequence[bool], flip: bool, turns: int) -> Pass:
    """The answer to transformed images. A map is transformed back.

    Images are the inputs with the most axes; other inputs, such as a vector of features, stay as they are. `first`
    tells for each input of a model with a graph whether the channels come first.
    """

    def seen_image(x: tf.Tensor, is_first: bool) -> tf.Tensor:
        if not is_first:
            return _turn(_mirror(x, flip), turns)
        return tf.experimental.numpy.moveaxis(seen_image(tf.experimental.numpy.moveaxis(x, 1, -1), False), -1, 1)

    def transformed(flat: list[tf.Tensor]) -> list[tf.Tensor]:
        rank = max(len(x.shape) for x in flat)
        orders = first or [False] * len(flat)
        seen = [seen_image(x, o) if len(x.shape) == rank else x for x, o in zip(flat, orders, strict=True)]
        return [_mirror(_turn(y, -turns), flip) if len(y.shape) == rank else y for y in answer(seen)]

    return transformed


def _mirror(x: tf.Tensor, flip: bool) -> tf.Tensor:
    """Images `(batch, ..., width, channels)`, mirrored left to right."""
    return tf.reverse(x, [len(x.shape) - 2]) if flip else x


def _turn(x: tf.Tensor, turns: int) -> tf.Tensor:
    """Images `(batch, ..., height, width, channels)` after a number of quarter turns, counter-clockwise."""
    if not turns % 4:
        return x
    *others, height, width, channels = range(len(x.shape))
    x = tf.transpose(x, [*others, width, height, channels]) if turns % 2 else x
    axes = ([], [height], [height, width], [width])[turns % 4]
    return tf.reverse(x, axes) if axes else x
