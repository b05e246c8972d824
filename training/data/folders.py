"""Data sets from folders of image files: `images/` with `masks/`, or one folder for each class."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dropzoo.training.data.images import IMAGE_SUFFIXES, read_images, read_mask
from dropzoo.training.data.pipeline import Source, Split, tail_count

TEST_FRACTION = 0.2


def read_folder(folder: Path, validation_split: float, num_channels: int | None = None) -> Source:
    """Reads all images of a folder into memory, and so checks each of them.

    Files are in the order of their names. The last fifth (of each class) is the test set, and the last fraction
    `validation_split` of the others is the validation set.

    Args:
        folder: Folder with `images/` and `masks/`, or with one folder for each class.
        validation_split: Float in [0, 1).
        num_channels: 1, 3 or None. The number of channels of all images if grey and RGB images are mixed.

    Raises:
        ValueError: If a file cannot be read, files do not fit together, or no training image is left.
    """
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}. Expected images/ and masks/, or one folder a class")
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        task = "segmentation"
        images, labels, class_names = _images_and_masks(folder, num_channels)
        groups = [list(range(len(images)))]
    else:
        task = "classification"
        images, labels, class_names = _classes(folder, num_channels)
        groups = [[n for n, label in enumerate(labels) if label == c] for c in range(len(class_names))]

    def split(places: list[int]) -> Split | None:
        return _in_memory([images[n] for n in places], [labels[n] for n in places]) if places else None

    rest, test = _cut_tails(groups, TEST_FRACTION)
    rest, validation = _cut_tails(rest, validation_split)
    training = split(_alternate(rest))
    if training is None:
        raise ValueError(f"No training image is left in {folder}. Received: validation_split={validation_split}")
    return Source(
        name=Path(os.path.abspath(folder)).name,  # also for "."
        task=task,
        class_names=class_names,
        image_shape=_common_shape(images),
        train=training,
        validation=split(_alternate(validation)),
        test=split(_alternate(test)),
    )


def _images_and_masks(
    folder: Path, num_channels: int | None
) -> tuple[list[np.ndarray], list[np.ndarray], tuple[str, ...]]:
    """Returns the images, their masks and the names of the classes, which are numbers."""
    pairs = _pair(_list_images(folder / "images"), _list_images(folder / "masks"))
    images = read_images([image for image, _ in pairs], num_channels)
    masks = [read_mask(mask) for _, mask in pairs]
    for (path, mask_path), image, mask in zip(pairs, images, masks, strict=True):
        if image.shape[:2] != mask.shape[:2]:
            raise ValueError(
                f"A mask must have its image's height and width. Received: {path} of {_size(image)} with "
                f"{mask_path} of {_size(mask)}"
            )
    labels, num_classes = _class_ids(masks, [mask for _, mask in pairs])
    return images, labels, tuple(str(number) for number in range(num_classes))


def _classes(folder: Path, num_channels: int | None) -> tuple[list[np.ndarray], list[np.ndarray], tuple[str, ...]]:
    """Returns the images, their labels and the names of the classes, which are those of the folders."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"Expected images/ and masks/, or at least two class folders, in {folder}")
    files = [_list_images(each) for each in folders]
    images = read_images([path for paths in files for path in paths], num_channels)
    labels = [np.array(number, np.int32) for number, paths in enumerate(files) for _ in paths]
    return images, labels, tuple(path.name for path in folders)


def _list_images(folder: Path) -> list[Path]:
    paths = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not paths:
        raise ValueError(f"No images in {folder}. Expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def _pair(images: list[Path], masks: list[Path]) -> list[tuple[Path, Path]]:
    """Returns each image with the mask of the same name, or raises a ValueError that names the unpaired files."""
    for paths in (images, masks):
        stems = [path.stem for path in paths]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(
                f"Names must differ by more than their endings. Received in {paths[0].parent}: {_some(twice)}"
            )
    by_stem = {mask.stem: mask for mask in masks}
    alone = sorted(image.name for image in images if image.stem not in by_stem)
    spare = sorted(by_stem.keys() - {image.stem for image in images})
    if alone or spare:
        parts = [f"images without a mask: {_some(alone)}"] * bool(alone)
        parts += [f"masks without an image: {_some([by_stem[stem].name for stem in spare])}"] * bool(spare)
        raise ValueError(
            f"Each image needs a mask of the same name, up to the ending. Received {'; '.join(parts)}"
        )
    return [(image, by_stem[image.stem]) for image in images]


def _class_ids(masks: list[np.ndarray], paths: list[Path]) -> tuple[list[np.ndarray], int]:
    """Returns the masks as class ids and the number of classes; black and white (0 and 255) become 0 and 1."""
    found = [np.unique(mask) for mask in masks]
    values = np.unique(np.concatenate(found))
    foregrounds = {int(each[-1]): path for each, path in zip(found, paths, strict=True) if each[-1]}
    if len(foregrounds) > 1 and foregrounds.keys() <= {1, 255, 65535} and all((v[:-1] == 0).all() for v in found):
        stored = " and ".join(f"0 and {value} in {path}" for value, path in sorted(foregrounds.items()))
        raise ValueError(
            f"Masks of two classes must all be stored alike, as 0 and 1 or as 0 and 255. Received: {stored}. "
            "Store them anew"
        )
    if values[-1] in (255, 65535) and not values[:-1].any():
        return [(mask > 0).astype(np.uint8) for mask in masks], 2
    if values[-1] == 255 and 0 < values[-2] < 254:
        warnings.warn(
            f"Masks hold ids up to {values[-2]}, and 255: they are taken as 256 classes. If 255 marks pixels to "
            f"ignore, build the model in Python, with num_classes={values[-2] + 1}, and pass ignore_class=255 to "
            "its loss and metrics",
            stacklevel=6,
        )
    dtype = np.uint8 if values[-1] < 256 else np.int32
    return [mask.astype(dtype) for mask in masks], max(int(values[-1]) + 1, 2)


def _cut_tails(groups: list[list[int]], fraction: float) -> tuple[list[list[int]], list[list[int]]]:
    """Returns the groups without their last `fraction`, and the parts that were cut off."""
    cuts = [len(group) - tail_count(len(group), fraction) for group in groups]
    return (
        [group[:cut] for group, cut in zip(groups, cuts, strict=True)],
        [group[cut:] for group, cut in zip(groups, cuts, strict=True)],
    )


def _alternate(groups: list[list[int]]) -> list[int]:
    """Returns one item of each group in turn, so that the first few training images contain all classes."""
    longest = max(len(group) for group in groups)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)]


def _in_memory(images: list[np.ndarray], labels: Sequence[np.ndarray]) -> Split:
    shape = _common_shape(images)
    specs = (
        tf.TensorSpec(shape, images[0].dtype),
        tf.TensorSpec(_common_shape(labels) if labels[0].ndim else (), labels[0].dtype),
    )
    examples = tf.data.Dataset.from_generator(lambda: zip(images, labels, strict=True), output_signature=specs)
    return Split(examples.apply(tf.data.experimental.assert_cardinality(len(images))), len(images))


def _common_shape(arrays: Sequence[np.ndarray]) -> tuple[int | None, int | None, int]:
    """Returns (height, width, channels), with None where the sizes differ."""
    shapes = {array.shape[:2] for array in arrays}
    height, width = shapes.pop() if len(shapes) == 1 else (None, None)
    return height, width, arrays[0].shape[2]


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
