"""Random windows that show foreground more often than by chance."""

import tensorflow as tf

from dropzoo.training.data.changes import for_each


def foreground_pixels(
    masks: tf.Tensor, seeds: tf.Tensor, share: float, ignore_class: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a pixel of the foreground of each mask, and whether the window is to show it.

    Each class in a mask except class 0 is equally likely, and each pixel of a class too.

    Args:
        masks: Int tensor `(batch, height, width)`.
        seeds: The result of `changes.seeds_of`.
        share: Float in [0, 1], the fraction of the windows that are to show a pixel of the foreground.
        ignore_class: Int or None. A label that is not a class.

    Returns:
        The places `(batch, 2)`, float32 rows and columns; and bool `(batch,)`, which is false for a mask without
        foreground.

    Reference:
        Isensee et al., "nnU-Net: Self-adapting Framework for U-Net-Based Medical Image Segmentation", 2018,
        arXiv:1809.10486.
    """
    width = tf.shape(masks)[2]
    uniform = for_each(seeds, [2], 6, normal=False)  # (batch, 2)

    def one(mask_and_numbers: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        mask, numbers = mask_and_numbers
        labels = tf.reshape(mask, [-1])
        _, which, counts = tf.unique_with_counts(labels)
        counted = labels != 0 if ignore_class is None else (labels != 0) & (labels != ignore_class)
        odds = tf.where(counted, 1 / tf.cast(tf.gather(counts, which), tf.float64), 0)
        steps = tf.cumsum(odds)
        drawn = tf.cast(numbers[0], tf.float64) * steps[-1]
        place = tf.minimum(tf.searchsorted(steps, drawn[None], side="right")[0], tf.size(labels) - 1)
        return tf.cast(tf.stack([place // width, place % width]), tf.float32), steps[-1] > 0

    places, found = tf.map_fn(one, (masks, uniform), fn_output_signature=(tf.float32, tf.bool))
    return tf.ensure_shape(places, (None, 2)), found & (uniform[:, 1] < share)
