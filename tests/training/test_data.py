"""Data sets by name: the embedded ones, those of TFDS, and epochs that can be repeated and resumed."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dropzoo.training._pipeline import training_batches
from dropzoo.training.data import Data, list_data, load_data
from dropzoo.training.digits import SCENES, digits_by_split, draw_scene

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """The embedded sets, prepared once for all tests."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in list_data():
        load_data(name, data_dir=folder)
    return folder


@pytest.fixture
def load(data_dir):
    return lambda name="digits", **options: load_data(name, data_dir=data_dir, **options)


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


# The embedded sets


def test_preparing_a_set_leaves_the_seeds_alone(tmp_path):
    random.seed(3)
    expected = random.random()
    random.seed(3)
    load_data("digits", data_dir=tmp_path)
    assert random.random() == expected


def test_list_data():
    assert list_data() == ["digits", "digit_scenes"]


@pytest.mark.parametrize(
    "name, shape, classes, counts",
    [("digits", (8, 8, 1), 10, (1298, 144, 355)), ("digit_scenes", (64, 64, 1), 11, (720, 80, 200))],
)
def test_embedded(load, name, shape, classes, counts):
    data = load(name, batch_size=32)
    info = data.info
    assert (info.name, info.input_shape, info.num_classes, len(info.class_names)) == (
        name,
        shape,
        classes,
        classes,
    )
    assert (info.num_train, info.num_validation, info.num_test) == counts
    assert info.task == ("classification" if name == "digits" else "segmentation")
    label_shape = () if name == "digits" else shape[:2]
    for part, count in zip((data.train, data.validation, data.test), counts, strict=True):
        batches = arrays(part)
        assert len(batches) == int(part.cardinality()) == -(-count // 32)
        images, labels = (np.concatenate(column) for column in zip(*batches, strict=True))
        assert images.shape == (count, *shape) and images.dtype == np.float32
        assert labels.shape == (count, *label_shape) and labels.dtype == np.int32
        assert images.min() == 0 and 0.9 < images.max() <= 1
        assert set(np.unique(labels)) == set(range(classes))


def test_digits_are_split_by_class_and_disjoint():
    (train, train_labels), (test, test_labels) = digits_by_split().values()
    assert len(train) + len(test) == 1797
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    for digit in range(10):
        assert (test_labels == digit).sum() == ((train_labels == digit).sum() + (test_labels == digit).sum()) // 5


def test_scenes_are_made_of_the_digits_of_their_split(load):
    """Drawn again from the split's digits alone, every scene comes out; none is left over."""
    for number, (split, part) in enumerate({"train": None, "test": "test"}.items()):
        digits, labels = digits_by_split()[split]
        drawn = [draw_scene(digits, labels, [number, index]) for index in range(0, SCENES[split], 40)]
        data = load("digit_scenes", validation_split=0)
        stored = [np.rint(255 * images).astype("u1") for images, _ in arrays(getattr(data, part or "train"))]
        known = set(images_of([(images, None) for images in stored]))
        assert len(known) == SCENES[split]
        assert all(image[..., None].tobytes() in known for image, _ in drawn)


def test_a_scene_shows_what_its_mask_says():
    digits, labels = digits_by_split()["train"]
    only_threes = digits[labels == 3]
    image, mask = draw_scene(only_threes, np.full(len(only_threes), 3), [0, 0])
    assert set(np.unique(mask)) == {0, 4}
    assert image[mask == 4].mean() > image[mask == 0].mean() + 50
    again, _ = draw_scene(only_threes, np.full(len(only_threes), 3), [0, 0])
    np.testing.assert_array_equal(image, again)
    assert (image != draw_scene(only_threes, np.full(len(only_threes), 3), [0, 1])[0]).any()


@pytest.mark.parametrize(
    "name, expected",
    [("digits", "665d016ae0328713"), ("digit_scenes", "f9be936419466955")],
)
def test_the_embedded_sets_never_change(load, name, expected):
    """Another result than this needs another version of the set."""
    digest = hashlib.sha256()
    for images, labels in load(name).test:
        digest.update(np.rint(255 * images.numpy()).astype("u1").tobytes() + labels.numpy().astype("u1").tobytes())
    assert digest.hexdigest()[:16] == expected


def test_the_embedded_sets_ask_no_network(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(tfds.core.community, "community_register", refuse)
    monkeypatch.setattr("tensorflow_datasets.core.utils.gcs_utils.exists", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert load_data("digits", data_dir=tmp_path).info.num_test == 355
    with pytest.raises(ValueError, match="Unknown data set 'digit'"):
        load_data("digit", data_dir=tmp_path)


def test_two_runs_may_prepare_a_set_at_once(tmp_path):
    """TFDS alone would give both one temporary folder here, for both have the same global random state."""
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            random.seed(0)
            load_data("digits", data_dir=tmp_path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert load_data("digits", data_dir=tmp_path).info.num_test == 355
    assert not list(tmp_path.glob("incomplete.*"))


# Epochs


@pytest.fixture(params=[False, True], ids=["plain", "augmented"])
def augment(request) -> bool:
    return request.param


def test_epochs_are_repeatable_and_distinct(load, augment):
    data, again = load(augment=augment, seed=3), load(augment=augment, seed=3)
    keras.utils.set_random_seed(7)  # the global seed plays no part
    epochs = [arrays(data.train) for _ in range(3)]
    for number, epoch in enumerate(epochs):
        assert_equal(epoch, arrays(again.train))
        assert_equal(epoch, arrays(data.train.at_epoch(number)))
        assert_equal(epoch, arrays(again.train.at_epoch(number)))
    assert len({images_of(epoch)[0] for epoch in epochs}) == 3
    assert images_of(arrays(load(augment=augment, seed=4).train)) != images_of(epochs[0])


def test_an_epoch_holds_every_image_once(load):
    data = load(batch_size=50, seed=1)
    first, second = images_of(arrays(data.train)), images_of(arrays(data.train))
    assert first != second and sorted(first) == sorted(second)
    held_out = images_of(arrays(data.validation))
    everything = images_of(arrays(load(validation_split=0).train))
    assert sorted(first + held_out) == sorted(everything)
    assert len(everything) == 1442


def test_augmentation_acts_on_training_images_alone(load):
    plain, augmented = load(), load(augment=True)
    assert_equal(arrays(plain.validation), arrays(augmented.validation))
    assert_equal(arrays(plain.test), arrays(augmented.test))
    (images, labels), (changed, same_labels) = arrays(plain.train)[0], arrays(augmented.train)[0]
    np.testing.assert_array_equal(labels, same_labels)  # the order is the same
    assert (images != changed).any(axis=(1, 2, 3)).all()
    other = arrays(augmented.train.at_epoch(1))
    assert not set(images_of(other)) & set(images_of([(changed, labels)]))


def test_an_epoch_can_be_resumed(load, augment):
    whole = arrays(load(augment=augment).train.at_epoch(2))
    assert_equal(arrays(load(augment=augment).train.at_epoch(2).skip(30)), whole[30:])
    assert len(whole) == 41


def test_cache_changes_nothing(load):
    assert_equal(arrays(load(augment=True, cache=False).train), arrays(load(augment=True).train))


def test_the_cache_outlives_an_epoch():
    reads = []

    def examples() -> Iterator[tuple[np.ndarray, int]]:
        reads.append(1)
        for number in range(5):
            yield np.full((2, 2, 1), number, "uint8"), number

    specs = tf.TensorSpec((2, 2, 1), tf.uint8), tf.TensorSpec((), tf.int32)
    stored = tf.data.Dataset.from_generator(examples, output_signature=specs)
    train = training_batches(stored, 5, 2, None, seed=0, in_memory=True)
    orders = [np.concatenate([labels for _, labels in part]) for part in (train, train, train, train.at_epoch(9))]
    assert len(reads) == 1
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)


def test_fit_under_a_strategy(load):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = load(batch_size=100, augment=True)
    model.fit(data.train, validation_data=data.validation, epochs=2, shuffle=False, verbose=0)
    assert model.optimizer.iterations.numpy() == 2 * 13
    assert np.isfinite(model.evaluate(data.test, verbose=0))


def test_limit_and_validation_split(load):
    data = load(limit=10, validation_split=0.5)
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (10, 721, 355)
    assert len(images_of(arrays(data.train))) == 10
    assert load(limit=10**6).info.num_train == 1298
    none = load(validation_split=0)
    assert none.validation is None and none.info.num_validation == 0


def test_the_seed_chooses_the_validation_images(load):
    zero, one = (images_of(arrays(load(seed=seed).validation)) for seed in (0, 1))
    assert len(zero) == len(one) and set(zero) != set(one)


def test_image_size_and_num_channels(load):
    data = load("digit_scenes", image_size=(16, 24), num_channels=3, limit=8)
    images, masks = arrays(data.train)[0]
    assert images.shape == (8, 16, 24, 3) and masks.shape == (8, 16, 24)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert data.info.input_shape == (16, 24, 3)
    assert load(image_size=12).info.input_shape == (12, 12, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch_size=0), "`batch_size` must be a positive int. Received: batch_size=0"),
        (dict(batch_size=None), "Received: batch_size=None"),
        (dict(limit=-1), "`limit` must be a positive int. Received: limit=-1"),
        (dict(validation_split=1.0), "`validation_split` must be in [0, 1). Received: validation_split=1.0"),
        (dict(seed=-1), "`seed` must be an int in [0, 2**32). Received: seed=-1"),
        (dict(image_size=(3, 0)), "`image_size` must be a positive int or two"),
        (dict(num_channels=2), "`num_channels` must be 1, 3 or None. Received: num_channels=2"),
        (dict(augment="rotations=3"), "Unknown augmentation 'rotations'. Did you mean 'rotation'?"),
        (dict(augment="saturation=0.5"), "`saturation` needs RGB images. Received: saturation=0.5, 1 channel(s)"),
        (dict(validation_split=0.9999), "No training image is left. Received: validation_split=0.9999"),
    ],
)
def test_bad_arguments(load, arguments, message):
    with pytest.raises(ValueError) as error:
        load(**arguments)
    assert message in str(error.value)


# Data sets of TFDS, made of random pixels


def describe(folder: Path, name: str, counts: dict[str, int]) -> None:
    """Writes the metadata of a prepared set, so that TFDS knows its splits without its files."""
    builder = tfds.builder(name, data_dir=folder)
    splits = [tfds.core.SplitInfo(name=key, shard_lengths=[count], num_bytes=0) for key, count in counts.items()]
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    Path(builder.data_path).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)


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
        with pytest.raises(ValueError, match="Images of different sizes make no batch"):
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
    monkeypatch.setattr("dropzoo.training._tfds._can_reach", lambda url: False)
    (tmp_path / "train-labels-idx1-ubyte.gz").touch()
    begin = time.monotonic()
    with pytest.raises(ValueError) as error:
        load_data("fashion_mnist", data_dir=tmp_path, manual_dir=tmp_path if given else None)
    assert time.monotonic() - begin < 10
    assert "t10k-images-idx3-ubyte.gz" in str(error.value) and "Pass `manual_dir`" in str(error.value)
    assert ("train-labels-idx1-ubyte.gz" in str(error.value)) is not given


def test_a_host_that_does_not_answer_is_noticed_soon():
    from dropzoo.training._tfds import _can_reach

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
