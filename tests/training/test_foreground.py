"""Windows around the foreground: how often, of which class, and where."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo.training.data.augment import NUM_DRAWS, Augment, make_augment

# One image in many copies: 3 pixels of class 1, 30 of class 2, void around them.
MASK = np.zeros((40, 50), "int32")
MASK[4, 6:9] = 1
MASK[30:33, 20:30] = 2
MASK[0] = 255


def windows(augment: Augment, count: int = 300, mask: np.ndarray = MASK, ignore_class: int | None = 255):
    masks = tf.constant(np.repeat(mask[None], count, 0))
    images = tf.cast(masks, tf.float32)[..., None] / 255
    draws = tf.random.stateless_uniform([count, NUM_DRAWS], (1, 2), -1.0, 1.0)
    return tuple(part.numpy() for part in augment.apply_batch(images, masks, draws, ignore_class))


def share_of(masks: np.ndarray, label: int) -> float:
    return float((masks == label).any((1, 2)).mean())


@pytest.mark.costly(keep=0)
def test_each_class_is_in_the_wanted_share_of_the_windows():
    anywhere = windows(Augment(crop=8))[1]
    assert share_of(anywhere, 1) < 0.15 and share_of(anywhere, 2) < 0.25
    always = windows(Augment(crop=8, foreground=1.0))[1]
    assert (share_of(always, 1) + share_of(always, 2)) == pytest.approx(1, abs=0.01)
    assert share_of(always, 1) == pytest.approx(0.5, abs=0.1)
    some = windows(Augment(crop=8, foreground=0.4))
    assert share_of(some[1], 1) + share_of(some[1], 2) > 0.4
    np.testing.assert_array_equal(np.round(255 * some[0][..., 0]), some[1])  # the image moves alike


@pytest.mark.parametrize(
    "more", ["flip_horizontal,flip_vertical", "rotation=180", "shift=0.2,scale=0.3", "flip_horizontal,rotation=45"]
)
def test_the_pixel_is_shown_after_every_map(more):
    inner = np.zeros((41, 41), "int32")
    inner[18:23, 18:23] = 1  # near the middle, so that no map takes it out of the image
    found = windows(make_augment(f"crop=9,foreground=1,{more}"), 100, inner)[1]
    assert (found[:, 2:7, 2:7] == 1).any((1, 2)).all()


def test_windows_stay_within_the_image_and_masks_without_foreground_are_cut_anywhere():
    corner = np.zeros((12, 12), "int32")
    corner[0, 0] = 3
    numbered = windows(Augment(crop=6, foreground=1.0), 20, corner)[1]
    assert (numbered[:, 0, 0] == 3).all()
    nothing = windows(Augment(crop=6, foreground=1.0), 20, np.where(MASK == 255, MASK, 0))
    for found, expected in zip(nothing, windows(Augment(crop=6), 20, np.where(MASK == 255, MASK, 0)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.costly(keep=0)
def test_void_is_no_foreground_and_one_example_is_as_one_of_a_batch():
    top = windows(Augment(crop=8, foreground=1.0), mask=np.where(MASK == 255, MASK, 0), ignore_class=None)[1]
    assert share_of(top, 255) == 1
    augment = Augment(crop=8, foreground=1.0)
    one = augment.apply(tf.zeros((40, 50, 1)), tf.constant(MASK), (3, 4), ignore_class=255)
    assert np.isin([1, 2], one[1]).any()


@pytest.mark.costly(keep=0)
def test_it_needs_a_window_and_masks(load):
    with pytest.raises(ValueError, match="crop=128,foreground=0.33"):
        Augment(foreground=0.3)
    with pytest.raises(ValueError, match=r"`foreground` must be a number in \[0, 1\]"):
        Augment(crop=8, foreground=2)
    with pytest.raises(ValueError, match="needs masks.*--balance sampling"):
        load("digits", augment="crop=6,foreground=0.5")
    masks = next(iter(load("digit_scenes", augment="crop=6,foreground=1.0").train))[1].numpy()
    assert (masks > 0).any((1, 2)).all()
