"""Batches as arrays, for the tests of the data sets."""

import numpy as np
import tensorflow as tf


def arrays(batches: tf.data.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def assert_equal(batches: list, others: list) -> None:
    assert len(batches) == len(others)
    for (images, labels), (other_images, other_labels) in zip(batches, others, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def images_of(batches: list) -> list[bytes]:
    """The images one by one, as something that can be sorted and compared."""
    return [image.tobytes() for images, _ in batches for image in images]
