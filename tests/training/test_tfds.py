"""Data sets of TFDS by name, made of random pixels."""

import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from _arrays import arrays
from dropzoo.training.data.dataset import Data
from dropzoo.training.data.load import load_data

SHARED = Path(__file__).parents[3] / "shared" / "data"


def describe(folder: Path, name: str, counts: dict[str, int], num_bytes: int = 0) -> None:
    """Writes the metadata of a prepared set, so that TFDS knows its splits without its files."""
    builder = tfds.builder(name, data_dir=folder)
    splits = [tfds.core.SplitInfo(name=key, shard_lengths=[n], num_bytes=num_bytes) for key, n in counts.items()]
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    Path(builder.data_path).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar10:3.*.*"])
def test_classification_by_name(tmp_path, name):
    describe(tmp_path, name, {"train": 20, "test": 20})
    with tfds.testing.mock_data(num_examples=20, data_dir=tmp_path):
        data = load_data(name, data_dir=tmp_path, batch_size=16)
        shapes = [tuple(images.shape) for images, _ in data.train]
        assert arrays(data.test)[0][1].dtype == np.int32
    assert (data.info.task, data.info.num_classes) == ("classification", 10)
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (18, 2, 20)
    assert shapes == [(16, *data.info.input_shape), (2, *data.info.input_shape)]
    assert data.info.input_shape == ((28, 28, 1) if name == "fashion_mnist" else (32, 32, 3))


def test_a_set_keeps_the_validation_split_it_brings(tmp_path):
    describe(tmp_path, "beans", {"train": 8, "validation": 8, "test": 8})
    with tfds.testing.mock_data(num_examples=8, data_dir=tmp_path):
        info = load_data("beans", data_dir=tmp_path, image_size=4).info
    assert (info.num_train, info.num_validation, info.num_test) == (8, 8, 8)


@pytest.mark.costly(keep=0)
def test_segmentation_by_name(tmp_path):
    """Classes count from 1, and a mask has not its image's size (as in the mock of TFDS)."""

    def pets(self, *args, **options):
        def examples():
            for number in range(10):
                yield (
                    np.full((6 + number, 9, 3), 20 * number, "u1"),
                    1 + np.arange(20, dtype="u1").reshape(4, 5, 1) % 3,
                )

        specs = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None, 1), tf.uint8)
        pairs = tf.data.Dataset.from_generator(examples, output_signature=specs)
        return pairs.map(lambda image, mask: {"image": image, "segmentation_mask": mask})

    describe(tmp_path, "oxford_iiit_pet", {"train": 10, "test": 10})
    with tfds.testing.mock_data(as_dataset_fn=pets, data_dir=tmp_path):
        with pytest.raises(ValueError, match="Images of different sizes cannot form a batch"):
            load_data("oxford_iiit_pet", data_dir=tmp_path)
        data = load_data("oxford_iiit_pet", data_dir=tmp_path, image_size=(8, 10))
        images, masks = arrays(data.train)[0]
        whole = load_data("oxford_iiit_pet", data_dir=tmp_path, batch_size=1)
        for image, mask in arrays(whole.train):
            assert image.shape[:3] == mask.shape
    assert (data.info.task, data.info.class_names) == ("segmentation", ("1", "2", "3"))
    assert images.shape == (9, 8, 10, 3) and data.info.input_shape == (8, 10, 3)
    assert whole.info.input_shape == (None, None, 3)
    expected = np.repeat(np.repeat(np.arange(20).reshape(4, 5) % 3, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(masks, np.broadcast_to(expected, (9, 8, 10)))


@pytest.mark.parametrize(("num_bytes", "readings"), [(2**20, 0), (2**30, 2)], ids=["small", "large"])
def test_large_sets_of_several_sizes_are_read_again_in_each_epoch(tmp_path, num_bytes, readings):
    """Kept in memory, the images of a set such as `oxford_iiit_pet` need gigabytes."""
    started = []

    def pets(self, *args, **options):
        def examples():
            started.append(1)
            for number in range(4):
                yield np.zeros((6 + number, 9, 3), "u1"), np.ones((6 + number, 9, 1), "u1")

        specs = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None, 1), tf.uint8)
        pairs = tf.data.Dataset.from_generator(examples, output_signature=specs)
        return pairs.map(lambda image, mask: {"image": image, "segmentation_mask": mask})

    describe(tmp_path, "oxford_iiit_pet", {"train": 4}, num_bytes)
    with tfds.testing.mock_data(as_dataset_fn=pets, data_dir=tmp_path):
        data = load_data("oxford_iiit_pet", data_dir=tmp_path, batch_size=1)
        before = len(started)
        assert len(arrays(data.train)) == len(arrays(data.train)) == 4
    assert len(started) - before == readings


