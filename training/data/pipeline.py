"""Turns stored examples into batches, in the same way for all data sets."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from dropzoo.training.data.augment import NUM_DRAWS, Augment
from dropzoo.training.data.files.splits import fold_of
from dropzoo.training.data.files.summary import Summary
from dropzoo.training.data.images import grey_to_rgb

# The number of examples that are shuffled at a time if a data set is not held in memory.
_SHUFFLE_WINDOW = 10_000
_BITS = {tf.uint8: 8, tf.uint16: 16}


#: Marks a function that a dataset traces. There is nothing to convert, and the search takes time in each epoch.
as_written = tf.autograph.experimental.do_not_convert

#: A function from a place, or from several, to the example there, or to a batch.
Read: TypeAlias = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Split:
    """The stored examples of a split, `(image, label or mask)`, in a fixed order and not in batches.

    Attributes:
        examples: The dataset of the examples.
        count: Int, their number.
        read: Function from a place, counted from 0, to the example there; None if the examples can only be read in
            order.
        gather: Function from several places to a batch, for examples that are held as arrays; or None.
        in_memory: Bool. Whether the examples are in memory, so that any order costs nothing.
        labels: The class of each example, if that is known without reading it.
        groups: The group of each example; examples of one group stay together in a fold.
    """

    examples: tf.data.Dataset
    count: int
    read: Read | None = None
    gather: Read | None = None
    in_memory: bool = False
    labels: np.ndarray | None = None
    groups: tuple[str, ...] = ()

    @property
    def bits(self) -> int | None:
        """The bits of a pixel of the stored images, 8 or 16; None for floats."""
        return _BITS.get(self.examples.element_spec[0].dtype)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set before any processing, from a folder or from TFDS."""

    name: str
    task: str  # "classification" or "segmentation"
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int]
    train: Split
    validation: Split | None
    test: Split | None
    ignore_class: int | None = None
    summary: Summary | None = None
    #: Raises the error that names the files that cannot be read, if there are any.
    check: Callable[[], None] = lambda: None
    #: Returns text that is the same for the same examples in the same splits.
    key: Callable[[], str] = lambda: ""
    #: Whether images of several sizes may be too many for memory.
    is_large: bool = False


