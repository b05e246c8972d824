"""Data sets of TensorFlow Datasets, prepared once and without waiting for hosts that cannot be reached."""

import contextlib
import io
import re
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dropzoo.common.checks import did_you_mean
from dropzoo.common.seeds import random_untouched
from dropzoo.training.data import digits
from dropzoo.training.data.cache import MOST_IN_MEMORY
from dropzoo.training.data.files.splits import tail_count
from dropzoo.training.data.files.table import SPLITS
from dropzoo.training.data.pipeline import Source, Split, as_written, pick

#: How many bytes of a decoded image a byte of a stored image becomes, roughly: of a JPEG, and of a PNG.
_OF_JPEG, _OF_PNG = 8, 2

EMBEDDED = [digits.Digits.name, digits.DigitScenes.name]


def is_known(name: str) -> bool:
    """Returns whether "name", "name:version" or "name/config" names a data set of TFDS."""
    return re.split("[:/]", name)[0] in _names()


def read_tfds(
    name: str, validation_split: float, seed: int, data_dir: str | None, manual_dir: str | None
) -> Source:
    """Returns the splits of a TFDS set. Without a validation split, one is drawn from the training images."""
    builder = _prepared(name, data_dir, manual_dir)
    splits = builder.info.splits
    image_key, label_key = _image_and_label(builder)

    def split(key: str) -> Split:
        # The order on disk is fixed; `load_data` decides whether to cache.
        config = tfds.ReadConfig(try_autocache=False)
        examples = builder.as_dataset(split=key, shuffle_files=False, read_config=config)
        pairs = examples.map(as_written(lambda example: (example[image_key], example[label_key])))
        return Split(pairs, splits[key].num_examples)

    train = split("train")
    validation = split("validation") if "validation" in splits else None
    test = split("test") if "test" in splits else None
    label = builder.info.features[label_key]
    if isinstance(label, tfds.features.ClassLabel | tfds.features.LabeledImage) and label.num_classes:
        class_names = label.names
    else:
        lowest, highest = _mask_range(train)
        first = 1 if lowest == 1 else 0  # some sets count their classes from 1
        train = _lowered(train, first)
        validation = validation and _lowered(validation, first)
        test = test and _lowered(test, first)
        class_names = [str(value) for value in range(first, max(highest, first + 1) + 1)]
    if validation is None:
        train, validation = _divide(train, validation_split, seed)
    return Source(
        name=builder.info.name,
        task="classification" if isinstance(label, tfds.features.ClassLabel) else "segmentation",
        class_names=tuple(class_names),
        image_shape=builder.info.features[image_key].shape,
        train=train,
        validation=validation,
        test=test,
        key=lambda: f"{builder.info.full_name} {builder.data_path} {validation_split} {seed}",
        is_large=_decoded_bytes(builder, image_key) > MOST_IN_MEMORY,
    )


def _decoded_bytes(builder: tfds.core.DatasetBuilder, image_key: str) -> int:
    """Returns roughly how many bytes the decoded images of the splits that are read have."""
    stored = sum(int(builder.info.splits[key].num_bytes) for key in SPLITS if key in builder.info.splits)
    is_png = getattr(builder.info.features[image_key], "encoding_format", None) == "png"
    return stored * (_OF_PNG if is_png else _OF_JPEG)