def test_segmentation_by_the_mock_of_tfds(tmp_path):
    describe(tmp_path, "oxford_iiit_pet", {"train": 8})
    with tfds.testing.mock_data(num_examples=8, data_dir=tmp_path):
        data: Data = load_data("oxford_iiit_pet", data_dir=tmp_path, image_size=16, augment="flip_horizontal")
        images, masks = arrays(data.train)[0]
    assert images.shape == (7, 16, 16, 3) and masks.shape == (7, 16, 16)
    assert data.test is None


@pytest.mark.parametrize(
    "name, messages",
    [
        (
            "fashon_mnist",
            ["Unknown data set 'fashon_mnist'. Did you mean 'fashion_mnist'", "Available: digits, digit_scenes"],
        ),
        ("digit_scene", ["Did you mean 'digit_scenes'"]),
        ("no/such/folder", ["No such folder: no/such/folder"]),
        ("fashion_mnist:9.9.9", ["fashion_mnist", "9.9.9"]),
        ("imagenet2012", ["must be downloaded by hand", "`manual_dir`"]),
    ],
)
def test_bad_names(tmp_path, name, messages):
    with pytest.raises(ValueError) as error:
        load_data(name, data_dir=None if "/" in name else tmp_path)
    for message in messages:
        assert message in str(error.value)


def test_sets_without_images_and_labels(tmp_path):
    describe(tmp_path, "iris", {"train": 8})
    with (
        tfds.testing.mock_data(num_examples=8, data_dir=tmp_path),
        pytest.raises(ValueError, match="images with a class `label` or a"),
    ):
        load_data("iris", data_dir=tmp_path)


@pytest.mark.parametrize("given", [False, True], ids=["no_manual_dir", "manual_dir"])
def test_missing_files_fail_at_once(tmp_path, monkeypatch, given):
    monkeypatch.setattr("dropzoo.training.data.tfds._can_reach", lambda url: False)
    (tmp_path / "train-labels-idx1-ubyte.gz").touch()
    begin = time.monotonic()
    with pytest.raises(ValueError) as error:
        load_data("fashion_mnist", data_dir=tmp_path, manual_dir=tmp_path if given else None)
    assert time.monotonic() - begin < 10
    assert "t10k-images-idx3-ubyte.gz" in str(error.value) and "folder as `manual_dir`" in str(error.value)
    assert ("train-labels-idx1-ubyte.gz" in str(error.value)) is not given


def test_a_host_that_does_not_answer_is_noticed_soon():
    from dropzoo.training.data.tfds import _can_reach

    begin = time.monotonic()
    assert not _can_reach("http://host.invalid/file.gz")
    assert not _can_reach("http://127.0.0.1:9/file.gz")
    assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_fashion_mnist_from_its_original_files(tmp_path):
    files = SHARED / "fashion_mnist"
    if not files.is_dir():
        pytest.skip("needs the four original files of Fashion-MNIST beside the checkout")
    data = load_data("fashion_mnist", data_dir=tmp_path, manual_dir=files, batch_size=500, validation_split=0)
    assert (data.info.num_train, data.info.num_test, data.info.input_shape) == (60000, 10000, (28, 28, 1))
    images, labels = (np.concatenate(column) for column in zip(*arrays(data.train), strict=True))
    assert np.bincount(labels).tolist() == [6000] * 10
    assert 255 * images.mean() == pytest.approx(72.9404, abs=1e-3)
