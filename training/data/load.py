"""Data sets by name or by folder, as seeded batches that can be repeated and resumed exactly."""

import dataclasses
import os
from pathlib import Path

import tensorflow as tf

from dropzoo.common.checks import check_choice, check_count, check_pair, check_seed
from dropzoo.training.data.augment import Augment, AugmentLike, make_augment
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.pipeline import Source, Split, conform, cut_fold, evaluation_batches, training_batches
from dropzoo.training.data.tfds import EMBEDDED, is_known, read_tfds


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """The facts about a data set that a model needs.

    Attributes:
        name: The name of the data set or of its folder.
        task: `"classification"` or `"segmentation"`.
        num_classes: The number of classes, background included.
        class_names: The names of the classes.
        input_shape: `(height, width, channels)`, with None where sizes vary.
        num_train: The number of training images.
        num_validation: The number of validation images.
        num_test: The number of test images.
        bits: The bits of a pixel in the files, 8 or 16; None for images that are stored as floats.
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


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches `(images, labels)` of a data set.

    Images are float32 in [0, 1], `(batch, height, width, channels)`: stored values divided by the largest that
    their type can hold, 255 for 8 bits and 65535 for 16. Images of 12 bits in files of 16 end at 0.0625. Labels
    are int32, `(batch,)`; masks are int32, `(batch, height, width)`.

    Attributes:
        train: The training batches. The first iteration gives epoch 0, the second gives epoch 1, and so on, each
            with its own order and augmentations; `train.at_epoch(k)` is a dataset of epoch k alone, and
            `train.as_stored()` gives the training images in their stored order, without augmentations.
        validation: The validation batches, or None.
        test: The test batches, or None.
        info: The facts about the data set.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    info: DataInfo


def list_data() -> list[str]:
    """Returns the names of the data sets that need neither a network nor files.

    Example:
    >>> from dropzoo import training
    >>> training.list_data()
    ['digits', 'digit_scenes']
    """
    return list(EMBEDDED)


def load_data(
    name: str | os.PathLike,
    *,
    batch_size: int = 32,
    augment: AugmentLike = False,
    seed: int = 0,
    validation_split: float = 0.1,
    image_size: int | tuple[int, int] | None = None,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    cache: bool = True,
    limit: int | None = None,
    num_channels: int | None = None,
    fold: tuple[int, int] | None = None,
) -> Data:
    """Loads a data set for classification or segmentation.

    The batches are a function of `seed`: two calls with equal arguments give equal epochs, image by image.

    Args:
        name: `"digits"`, `"digit_scenes"`, a name of TFDS such as `"fashion_mnist"` or `"cifar10:3.*.*"`, or a
            folder that holds `images/` and `masks/`, or one folder for each class.
        batch_size: Int above 0. Where images differ in size, they are validated and tested one by one.
        augment: True (mild changes), text such as `"flip_horizontal,rotation=15,crop=128"`, a dict, an `Augment`,
            or False.
        seed: Int in [0, 2**32), for the order, the augmentation, and the validation images of a TFDS set.
        validation_split: Float in [0, 1). The fraction of the training images that is kept for validation. A TFDS
            set that has a validation split keeps its own.
        image_size: Int, `(height, width)` or None. Resizes all images to this size.
        data_dir: Folder in which TFDS keeps prepared sets; None for its default.
        manual_dir: Folder with the original archives of a TFDS set, instead of a download.
        cache: Bool. Whether to keep decoded images in memory. Otherwise they are read again in each epoch.
        limit: Int above 0 or None. The number of training images to use, counted from the first; None for all.
        num_channels: 1, 3 or None. Turns RGB images grey (1), or grey images to RGB (3); a folder may hold both.
        fold: `(k, folds)` or None, for cross-validation. The training images (after `limit`) are cut into `folds`
            parts. The parts hold equal shares of each class and do not depend on `seed`. Part k, counted from 0,
            is the validation set. It replaces `validation_split` and the data's own validation set.

    Returns:
        `Data` with the batches of the three splits and the `DataInfo`.

    Raises:
        ValueError: For bad arguments, an unknown name, files that cannot be read or do not fit together, a host
            that cannot be reached, or images of different sizes without `image_size`, a crop or `batch_size=1`.

    Example:
    >>> from dropzoo import training
    >>> data = training.load_data("digits", batch_size=64)
    >>> data.info.input_shape
    (8, 8, 1)
    """
    size = None if image_size is None else check_pair(image_size, "image_size")
    _check_arguments(batch_size, seed, validation_split, limit, num_channels)
    augmentation = make_augment(augment)
    source = _source(name, 0 if fold else validation_split, seed, data_dir, manual_dir, num_channels)
    height, width, channels = _shape(source, size, num_channels)
    sizes_vary = height is None or width is None
    crop = _crop(augmentation, height, width, channels)
    if sizes_vary and batch_size > 1 and crop is None:
        raise ValueError(
            "Images of different sizes cannot form a batch. Pass `image_size=(height, width)`, `batch_size=1`, or "
            f"`augment` with a crop. Received: batch_size={batch_size}"
        )

    def evaluation(split: Split | None) -> tf.data.Dataset | None:
        if split is None:
            return None
        stored = conform(split, size, channels)
        if cache:  # filled here, because a cache that is iterated only half-way comes out short later
            stored = stored.cache()
            stored.reduce(tf.constant(0), lambda total, *_: total)
        return evaluation_batches(stored, 1 if sizes_vary else batch_size)

    train, validation = _training_splits(source, limit, fold)
    examples = conform(train, size, channels)
    batches = training_batches(examples, train.count, batch_size, augmentation, seed, in_memory=cache)
    batches.as_stored = lambda: evaluation(train)
    return Data(
        train=batches,
        validation=evaluation(validation),
        test=evaluation(source.test),
        info=DataInfo(
            name=source.name,
            task=source.task,
            num_classes=len(source.class_names),
            class_names=source.class_names,
            # The model trains on windows and is tested on whole images: it must take both.
            input_shape=(height, width, channels) if crop in (None, (height, width)) else (None, None, channels),
            num_train=train.count,
            num_validation=validation.count if validation else 0,
            num_test=source.test.count if source.test else 0,
            bits=train.bits,
        ),
    )


def _check_arguments(
    batch_size: int, seed: int, validation_split: float, limit: int | None, num_channels: int | None
) -> None:
    check_count(batch_size, "batch_size")
    check_seed(seed)
    if limit is not None:
        check_count(limit, "limit")
    if not 0 <= validation_split < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: validation_split={validation_split!r}")
    check_choice(num_channels, "num_channels", (None, 1, 3))


def _source(
    name: str | os.PathLike,
    validation_split: float,
    seed: int,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
    num_channels: int | None,
) -> Source:
    """Reads a folder, or a data set of TFDS."""
    if folder := find_folder(name):
        if data_dir or manual_dir:
            raise ValueError(
                f"`data_dir` and `manual_dir` are for TFDS names. Received one with the folder {name}"
            )
        return read_folder(folder, validation_split, num_channels)
    directories = (None if d is None else os.path.expanduser(d) for d in (data_dir, manual_dir))
    return read_tfds(os.fspath(name), validation_split, seed, *directories)


def _shape(
    source: Source, size: tuple[int, int] | None, num_channels: int | None
) -> tuple[int | None, int | None, int]:
    """Returns the height, width and channels of the images that the model gets."""
    height, width, channels = source.image_shape
    if num_channels and channels not in (1, 3):
        raise ValueError(
            "`num_channels` turns images of 1 or 3 channels. "
            f"Received: num_channels={num_channels} for {channels} channels"
        )
    return *(size or (height, width)), num_channels or channels


def _crop(
    augmentation: Augment | None, height: int | None, width: int | None, channels: int
) -> tuple[int, int] | None:
    """Returns the size of the windows to train on, or None; checks that the augmentation suits the images."""
    if augmentation is None:
        return None
    augmentation.check(height, width, channels)
    return augmentation.crop if isinstance(augmentation.crop, tuple) else None


def _training_splits(
    source: Source, limit: int | None, fold: tuple[int, int] | None
) -> tuple[Split, Split | None]:
    """Returns the images to train on and to validate on."""
    count = min(source.train.count, limit or source.train.count)
    train = Split(source.train.examples.take(count), count)
    return cut_fold(train, *fold, by_label=source.task == "classification") if fold else (train, source.validation)


def find_folder(name: str | os.PathLike) -> Path | None:
    """Returns the folder to which a name refers, or None for the name of a data set.

    The folder need not exist. A string that TFDS knows is never a folder; a `Path` always is.
    """
    is_path = isinstance(name, os.PathLike) or (
        not is_known(name) and (os.path.isdir(name) or name.startswith(("~", ".")) or os.sep in name)
    )
    return Path(name).expanduser() if is_path else None
