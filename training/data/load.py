"""Data sets by name or by folder, as seeded batches that can be repeated and resumed exactly."""

import math
import os
from collections.abc import Sequence

import tensorflow as tf

from dropzoo.common.checks import check_choice, check_count, check_pair, check_seed
from dropzoo.common.pixels import check_range
from dropzoo.training.data.augment import Augment, AugmentLike, make_augment
from dropzoo.training.data.cache import MOST_IN_MEMORY, MOST_OF_FILES, check_cache, keep, size_of
from dropzoo.training.data.dataset import Data, DataInfo
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.pipeline import (
    Source,
    Split,
    conform,
    cut_fold,
    evaluation_batches,
    first,
    training_batches,
)
from dropzoo.training.data.sources import read_source
from dropzoo.training.data.tfds import EMBEDDED


def list_data() -> list[str]:
    """Returns the names of the data sets that need neither internet access nor files.

    Example:
    >>> from dropzoo import training
    >>> training.list_data()
    ['digits', 'digit_scenes']
    """
    return list(EMBEDDED)


class SizesVary(ValueError):
    """The error for images of different sizes that would form a batch."""


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
    cache: bool | str = "auto",
    limit: int | None = None,
    num_channels: int | None = None,
    fold: tuple[int, int] | None = None,
    test_split: float | None = None,
    images: str | None = None,
    masks: str | None = None,
    mask_suffix: str | None = None,
    masks_as: str | None = None,
    ignore_class: int | None = None,
    class_names: Sequence[str] | str | None = None,
    split_file: str | os.PathLike | None = None,
    group_by: str | None = None,
    pages: str = "auto",
    value_range: tuple[float, float] | None = None,
    broken: str = "refuse",
    balance: bool = False,
) -> Data:
    """Loads a data set for classification or segmentation.

    The batches depend only on the arguments: two calls with the same arguments, including `seed`, give exactly the
    same epochs.

    A folder may have any usual layout:

    - `images/` and `masks/`, or folders of other names (see the arguments `images` and `masks`);
    - one folder for each class;
    - either of these within `train/`, `val/` and `test/`, or `train/` next to `trainannot/`;
    - one folder with `07.png` and `07_mask.png`;
    - images with a CSV of labels, masks or run lengths, or with a COCO JSON file;
    - one mask file for each object, as in `ID/images/ID.png` and `ID/masks/*.png`; the masks of an image are
      joined into one mask of two classes.

    If the folder has its own split, it is used. Otherwise, the last fifth of each class, or of all images with
    masks, is the test set. Files are read when they are needed.

    Args:
        name: `"digits"`, `"digit_scenes"`, a name of TFDS such as `"fashion_mnist"` or `"cifar10:3.*.*"`, or a
            folder of your own, which is preferred to a TFDS set of the same name.
        batch_size: Int above 0. If the images differ in size, validation and test batches have one image.
        augment: True (shift 0.1, rotation 10, brightness 0.1, contrast 0.1), text such as
            `"flip_horizontal,rotation=15,crop=128"`, a dict from arguments of `Augment` to values, or an
            `Augment`. False or None for no augmentation.
        seed: Int in [0, 2**32), for the order, the augmentation, and the validation images of a TFDS set.
        validation_split: Float in [0, 1). The fraction of the training images that are kept for validation. A TFDS
            set that has a validation split keeps its own.
        image_size: Int above 0, `(height, width)` or None, in pixels. Resizes all images to this size; None keeps
            their sizes.
        data_dir: Path of the folder in which TFDS keeps prepared sets; None for its default.
        manual_dir: Path of a folder with the original archives of a TFDS set, which replace a download. None
            downloads them.
        cache: Where decoded images stay: `"memory"` (or True), `"disk"` for images of the same size, or `"none"`
            (or False), which reads files again in each epoch. `"auto"` means `"memory"` if the images take up to
            128 MB (512 MB for a TFDS set), and otherwise `"none"`. If the images of a TFDS set differ in size,
            their bytes are estimated from those of the stored files.
        limit: Int above 0 or None. The number of training images to use, counted from the first; None for all.
        num_channels: 1, 3 or None. Converts RGB images to grey (1), or grey images to RGB (3); a folder may hold
            both.
        fold: `(k, folds)` or None, for cross-validation. The training images (after `limit`) are divided into
            `folds` parts, at least 2. For classification, each part has about the same share of every class. The
            parts do not depend on `seed`. Part k, counted from 0, is the validation set. It replaces
            `validation_split` and the data's own validation set.
        test_split: Float in [0, 1] or None. The fraction of test images in a folder without its own split; None
            means 0.2. In any folder, 1 makes all images test images.
        images: Folder or pattern of the images within the folder, such as `"**/*_sat.jpg"`. If None, `load_data`
            finds them by the layout of the folder.
        masks: Folder or pattern of the masks, such as `"gt"` or `"**/*_mask.png"`. If None, `load_data` finds them
            by the layout of the folder.
        mask_suffix: The text that the name of a mask adds to the name of its image, such as `"_seg"`. If None,
            `load_data` finds it in the names of the files.
        masks_as: The meaning of the values in masks. If None, masks may hold class ids, or only the values 0 and
            255 for two classes. If the values could mean something else, an error names the argument to pass.

            - `"ids"`: class ids.
            - `"instances"`: each object has its own number, file or row. Every number except 0 is foreground, and
              `dropzoo evaluate --per object` scores each object separately.
            - `"threshold"` or `"threshold=128"`: grey masks of two classes. Pixels above the threshold are
              foreground. Without a number, the threshold is 127 for masks of 8 bits, and half of the largest
              value for others; in masks of only 0 and 1, the pixels of 1 are foreground.
            - `"palette"`: colours, one for each class. `"palette=FILE"` names a file with a line
              `red,green,blue,name` for each class.
            - `"alpha"`: shapes in the alpha channel. Opaque pixels are foreground.
        ignore_class: Int or None. The label of pixels that losses and metrics ignore, such as 255 (void).
        class_names: The names of the classes: a sequence, comma-separated text, or a file with one name per line.
            None takes the names of class folders, or reads a file such as `classes.txt` next to the masks.
        split_file: Path of a CSV file with a row for each image, and some of the columns `file`, `label`, `mask`,
            `split` and `group`. None uses the layout of the folder.
        group_by: Str or None. A regular expression for the paths of images, such as `"patient\\d+"`, or a column
            of `split_file`. Images of one group stay in one split and one fold.
        pages: The meaning of the pages of TIFF stacks: `"images"`, `"channels"`, or `"auto"`, which takes the
            meaning that the file states.
        value_range: `(low, high)` or None. The stored values that become 0 and 1; values beyond them are clipped.
            It is needed for floats beyond [0, 1], and for integers other than uint8 and uint16.
        broken: `"refuse"` raises an error that names the files that cannot be read; `"skip"` first decodes all
            files, and leaves out those that cannot be read, with a warning.
        balance: Bool, for classification. Whether all classes are about equally frequent in an epoch. An epoch
            then has as many images as the training set, but they are drawn at random: images of rare classes occur
            several times, and some images of frequent classes do not occur.

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
    if test_split is not None and not 0 <= test_split <= 1:
        raise ValueError(f"`test_split` must be in [0, 1]. Received: test_split={test_split!r}")
    augmentation, cache = make_augment(augment), check_cache(cache)
    reading = Reading(
        images=images,
        masks=masks,
        split_file=None if split_file is None else os.fspath(split_file),
        mask_suffix=mask_suffix,
        masks_as=masks_as,
        ignore_class=ignore_class,
        class_names=class_names,
        group_by=group_by,
        pages=pages,
        value_range=None if value_range is None else check_range(value_range, "value_range"),
        broken=broken,
        validation_split=0 if fold else validation_split,
        test_split=test_split,
        num_channels=num_channels,
    )
    source = read_source(name, reading, seed, data_dir, manual_dir)
    height, width, channels = _shape(source, size, num_channels)
    sizes_vary = height is None or width is None
    crop = _crop(augmentation, height, width, channels, source.task == "segmentation")
    if sizes_vary and batch_size > 1 and crop is None:
        raise SizesVary(
            "Images of different sizes cannot form a batch. Pass `image_size=(height, width)` (--image-size), "
            "`batch_size=1` (--batch-size), or `augment` with a crop (--augment crop=128). Received: "
            f"batch_size={batch_size}"
        )
    train, validation = _training_splits(source, limit, fold)
    parts = [each and conform(each, size, channels) for each in (train, validation, source.test)]
    kept = _kept(parts, cache, source, f"{limit} {fold}")

    def evaluation(split: Split | None) -> tf.data.Dataset | None:
        if split is None:
            return None
        found = evaluation_batches(split, 1 if sizes_vary else batch_size)
        found.check_files = source.check
        return found

    if balance and source.task != "classification":
        raise ValueError(
            "balance=True (--balance sampling) is for class labels of images. For masks, pass `class_weight` to "
            "`fit`; or use dropzoo train --balance weights"
        )
    batches = training_batches(kept[0] or train, batch_size, augmentation, seed, balance, source.ignore_class)
    batches.as_stored = lambda: evaluation(kept[0])
    batches.check_files = source.check
    batches.ignore_class, batches.value_range = source.ignore_class, reading.value_range
    # The model trains on windows and is tested on whole images: it must take both.
    shape = (height, width, channels) if crop in (None, (height, width)) else (None, None, channels)
    return Data(
        train=batches,
        validation=evaluation(kept[1]),
        test=evaluation(kept[2]),
        info=_info(source, (train, validation, source.test), shape),
        summary=source.summary,
    )


def _info(source: Source, parts: Sequence[Split | None], shape: tuple[int | None, int | None, int]) -> DataInfo:
    """Returns the facts about a data set, from its splits and the shape of the images that the model gets."""
    train, validation, test = (0 if part is None else part.count for part in parts)
    return DataInfo(
        name=source.name,
        task=source.task,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        input_shape=shape,
        num_train=train,
        num_validation=validation,
        num_test=test,
        bits=source.train.bits,
        ignore_class=source.ignore_class,
    )


def _kept(parts: list[Split | None], cache: str, source: Source, cut: str) -> list[Split | None]:
    """Returns the splits, decoded once if that is wanted; an error names the files that cannot be decoded.

    `cut` is text that says which part of the training images is which split.
    """
    if cache == "auto":
        # The sum of several sizes is not known before the images are read, so the source has an estimate.
        size = sum(size_of(part) for part in parts)
        # Files can be read in any order, and quickly; the examples of TFDS cannot.
        most = MOST_IN_MEMORY if source.summary is None else MOST_OF_FILES
        cache = "memory" if size <= most or (size == math.inf and not source.is_large) else "none"
    try:
        key = f"{source.name} {source.key()} {cut}" if cache == "disk" else ""
        return [part and keep(part, cache, f"{key} {n}") for n, part in enumerate(parts)]
    except tf.errors.OpError:
        source.check()
        raise


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


def _shape(
    source: Source, size: tuple[int, int] | None, num_channels: int | None
) -> tuple[int | None, int | None, int]:
    """Returns the height, width and channels of the images that the model gets."""
    height, width, channels = source.image_shape
    if num_channels and channels not in (1, 3):
        raise ValueError(
            "`num_channels` (--channels) can only convert images that have 1 or 3 channels. Received: images with "
            f"{channels} channels. Leave it out"
        )
    return *(size or (height, width)), num_channels or channels


def _crop(
    augmentation: Augment | None, height: int | None, width: int | None, channels: int, masks: bool
) -> tuple[int, int] | None:
    """Returns the size of the windows to train on, or None; checks that the augmentation suits the images."""
    if augmentation is None:
        return None
    augmentation.check(height, width, channels, masks)
    return augmentation.crop if isinstance(augmentation.crop, tuple) else None


def _training_splits(
    source: Source, limit: int | None, fold: tuple[int, int] | None
) -> tuple[Split, Split | None]:
    """Returns the images to train on and to validate on."""
    train = first(source.train, min(source.train.count, limit or source.train.count))
    return cut_fold(train, *fold, by_label=source.task == "classification") if fold else (train, source.validation)
