"""From stored examples to batches, the same for all data sets."""

import dataclasses

import numpy as np
import tensorflow as tf

from dropzoo.training.data.augment import NUM_DRAWS, Augment
from dropzoo.training.data.images import grey_to_rgb

# The number of examples that are shuffled at a time if a data set is not held in memory.
_SHUFFLE_WINDOW = 10_000
_BITS = {tf.uint8: 8, tf.uint16: 16}


@dataclasses.dataclass(frozen=True)
class Split:
    """The stored examples of a split, `(image, label or mask)`, in a fixed order and not in batches."""

    examples: tf.data.Dataset
    count: int

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


def tail_count(count: int, fraction: float) -> int:
    """Returns the number of examples in the last `fraction` of `count`, rounded to the nearest."""
    return int(count * fraction + 0.5)


def cut_fold(split: Split, fold: int, folds: int, by_label: bool) -> tuple[Split, Split]:
    """Returns a split without part `fold` of `folds`, and that part, both in the stored order.

    The parts come from one fixed permutation. With `by_label`, each part holds each label as evenly as possible.
    """
    if not 2 <= folds <= split.count:
        raise ValueError(
            f"`folds` must be from 2 to the number of training images, {split.count}. Received: {folds}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"`fold` must be (k, folds), with k from 0 to {folds - 1}. Received: {(fold, folds)}")
    order = np.random.RandomState(0).permutation(split.count)
    if by_label:
        labels = np.array([int(label) for label in split.examples.map(lambda _, label: label)])
        order = order[np.argsort(labels[order], kind="stable")]
    is_cut = np.zeros(split.count, bool)
    is_cut[order[fold::folds]] = True

    return pick(split, ~is_cut), pick(split, is_cut)


def pick(split: Split, wanted: np.ndarray) -> Split:
    """Returns the examples for which `wanted`, a bool array `(count,)`, is true."""
    numbered = split.examples.enumerate().filter(lambda index, example: tf.gather(wanted, index))
    examples, size = numbered.map(lambda index, example: example), int(wanted.sum())
    return Split(examples.apply(tf.data.experimental.assert_cardinality(size)), size)


def conform(split: Split, size: tuple[int, int] | None, channels: int) -> tf.data.Dataset:
    """Returns the examples with images and masks of the wanted size and channels. Their dtypes do not change."""

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

    return split.examples.map(conform_one, num_parallel_calls=tf.data.AUTOTUNE)


def evaluation_batches(examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Returns batches of examples in their stored order."""
    return (
        examples.batch(batch_size).map(_as_numbers, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    )


def training_batches(
    examples: tf.data.Dataset,
    count: int,
    batch_size: int,
    augment: Augment | None,
    seed: int,
    in_memory: bool,
) -> tf.data.Dataset:
    """Returns a dataset that shuffles, augments and batches examples anew for each epoch.

    The order is a function of (seed, epoch), and the changes to an image are a function of (seed, epoch, index of
    the image). The first iteration over the dataset gives epoch 0, the second gives epoch 1, and so on; its
    `at_epoch(epoch)` returns a dataset of one epoch.
    """
    indexed = examples.enumerate()
    if in_memory:
        # The cache is made here, outside of all epochs, so that they share it. It is filled here, because a cache
        # that several iterators fill at once, as under a strategy, can come out short.
        indexed = indexed.cache()
        indexed.reduce(tf.constant(0), lambda total, _: total)

    # Images of several sizes must be cropped before they make a batch, so they are augmented one by one.
    one_size = all(indexed.element_spec[1][0].shape)

    def at_epoch(epoch: int | tf.Tensor) -> tf.data.Dataset:
        epoch = tf.cast(epoch, tf.int64)
        draws = tf.random.stateless_uniform([count, NUM_DRAWS], tf.stack([seed, epoch]), -1.0, 1.0)

        def finish(indices: tf.Tensor, examples: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = _as_numbers(*examples)
            if augment is None:
                return images, labels
            return augment.apply_batch(images, labels, tf.gather(draws, indices))

        window = count if in_memory else min(count, _SHUFFLE_WINDOW)
        order = _shuffle(indexed, window, seed, epoch)
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
    batches.bits = _BITS.get(examples.element_spec[0].dtype)
    return batches


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
