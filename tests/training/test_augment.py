"""Augmentation: images and masks move together, by the seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo.training.data.augment import DEFAULT, Augment, make_augment

EVERYTHING = dict(
    flip_horizontal=True,
    flip_vertical=True,
    rotation=30,
    shift=0.2,
    scale=0.2,
    brightness=0.3,
    contrast=0.5,
    saturation=0.5,
)


def noise(height: int = 7, width: int = 10, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(0).uniform(size=(height, width, channels)).astype("float32")


def results(augment: Augment, image: np.ndarray, label: np.ndarray, count: int = 30) -> list[tuple]:
    return [tuple(part.numpy() for part in augment.apply(image, label, seed=(0, n))) for n in range(count)]


@pytest.mark.parametrize(
    "flip, axis", [("flip_horizontal", 1), ("flip_vertical", 0)], ids=["horizontal", "vertical"]
)
def test_flip_is_exact_and_happens_half_of_the_time(flip, axis):
    image = noise()
    mask = np.arange(70, dtype="int32").reshape(7, 10)
    flipped = 0
    for moved, moved_mask in results(Augment(**{flip: True}), image, mask, count=100):
        changed = bool((moved_mask != mask).any())
        flipped += changed
        np.testing.assert_array_equal(moved, np.flip(image, axis) if changed else image)
        np.testing.assert_array_equal(moved_mask, np.flip(mask, axis) if changed else mask)
    assert 35 <= flipped <= 65  # three standard errors


def test_crop_is_a_window_of_the_image_and_all_windows_occur():
    image = noise(5, 6, 1)
    mask = np.arange(30, dtype="int32").reshape(5, 6)
    corners = set()
    for moved, moved_mask in results(Augment(crop=(4, 3)), image, mask, count=150):
        assert moved.shape == (4, 3, 1) and moved_mask.shape == (4, 3)
        top, left = divmod(int(moved_mask[0, 0]), 6)
        np.testing.assert_array_equal(moved, image[top : top + 4, left : left + 3])
        np.testing.assert_array_equal(moved_mask, mask[top : top + 4, left : left + 3])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(2) for left in range(4)}


def test_crop_with_a_flip_is_exact():
    image = noise(6, 6, 1)
    mask = (1000 * image[..., 0]).astype("int32")
    for moved, moved_mask in results(Augment(crop=4, flip_horizontal=True), image, mask):
        np.testing.assert_array_equal((1000 * moved[..., 0]).astype("int32"), moved_mask)


def test_crop_larger_than_the_image_is_filled_with_its_mirror_image():
    augment = tf.function(
        Augment(crop=8).apply,
        input_signature=[tf.TensorSpec((None, None, 1)), tf.TensorSpec(()), tf.TensorSpec(2, tf.int32)],
    )
    image = noise(6, 9, 1)
    moved = augment(image, 0.0, [0, 1])[0].numpy()
    assert moved.shape == (8, 8, 1)
    assert np.isin(moved, image).all()


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": 45},
        {"shift": 0.2},
        {"scale": 0.3},
        dict(rotation=30, shift=0.1, scale=0.2, flip_vertical=True),
    ],
)
def test_image_and_mask_move_together(change):
    mask = np.zeros((40, 50), "int32")
    mask[8:30, 12:28] = 1
    mask[12:18, 12:40] = 1
    for image, moved in results(Augment(**change), mask[..., None].astype("float32"), mask):
        assert set(np.unique(moved)) <= {0, 1}
        # They may differ on the outline alone, where the image is between two pixels.
        wrong = (image[..., 0] > 0.5) != (moved == 1)
        assert wrong.mean() < 0.03
        assert not wrong[(image[..., 0] < 0.01) | (image[..., 0] > 0.99)].any()


def test_rotation_turns_about_the_centre():
    image = np.zeros((9, 9, 1), "float32")
    image[4, 4] = 1
    for moved, _ in results(Augment(rotation=180), image, np.int32(0)):
        assert moved[4, 4, 0] == pytest.approx(1, abs=1e-5)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name, value", EVERYTHING.items())
def test_every_change_acts_and_is_a_function_of_the_seed(name, value):
    image, augment = noise(), Augment(**{name: value})
    once, again = results(augment, image, np.int32(3)), results(augment, image, np.int32(3))
    for (first, label), (second, _) in zip(once, again, strict=True):
        assert label == 3
        np.testing.assert_array_equal(first, second)
    assert len({first.tobytes() for first, _ in once}) > 1


def test_values_stay_in_range_and_types_are_kept():
    mask = np.random.RandomState(0).randint(5, size=(7, 10)).astype("int32")
    for image, moved in results(Augment(**EVERYTHING), noise(), mask):
        assert image.dtype == np.float32 and moved.dtype == np.int32
        assert image.min() >= 0 and image.max() <= 1
        assert set(np.unique(moved)) <= set(np.unique(mask))


def test_graph_gives_what_eager_gives():
    augment, image = Augment(**EVERYTHING), noise()
    eager, _ = augment.apply(image, np.int32(0), seed=(1, 2))
    graph, _ = tf.function(augment.apply)(image, np.int32(0), seed=(1, 2))
    np.testing.assert_allclose(graph, eager, atol=1e-5)


def test_switching_one_change_on_leaves_the_draws_of_the_others():
    bright, _ = Augment(brightness=0.2).apply(noise() / 2 + 0.25, 0, seed=(0, 1))
    both, _ = Augment(brightness=0.2, flip_horizontal=True).apply(noise() / 2 + 0.25, 0, seed=(0, 1))
    assert float(tf.reduce_mean(bright)) == pytest.approx(float(tf.reduce_mean(both)), abs=1e-6)


@pytest.mark.parametrize(
    "spec, expected",
    [
        (None, None),
        (False, None),
        (True, DEFAULT),
        (DEFAULT, DEFAULT),
        ("flip_horizontal,rotation=15,crop=128", Augment(flip_horizontal=True, rotation=15, crop=128)),
        ("crop=128x96, flip_vertical=false", Augment(crop=(128, 96))),
        ({"shift": 0.1, "crop": (4, 5)}, Augment(shift=0.1, crop=(4, 5))),
    ],
)
def test_make_augment(spec, expected):
    assert make_augment(spec) == expected


@pytest.mark.parametrize(
    "spec, message",
    [
        ("flip_horizontl", "Unknown augmentation 'flip_horizontl'. Did you mean 'flip_horizontal'"),
        ("", "Unknown augmentation ''"),
        ({"rotate": 3}, "Unknown augmentation 'rotate'. Did you mean 'rotation'"),
        ("rotation=many", "`rotation` must be a number. Received: 'rotation=many'"),
        ("rotation", "`rotation` must be a number in [0, 180]. Received: rotation=True"),
        ("flip_vertical=2", "`flip_vertical` must be true or false. Received: 'flip_vertical=2'"),
        ("crop=3x", "`crop` must be a number of pixels, as in 128 or 96x128. Received: 'crop=3x'"),
        ({"crop": 0}, "`crop` must be a positive int or a pair of them. Received: crop=0"),
        ({"crop": (3, 4, 5)}, "Received: crop=(3, 4, 5)"),
        ({"scale": 1}, "`scale` must be a number in [0, 1). Received: scale=1"),
        ({"shift": -0.1}, "`shift` must be a number in [0, 1]. Received: shift=-0.1"),
        ({"brightness": float("nan")}, "`brightness` must be a number in [0, 1]"),
        ({"flip_vertical": 1}, "`flip_vertical` must be True or False. Received: flip_vertical=1"),
        (3, "`augment` must be a bool, str, dict or Augment. Received: augment=3"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(ValueError) as error:
        make_augment(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "augment, message",
    [
        (Augment(saturation=0.1), "`saturation` needs RGB images. Received: saturation=0.1, 1 channel"),
        (Augment(crop=(9, 3)), "`crop` must fit in the images of 8x8. Received: crop=(9, 3)"),
    ],
)
def test_images_that_do_not_suit(augment, message):
    with pytest.raises(ValueError) as error:
        augment.apply(noise(8, 8, 1), 0, seed=(0, 0))
    assert message in str(error.value)
