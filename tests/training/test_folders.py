"""Folders of images: splits, sizes and channels."""

import numpy as np
import pytest
import tensorflow as tf

from _pictures import pixels, write, write_pairs
from dropzoo.training.data.load import load_data


def test_images_with_masks(tmp_path):
    write_pairs(tmp_path / "cells")
    data = load_data(tmp_path / "cells", batch_size=4, validation_split=0.25)
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (6, 2, 2)
    assert (data.info.name, data.info.task, data.info.num_classes) == ("cells", "segmentation", 2)
    assert (data.info.class_names, data.info.input_shape) == (("0", "1"), (6, 8, 3))
    for part, numbers in ((data.validation, (6, 7)), (data.test, (8, 9))):
        images, masks = next(iter(part))
        expected = np.stack([pixels(seed=number) for number in numbers])
        np.testing.assert_array_equal(images, expected.astype("float32") / 255)
        np.testing.assert_array_equal(masks, expected[..., 0] > 127)
    assert (images.dtype, masks.dtype) == (tf.float32, tf.int32)
    assert [tuple(masks.shape) for _, masks in data.train] == [(4, 6, 8), (2, 6, 8)]


def test_class_folders(tmp_path):
    for name, count in (("cat", 10), ("ant", 5)):
        for number in range(count):
            write(tmp_path / name / f"{number}.png", np.full((4, 5, 1), 10 * number + (name == "cat"), "uint8"))
    data = load_data(str(tmp_path), validation_split=0.25)
    assert (data.info.task, data.info.class_names) == ("classification", ("ant", "cat"))
    seen = {}
    for part in ("train", "validation", "test"):
        images, labels = next(iter(getattr(data, part)))
        values = np.rint(255 * images[:, 0, 0, 0]).astype(int)
        assert (values % 10 == labels.numpy()).all() and labels.dtype == tf.int32
        seen[part] = sorted(zip(labels.numpy().tolist(), (values // 10).tolist(), strict=True))
    assert seen["test"] == [(0, 4), (1, 8), (1, 9)]  # the last fifth of each class
    assert seen["validation"] == [(0, 3), (1, 6), (1, 7)]
    assert seen["train"] == [(0, 0), (0, 1), (0, 2)] + [(1, number) for number in range(6)]


def test_a_limit_takes_of_all_classes(tmp_path):
    for name in "abc":
        for number in range(5):
            write(tmp_path / name / f"{number}.png", pixels())
    _, labels = next(iter(load_data(tmp_path, limit=3).train))
    assert sorted(labels.numpy()) == [0, 1, 2]


def test_no_validation_and_no_test(tmp_path):
    write_pairs(tmp_path, count=2)
    data = load_data(tmp_path, validation_split=0)
    assert data.validation is None and data.test is None
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (2, 0, 0)


def test_images_of_different_sizes(tmp_path):
    for number, (height, width) in enumerate([(6, 8), (9, 7), (8, 8), (7, 9), (6, 6), (8, 9)]):
        image = pixels(height, width, seed=number)
        write(tmp_path / "images" / f"{number}.png", image)
        write(tmp_path / "masks" / f"{number}.png", image[..., :1] // 128)
    with pytest.raises(
        ValueError,
        match="Pass `image_size=.height, width.` .--image-size., `batch_size=1` .--batch-size., or `augment` with",
    ):
        load_data(tmp_path)

    whole = load_data(tmp_path, batch_size=1)
    assert whole.info.input_shape == (None, None, 3)
    assert sorted(tuple(images.shape) for images, _ in whole.train)[0] == (1, 6, 8, 3)

    resized = load_data(tmp_path, image_size=(5, 4))
    images, masks = next(iter(resized.train))
    assert images.shape == (4, 5, 4, 3) and masks.shape == (4, 5, 4)
    assert resized.info.input_shape == (5, 4, 3)

    cropped = load_data(tmp_path, batch_size=2, augment="crop=5x4")
    assert cropped.info.input_shape == (None, None, 3)
    for images, masks in cropped.train:
        assert images.shape == (2, 5, 4, 3) and masks.shape == (2, 5, 4)
        # The mask is a threshold of the image's red, so a crop of both must be one too.
        np.testing.assert_array_equal(masks, np.rint(255 * images[..., 0]) // 128)
    assert [tuple(images.shape) for images, _ in cropped.test] == [(1, 8, 9, 3)]


def test_crop_of_equal_images_leaves_the_test_images_whole(tmp_path):
    write_pairs(tmp_path, count=10)
    data = load_data(tmp_path, augment={"crop": (4, 5)})
    assert data.info.input_shape == (None, None, 3)
    assert data.train.element_spec[0].shape.as_list() == [None, 4, 5, 3]
    assert next(iter(data.test))[0].shape == (2, 6, 8, 3)
    assert load_data(tmp_path, augment={"crop": (6, 8)}).info.input_shape == (6, 8, 3)


@pytest.mark.parametrize("to, expected", [(1, (6, 8, 1)), (3, (6, 8, 3)), (None, (6, 8, 3))])
def test_num_channels(tmp_path, to, expected):
    write_pairs(tmp_path, count=2)
    data = load_data(tmp_path, num_channels=to)
    assert data.info.input_shape == expected == next(iter(data.train))[0].shape[1:]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_beside_rgb_ones(tmp_path, channels):
    grey = pixels(channels=1)
    write(tmp_path / "a" / "0.png", grey)
    write(tmp_path / "b" / "0.png", np.repeat(grey, 3, axis=2))
    images, _ = next(iter(load_data(tmp_path, num_channels=channels).train))
    assert images.shape == (2, 6, 8, channels)
    np.testing.assert_allclose(images, np.broadcast_to(grey / 255, images.shape), atol=1 / 255)
