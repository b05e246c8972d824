"""The embedded data sets."""

import hashlib
import random
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from _arrays import arrays, images_of
from dropzoo.training.data.digits import SCENES, digits_by_split, draw_scene
from dropzoo.training.data.load import list_data, load_data


@pytest.mark.costly(keep=0)
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


@pytest.mark.costly(keep=0)
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


@pytest.mark.costly(keep=0)
def test_a_look_at_the_test_set_leaves_it_whole():
    for _ in range(3):  # it came out short of what was read next, now and then
        data = load_data("digits", batch_size=64, validation_split=0.3)
        for part, count in ((data.test, data.info.num_test), (data.validation, data.info.num_validation)):
            next(iter(part))
            list(part.take(2))
            assert sum(len(labels) for _, labels in part) == count
