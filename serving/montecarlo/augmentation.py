"""Test-time augmentation: the mean over an image that is mirrored and turned."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.common.images import CHANNELS, channels_first
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.graph.order import channels_first_inputs
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.ensembles import Rival
from dropzoo.serving.montecarlo.passes import Pass, Passes, answer_of
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
    """Averages the answers of one model to mirrored and rotated versions of an image.

    It needs neither dropout nor a second model, and it measures something different: how much the answer depends
    on the orientation of the image. Use it only if an image keeps its meaning when it is mirrored or rotated.
    Answers for each pixel, `(batch, height, width, classes)`, are transformed back. If the values of a pixel are
    directions in the image, they are moved with the pixel, but not rotated themselves.

    Args:
        model: A Keras model of images. Its dropout is off. If it has several inputs, those with the most axes are
            the images, and the others stay as they are.
        transforms: List of different names: `"identity"`, `"flip_horizontal"` (left to right), `"flip_vertical"`,
            `"rotate_90"` (counter-clockwise), `"rotate_180"`, `"rotate_270"`, `"transpose"`, `"anti_transpose"`.
            Transforms that swap height and width need a model that takes square images, or images of any size.
            For volumes they act on the last two spatial axes; a signal can only be flipped horizontally. Images
            may have their channels first.
        task: Str or None, the output kind, as for `MonteCarlo`.
        from_logits: Bool or None, whether the output is logits, as for `MonteCarlo`.
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
            raise ValueError(f"`transforms` must be a list of at least one name. Received: {transforms!r}")
        for name in transforms:
            if name not in _TRANSFORMS:
                raise unknown("transform", name, _TRANSFORMS)
        if len(set(transforms)) < len(transforms):
            raise ValueError(f"`transforms` must name each transform once. Received: {transforms!r}")
        self.transforms = tuple(transforms)
        passes = [_seen(reader, answer_of(reader, calibration), *_TRANSFORMS[name]) for name in transforms]
        super().__init__([reader], Passes(reader, passes, calibration), task, from_logits, calibration)
        if reader.known:
            self._check_known()

    def _check_known(self) -> None:
        shapes, answers = self.reader.inputs.shapes, [output.shape for output in self.reader.outputs]
        rank = max(map(len, shapes))
        if rank < 3 or any(len(answer) not in (2, rank) for answer in answers):
            one = shapes[0] if len(shapes) == 1 else shapes
            raise ValueError(
                "The model must take inputs of the shape (batch, height, width, channels), possibly with more "
                "or fewer spatial axes, and return (batch, classes) or a value for each pixel. Received: "
                f"a model that takes {one} and returns {', '.join(map(str, answers))}"
            )
        turning = [name for name in self.transforms if _TRANSFORMS[name][1]]
        if turning and rank < 4:
            raise ValueError(f"{turning} need two spatial axes. Received: a model that takes {shapes[0]}")
        swapping = [name for name in turning if _TRANSFORMS[name][1] % 2]
        for shape, first in zip(shapes, _channels_first(self.reader), strict=True):
            sides = shape[-2:] if first else shape[-3:-1]
            if swapping and len(shape) == rank and sides[0] != sides[1]:
                raise ValueError(
                    f"{swapping} swap height and width, so the model must take square images. Received: {shape}"
                )
        super()._check_known()


def _channels_first(reader: Reader) -> list[bool]:
    """Returns for each input whether its channels come before its spatial axes.

    The first convolution of a graph says so. For a model without a graph its shape says so, or a layer with
    `data_format="channels_first"`, unless a `Permute` may stand between them.
    """
    if known := channels_first_inputs(reader.model):
        return known
    held = flatten_layers(reader.model)
    firsts = [layer for layer in held if getattr(layer, "data_format", None) == "channels_first"]
    permuted = any(isinstance(layer, keras.layers.Permute) for layer in held)
    specs = [] if permuted else [layer.input_spec for layer in firsts if layer.input_spec is not None]
    ranks = {spec.ndim or spec.min_ndim for spec in specs}
    shapes = reader.inputs.seen or reader.inputs.shapes
    return [channels_first(shape) or (len(shape) in ranks and shape[-1] not in CHANNELS) for shape in shapes]


def _seen(reader: Reader, answer: Pass, flip: bool, turns: int) -> Pass:
    """The answer to transformed images. A map is transformed back.

    Images are the inputs with the most axes; other inputs, such as a vector of features, stay as they are.
    """

    def transformed(flat: list[tf.Tensor]) -> list[tf.Tensor]:
        rank = max(len(x.shape) for x in flat)
        firsts = _channels_first(reader)
        seen = [
            _with_channels_last(lambda image: _turn(_mirror(image, flip), turns), x, first)
            if len(x.shape) == rank
            else x
            for x, first in zip(flat, firsts, strict=True)
        ]
        return [_mirror(_turn(y, -turns), flip) if len(y.shape) == rank else y for y in answer(seen)]

    return transformed


def _with_channels_last(change: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, first: bool) -> tf.Tensor:
    """Returns changed images. Channels that are first are last while the images are changed."""
    if not first:
        return change(x)
    axes = range(1, len(x.shape))
    last = change(tf.transpose(x, [0, *axes[1:], 1]))
    return tf.transpose(last, [0, len(x.shape) - 1, *axes[:-1]])


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
