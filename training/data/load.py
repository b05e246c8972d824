"""Data sets by name or by folder, as seeded batches that can be repeated and resumed exactly."""

import dataclasses
import os
from pathlib import Path

import tensorflow as tf

from dropzoo.training.data.augment import AugmentLike, make_augment
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.pipeline import Split, conform, cut_fold, evaluation_batches, training_batches
from dropzoo.training.data.tfds import EMBEDDED, is_known, read_tfds


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a model needs to know about a data set."""

    name: str
    task: str  # "classification" or "segmentation"
    num_classes: int
    class_names: tuple[str, ...]
    input_shape: tuple[int | None, int | None, int]  # None where sizes vary
    num_train: int
    num_validation: int
    num_test: int


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches of (images, labels).

    Images are float32 in [0, 1], (batch, height, width, channels); labels int32, (batch,); masks int32,
    (batch, height, width). `train` gives epoch 0 the first time it is iterated, then epoch 1, and so on, each
    with an order and augmentations of its own; `train.at_epoch(k)` is a dataset of epoch k alone.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    info: DataInfo


def list_data() -> list[str]:
    """Lists the data sets that need neither a network nor files."""
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

    All is a function of `seed`: two calls with equal arguments give equal epochs, image by image.

    Args:
        name: "digits", "digit_scenes", any TFDS name ("fashion_mnist", "cifar10:3.*.*"), or a folder that
            holds `images/` and `masks/`, or one folder a class.
        batch_size: Where images differ in size, they are validated and tested one by one.
        augment: True (mild), "flip_horizontal,rotation=15,crop=128", a dict, or an `Augment`.
        seed: Of the order, the augmentation, and the validation images of a TFDS set.
        validation_split: Fraction of the training images kept for validation; 0 for none. A TFDS set that
            brings a validation split keeps its own.
        image_size: Resize all images to this height and width.
        data_dir: Where TFDS keeps its prepared sets; None for its default.
        manual_dir: Folder with the original archives of a TFDS set, instead of a download.
        cache: Keep the decoded images in memory; otherwise they are read anew each epoch.
        limit: Train on the first so many training images only.
        num_channels: 1 or 3, to turn RGB images grey or grey ones to RGB; a folder may hold both.
        fold: `(k, folds)`, for cross-validation: of the training images (those of `limit`, where it is given) the
            k-th of so many parts, counted from 0, is the validation set. The parts do not depend on `seed`, and
            hold the classes alike. It takes the place of `validation_split`, and of a validation set that the
            data bring.

    Example:
        >>> data = load_data("digits", batch_size=64)
        >>> data.info.input_shape
        (8, 8, 1)
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    _check_arguments(batch_size, seed, validation_split, size, limit, num_channels)
    augmentation = make_augment(augment)
    validation_split = 0 if fold else validation_split
    if folder := find_folder(name):
        if data_dir or manual_dir:
            raise ValueError(
                f"`data_dir` and `manual_dir` are for TFDS names. Received one with the folder {name}"
            )
        source = read_folder(folder, validation_split, num_channels)
    else:
        directories = (None if d is None else os.path.expanduser(d) for d in (data_dir, manual_dir))
        source = read_tfds(os.fspath(name), validation_split, seed, *directories)

    height, width = size or source.image_shape[:2]
    channels = num_channels or source.image_shape[2]
    if num_channels and source.image_shape[2] not in (1, 3):
        raise ValueError(
            "`num_channels` turns images of 1 or 3 channels. "
            f"Received: num_channels={num_channels} for {source.image_shape[2]} channels"
        )
    crop = None
    if augmentation is not None:
        augmentation.check(height, width, channels)
        crop = augmentation.crop
    sizes_vary = height is None or width is None
    if sizes_vary and batch_size > 1 and crop is None:
        raise ValueError(
            "Images of different sizes make no batch. Pass `image_size=(height, width)`, `batch_size=1`, or "
            f"`augment` with a crop. Received: batch_size={batch_size}"
        )

    def examples(split: Split) -> tf.data.Dataset:
        return conform(split, size, channels)

    def evaluation(split: Split | None) -> tf.data.Dataset | None:
        if split is None:
            return None
        stored = examples(split)
        if cache:  # filled here: one that somebody has looked at and left half-way comes out short later
            stored = stored.cache()
            stored.reduce(tf.constant(0), lambda total, *_: total)
        return evaluation_batches(stored, 1 if sizes_vary else batch_size)

    num_train = min(source.train.count, limit or source.train.count)
    kept, validation = Split(source.train.examples.take(num_train), num_train), source.validation
    if fold:
        kept, validation = cut_fold(kept, *fold, by_label=source.task == "classification")
    return Data(
        train=training_batches(examples(kept), kept.count, batch_size, augmentation, seed, in_memory=cache),
        validation=evaluation(validation),
        test=evaluation(source.test),
        info=DataInfo(
            name=source.name,
            task=source.task,
            num_classes=len(source.class_names),
            class_names=source.class_names,
            # Trained on windows and tested on whole images: the model must take both.
            input_shape=(height, width, channels) if crop in (None, (height, width)) else (None, None, channels),
            num_train=kept.count,
            num_validation=validation.count if validation else 0,
            num_test=source.test.count if source.test else 0,
        ),
    )


def find_folder(name: str | os.PathLike) -> Path | None:
    """The folder, there or not, that a name means; None for a data set's: one that TFDS knows is no folder."""
    is_path = isinstance(name, os.PathLike) or (
        not is_known(name) and (os.path.isdir(name) or name.startswith(("~", ".")) or os.sep in name)
    )
    return Path(name).expanduser() if is_path else None


def _check_arguments(
    batch_size: int,
    seed: int,
    validation_split: float,
    size: tuple[int, int] | None,
    limit: int | None,
    num_channels: int | None,
) -> None:
    for argument, value in (("batch_size", batch_size), ("limit", limit)):
        if not (value is None and argument == "limit" or isinstance(value, int) and value > 0):
            raise ValueError(f"`{argument}` must be a positive int. Received: {argument}={value!r}")
    if not (isinstance(seed, int) and 0 <= seed < 2**32):
        raise ValueError(f"`seed` must be an int in [0, 2**32). Received: seed={seed!r}")
    if not 0 <= validation_split < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: validation_split={validation_split!r}")
    if size is not None and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise ValueError(
            f"`image_size` must be a positive int or two, (height, width). Received: image_size={size!r}"
        )
    if num_channels not in (None, 1, 3):
        raise ValueError(f"`num_channels` must be 1, 3 or None. Received: num_channels={num_channels!r}")