def cut_fold(split: Split, fold: int, folds: int, by_label: bool) -> tuple[Split, Split]:
    """Returns a split without part `fold` of `folds`, and that part, both in the stored order.

    The parts come from one fixed permutation. With `by_label`, each part holds each label as evenly as possible.
    Groups stay whole.
    """
    if not 2 <= folds <= split.count:
        raise ValueError(
            f"`folds` must be from 2 to the number of training images, {split.count}. Received: {folds}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"`fold` must be (k, folds), with k from 0 to {folds - 1}. Received: {(fold, folds)}")
    labels = np.zeros(split.count, np.int64)
    if by_label:
        known = split.examples.map(lambda _, label: label) if split.labels is None else split.labels
        labels = np.array([int(label) for label in known])
    if any(split.groups):
        is_cut = fold_of(labels, split.groups, folds) == fold
    else:
        order = np.random.RandomState(0).permutation(split.count)
        order = order[np.argsort(labels[order], kind="stable")]
        is_cut = np.zeros(split.count, bool)
        is_cut[order[fold::folds]] = True
    return pick(split, ~is_cut), pick(split, is_cut)


def first(split: Split, count: int) -> Split:
    """Returns the first `count` examples."""
    return pick(split, np.arange(split.count) < count) if count < split.count else split


def pick(split: Split, wanted: np.ndarray) -> Split:
    """Returns the examples for which `wanted`, a bool array `(count,)`, is true."""
    size = int(wanted.sum())
    if split.read is None:
        numbered = split.examples.enumerate().filter(as_written(lambda index, _: tf.gather(wanted, index)))
        examples = numbered.map(as_written(lambda _, example: example))
        return Split(examples.apply(tf.data.experimental.assert_cardinality(size)), size)
    places, read = tf.constant(np.flatnonzero(wanted)), split.read
    labels = None if split.labels is None else split.labels[wanted]
    groups = tuple(group for group, kept in zip(split.groups, wanted, strict=True) if kept) if split.groups else ()
    return numbered_split(lambda place: read(tf.gather(places, place)), size, labels, groups)


def numbered_split(
    read: Read, count: int, labels: np.ndarray | None = None, groups: tuple[str, ...] = ()
) -> Split:
    """Returns the split of examples that can be read in any order."""
    read = as_written(read)
    examples = tf.data.Dataset.range(count).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return Split(examples, count, read, labels=labels, groups=groups)


def conform(split: Split, size: tuple[int, int] | None, channels: int) -> Split:
    """Returns the examples with images and masks of the wanted size and channels. Their dtypes do not change."""

    @as_written
    def conform_one(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if image.shape[-1] != channels:
            image = tf.image.rgb_to_grayscale(image) if channels == 1 else grey_to_rgb(image)
        if size is not None:
            dtype, resized = image.dtype, tf.image.resize(image, size, antialias=True)
            image = tf.saturate_cast(tf.round(resized), dtype) if dtype.is_integer else resized
        if label.shape.rank:
            label = tf.image.resize(label, size or tf.shape(image)[:2], method="nearest")  # (height, width, 1)
            label = tf.ensure_shape(label[..., 0], image.shape[:2])
        return image, label

    if split.read is None:
        return Split(split.examples.map(conform_one, num_parallel_calls=tf.data.AUTOTUNE), split.count)
    read = split.read
    return numbered_split(lambda place: conform_one(*read(place)), split.count, split.labels, split.groups)


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Returns batches of examples in their stored order."""
    if split.gather is not None:
        gather = split.gather
        places = tf.data.Dataset.range(split.count).batch(batch_size)
        read = as_written(lambda place: _as_numbers(*gather(place)))
        batches = places.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = split.examples.batch(batch_size).map(
            as_written(_as_numbers), num_parallel_calls=tf.data.AUTOTUNE
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def training_batches(
    split: Split,
    batch_size: int,
    augment: Augment | None,
    seed: int,
    balance: bool = False,
    ignore_class: int | None = None,
) -> tf.data.Dataset:
    """Returns a dataset that shuffles, augments and batches examples again for each epoch.

    The order is a function of (seed, epoch), and the changes to an image are a function of (seed, epoch, index of
    the image). The first iteration over the dataset gives epoch 0, the second gives epoch 1, and so on; its
    `at_epoch(epoch)` returns a dataset of one epoch. With `balance`, an epoch has as many examples as the split,
    drawn equally often from each class.
    """
    if balance:
        split = _in_any_order(split)
    odds = tf.constant(_odds(split), tf.float32) if balance else None
    count, spec = split.count, split.examples.element_spec
    # Images of several sizes must be cropped before they make a batch, so they are augmented one by one.
    one_size = all(spec[0].shape)

    # Traced once, and not in each epoch, which takes a second for many changes.
    @tf.function(autograph=False, reduce_retracing=True)
    def changed(images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _as_numbers(images, labels)
        return (images, labels) if augment is None else augment.apply_batch(images, labels, draws, ignore_class)

    @as_written
    def at_epoch(epoch: int | tf.Tensor) -> tf.data.Dataset:
        epoch = tf.cast(epoch, tf.int64)
        draws = tf.random.stateless_uniform([count, NUM_DRAWS], tf.stack([seed, epoch]), -1.0, 1.0)

        def finish(indices: tf.Tensor, examples: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return changed(*examples, tf.gather(draws, indices))

        if split.gather is not None and one_size:
            gather = split.gather
            places = _places(count, seed, epoch, odds)
            if odds is None:
                batches = places.batch(batch_size).map(
                    lambda place: finish(place, gather(place)), num_parallel_calls=tf.data.AUTOTUNE
                )
            else:
                batches = places.enumerate().batch(batch_size)
                batches = batches.map(lambda n, p: finish(n, gather(p)), num_parallel_calls=tf.data.AUTOTUNE)
            return batches.prefetch(tf.data.AUTOTUNE)
        order = _in_order_of(split, seed, epoch, odds)
        if one_size or augment is None:
            batches = order.batch(batch_size).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            ones = order.batch(1).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
            batches = ones.unbatch().batch(batch_size)
        return batches.prefetch(tf.data.AUTOTUNE)

    with tf.device("CPU:0"):  # datasets run there
        next_epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    epochs = tf.data.Dataset.from_tensors(0).map(lambda _: next_epoch.assign_add(1) - 1)
    num_batches = -(-count // batch_size)
    batches = epochs.flat_map(at_epoch).apply(tf.data.experimental.assert_cardinality(num_batches))
    batches.at_epoch = at_epoch
    # `Trainer` keeps these facts about the images with the model.
    batches.input_range = (0.0, 1.0)
    batches.bits = split.bits
    return batches


def _in_order_of(split: Split, seed: int, epoch: tf.Tensor, odds: tf.Tensor | None) -> tf.data.Dataset:
    """Returns the examples of an epoch, numbered; a split that can be read in any order is not buffered."""
    if split.read is not None and (not split.in_memory or odds is not None):
        read = split.read
        places = _places(split.count, seed, epoch, odds)
        if odds is None:
            return places.map(lambda place: (place, read(place)), num_parallel_calls=tf.data.AUTOTUNE)
        return places.enumerate().map(lambda n, place: (n, read(place)), num_parallel_calls=tf.data.AUTOTUNE)
    window = split.count if split.in_memory else min(split.count, _SHUFFLE_WINDOW)
    return _shuffle(split.examples.enumerate(), window, seed, epoch)


def _places(count: int, seed: int, epoch: tf.Tensor, odds: tf.Tensor | None) -> tf.data.Dataset:
    """Returns the places of an epoch: each once, or drawn by their odds.

    An image that is drawn twice gets other random changes each time, so these go by its number in the epoch.
    """
    if odds is None:
        return _shuffle(tf.data.Dataset.range(count), count, seed, epoch)
    steps = tf.cumsum(odds)
    drawn = tf.random.stateless_uniform([count], tf.stack([seed + 1, epoch]), 0, steps[-1])
    places = tf.minimum(tf.searchsorted(steps, drawn, out_type=tf.int64), count - 1)
    return tf.data.Dataset.from_tensor_slices(places)


def _odds(split: Split) -> np.ndarray:
    """Returns the odds of each example by which all classes are drawn equally often."""
    labels = np.zeros(split.count) if split.labels is None else split.labels
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / counts[classes]


def _in_any_order(split: Split) -> Split:
    """Returns a split that can be read in any order, with its labels; others are read into memory."""
    if split.read is not None and split.labels is not None:
        return split
    spec, _ = split.examples.element_spec
    stored = list(split.examples.as_numpy_iterator())  # a list, since the sizes of images may differ
    labels = np.array([label for _, label in stored])

    def read(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.numpy_function(lambda number: stored[number][0], [place], spec.dtype, stateful=False)
        image.set_shape(spec.shape)
        return image, tf.gather(labels, place)

    return numbered_split(read, split.count, labels)


def _as_numbers(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns images as float32 in [0, 1], and labels and masks as int32."""
    scale = image.dtype.max if image.dtype.is_integer else 1
    return tf.cast(image, tf.float32) / scale, tf.cast(label, tf.int32)


def _shuffle(examples: tf.data.Dataset, window: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Shuffles by (seed, epoch) alone; `Dataset.shuffle` also uses the global seed."""
    components = tf.nest.flatten(examples.element_spec)
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(examples),
        buffer_size=window,
        seed=seed,
        seed2=epoch + 1,  # two zeros would mean a random seed
        output_types=[component.dtype for component in components],
        output_shapes=[component.shape for component in components],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(shuffled, examples.element_spec)