def _image_and_label(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the features to train on."""
    features, splits = dict(builder.info.features), builder.info.splits
    keys: tuple[str, ...] = builder.info.supervised_keys or ()
    if "image" in features and "segmentation_mask" in features:
        keys = ("image", "segmentation_mask")
    is_image = len(keys) == 2 and isinstance(features[keys[0]], tfds.features.Image)
    is_label = is_image and isinstance(features[keys[1]], tfds.features.ClassLabel | tfds.features.LabeledImage)
    if not is_label and "segmentation_mask" not in keys:
        raise ValueError(
            "A data set needs images with a class `label` or a `segmentation_mask`. "
            f"Received: '{builder.name}' with {', '.join(features)}"
        )
    if "train" not in splits:
        raise ValueError(f"A data set needs a 'train' split. Received: '{builder.name}' with {list(splits)}")
    return keys[0], keys[1]


def _prepared(name: str, data_dir: str | None, manual_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set, prepared on disk."""
    builder = _find(name, data_dir)
    if _is_prepared(builder):
        return builder
    _check_files(builder, manual_dir)
    # TFDS names its temporary folder by Python's global random state, so two runs of one seed would write into the
    # same folder. Therefore each run prepares in its own folder, and the first run to finish moves it into place.
    root, target = Path(builder.data_dir_root), Path(builder.data_path)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="incomplete.") as scratch:
        staged = _find(name, scratch)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
        # The output of TFDS names the temporary folder. Downloads keep their progress bar, on stderr.
        quiet = io.StringIO()
        errors = quiet if builder.name in EMBEDDED else sys.stderr
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(errors), random_untouched():
            staged.download_and_prepare(download_dir=root / "downloads", download_config=config)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            Path(staged.data_path).rename(target)
        except OSError:
            if not _is_prepared(builder):
                raise
    return _find(name, data_dir)


def _find(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set, or raises a ValueError that suggests the closest names."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        hint = did_you_mean(re.split("[:/]", name)[0], sorted({*EMBEDDED, *_names()}))
        raise ValueError(
            f"Unknown data set '{name}'.{hint} Available: {', '.join(EMBEDDED)}, the names of TensorFlow Datasets "
            "(`tfds.list_builders()`), and folders"
        ) from None
    except AssertionError as error:  # a version that TFDS does not know
        raise ValueError(str(error)) from None


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return (Path(builder.data_path) / "dataset_info.json").exists()


def _check_files(builder: tfds.core.DatasetBuilder, manual_dir: str | None) -> None:
    """Raises a ValueError at once if TFDS would try for minutes to reach a host without success."""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        raise ValueError(
            f"Data set '{builder.name}' must be downloaded by hand: put its files in a folder and pass it as "
            f"`manual_dir` (--manual-dir). {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    files = {url: info.filename for url, info in (builder.url_infos or {}).items()}
    missing = {url: file for url, file in files.items() if not (manual_dir and (Path(manual_dir) / file).exists())}
    # A set with several configurations lists the files of all of them, and needs only some.
    some_suffice = bool(builder.BUILDER_CONFIGS) and len(missing) < len(files)
    if missing and not some_suffice and not _can_reach(next(iter(missing))):
        where = f" in {manual_dir}" if manual_dir else ""
        raise ValueError(
            f"Data set '{builder.name}' is not prepared in {builder.data_dir_root}, and its host cannot be "
            f"reached. Missing files{where}: {', '.join(missing.values())}. Download them elsewhere under these "
            "names, and pass their folder as `manual_dir` (--manual-dir)"
        )


def _can_reach(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (405, 501)  # the host is there, but does not answer HEAD
    except (OSError, ValueError):
        return False


def _mask_range(split: Split) -> tuple[int, int]:
    """Returns the lowest and the highest value of all masks; reads the whole split."""

    def widen(state: tuple[tf.Tensor, tf.Tensor], example: tuple[tf.Tensor, tf.Tensor]) -> tuple:
        mask = tf.cast(example[1], tf.int32)
        return tf.minimum(state[0], tf.reduce_min(mask)), tf.maximum(state[1], tf.reduce_max(mask))

    lowest, highest = split.examples.reduce((tf.int32.max, 0), widen)
    return int(lowest), int(highest)


def _lowered(split: Split, first: int) -> Split:
    """Returns a split whose masks count from 0 instead of `first`."""
    return Split(split.examples.map(lambda image, mask: (image, mask - tf.cast(first, mask.dtype))), split.count)


def _divide(split: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Returns a split without a fraction of its examples, and a split of these; `seed` chooses them."""
    count = tail_count(split.count, fraction)
    if count == 0:
        return split, None
    if count == split.count:
        raise ValueError(f"No training image is left. Received: validation_split={fraction}. Pass a smaller one")
    is_kept_out = np.zeros(split.count, bool)
    is_kept_out[np.random.RandomState(seed).permutation(split.count)[-count:]] = True
    return pick(split, ~is_kept_out), pick(split, is_kept_out)


def _names() -> list[str]:
    # Listing the sets of the community would need the network, even for "digits".
    return tfds.list_builders(with_community_datasets=False)
