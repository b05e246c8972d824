"""A loaded data set: its batches, and the facts about it that a model needs."""

import dataclasses

import tensorflow as tf

from dropzoo.training.data.files.summary import Summary


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """The facts about a data set that a model needs.

    Attributes:
        name: The name of the data set or of its folder.
        task: `"classification"` or `"segmentation"`.
        num_classes: The number of classes, background included.
        class_names: The names of the classes.
        input_shape: `(height, width, channels)`. Height and width are None if the images, or the crops in
            training, differ in size.
        num_train: The number of training images.
        num_validation: The number of validation images.
        num_test: The number of test images.
        bits: The bits of a pixel in the files, 8 or 16; None for images that are stored as floats.
        ignore_class: The label of pixels that losses and metrics ignore; None if there is no such label.
    """

    name: str
    task: str
    num_classes: int
    class_names: tuple[str, ...]
    input_shape: tuple[int | None, int | None, int]
    num_train: int
    num_validation: int
    num_test: int
    bits: int | None = None
    ignore_class: int | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches `(images, labels)` of a data set.

    Images are float32 in [0, 1], `(batch, height, width, channels)`: the stored values are divided by the largest
    value of their type, 255 for 8 bits and 65535 for 16. If a 16-bit file holds 12-bit values, the largest
    possible value is therefore 0.0625. Labels are int32, `(batch,)`; masks are int32, `(batch, height, width)`.

    Attributes:
        train: The training batches. The first iteration gives epoch 0, the second gives epoch 1, and so on, each
            with its own order and augmentations; `train.at_epoch(k)` is a dataset of only epoch k, and
            `train.as_stored()` gives the training images in their stored order, without augmentations.
        validation: The validation batches, or None.
        test: The test batches, or None.
        info: The facts about the data set.
        summary: How a folder was read: its sizes, splits and classes, and what looks wrong; None for other data.

    Example:
    >>> from dropzoo import training
    >>> data = training.load_data("digits", batch_size=64)
    >>> images, labels = next(iter(data.train))
    >>> tuple(images.shape), tuple(labels.shape), data.info.num_classes
    ((64, 8, 8, 1), (64,), 10)
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    info: DataInfo
    summary: Summary | None = None
