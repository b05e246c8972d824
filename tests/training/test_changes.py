"""Elastic deformation, gamma, noise and blur: what they do, and that an image gets the same in any batch."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from dropzoo.training.data import changes
from dropzoo.training.data.augment import NUM_DRAWS, Augment, make_augment

SIZE = (16, 20)


def images(count: int = 4) -> tf.Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((count, *SIZE, 3)), (0, 1, 1, 0))
    return tf.constant(smooth.astype("float32"))


def draws(count: int = 4) -> tf.Tensor:
    return tf.random.stateless_uniform([count, NUM_DRAWS], (1, 2), -1.0, 1.0)


@pytest.mark.parametrize(
    "change", ["elastic=3", "gamma=0.5", "noise=0.2", "blur=1.5", "elastic=2,gamma=1,noise=0.1"]
)
def test_an_image_gets_the_same_change_in_any_batch(change):
    augment = make_augment(change)
    given, masks, numbers = images(), tf.cast(images()[..., 0] > 0.5, tf.int32), draws()
    whole = augment.apply_batch(given, masks, numbers)
    assert not np.allclose(whole[0], given, atol=1e-3)
    assert whole[0].shape == given.shape and 0 <= whole[0].numpy().min() and whole[0].numpy().max() <= 1
    for n in (0, 3):
        one = augment.apply_batch(given[n : n + 1], masks[n : n + 1], numbers[n : n + 1])
        for found, expected in zip(one, whole, strict=True):
            np.testing.assert_allclose(found[0], expected[n], atol=1e-6)
    if "elastic" not in change:
        np.testing.assert_array_equal(whole[1], masks)


def test_an_elastic_deformation_moves_the_mask_with_the_image():
    mask = tf.cast(images()[..., 0] > 0.5, tf.int32)
    image = tf.cast(mask, tf.float32)[..., None]
    bent, moved = changes.elastic(image, mask, changes.seeds_of(draws()), 3.0)
    assert 0.02 < np.mean(moved != mask) and np.mean((bent[..., 0] > 0.5) != (moved == 1)) < 0.05
    still, same = changes.elastic(image, mask, changes.seeds_of(draws()), 0.0)
    np.testing.assert_array_equal(still, image)
    np.testing.assert_array_equal(same, mask)


def test_a_blur_is_a_gaussian():
    seeds = changes.seeds_of(draws(1))
    sigma = 2.0 * float(changes.for_each(seeds, [1, 1, 1], 5, normal=False)[0, 0, 0, 0])
    found = changes.blur(images(1), seeds, 2.0)
    expected = ndimage.gaussian_filter(
        images(1).numpy(), (0, sigma, sigma, 0), mode="reflect", radius=(0, 6, 6, 0)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("spec", ["elastic=101", "gamma=3", "noise=1.5", "blur=-1"])
def test_amounts_out_of_range(spec):
    with pytest.raises(ValueError, match=f"`{spec.partition('=')[0]}` must be a number in"):
        make_augment(spec)


def test_the_older_changes_stay_as_they_were():
    given, masks = images(), tf.zeros((4, *SIZE), tf.int32)
    plain = Augment(rotation=20, brightness=0.1).apply_batch(given, masks, draws())
    also = Augment(rotation=20, brightness=0.1, noise=1e-9).apply_batch(given, masks, draws())
    np.testing.assert_allclose(plain[0], also[0], atol=1e-6)
