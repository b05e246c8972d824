"""Options on how a folder is read: groups, pages, ranges of values, broken files, caches, balance."""

import contextlib
import re
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile

from _folders import RANDOM, SIZE, counts, ids, mask, picture, train_and_test
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.inputs import fed
from dropzoo.training import default_loss
from dropzoo.training.data import folders
from dropzoo.training.data.augment import make_augment
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data
from dropzoo.training.data.pipeline import Split, training_batches
from dropzoo.training.data.sources import find_folder
from dropzoo.training.trainer import Trainer


def test_groups_stay_together(tmp_path):
    for n, name in enumerate(("benign", "malignant")):
        for patient in range(5):
            for part in range(4):
                picture(tmp_path / name / f"p{n}{patient}_s{part}.png")

    def groups(numbers):
        return {re.search(r"p\d+", sample.image.name)[0] for sample in numbers}

    source = read_folder(tmp_path, Reading(group_by=r"p\d+", validation_split=0.25))
    by_split = {}
    for sample in source.summary.samples:
        by_split.setdefault(sample.split, []).append(sample)
    found = {split: groups(samples) for split, samples in by_split.items()}
    assert {split: len(each) for split, each in found.items()} == {"train": 6, "validation": 2, "test": 2}
    seen: Counter[int] = Counter()
    for fold in range(4):
        data = load_data(tmp_path, group_by=r"p\d+", fold=(fold, 4), cache="none")
        seen[data.info.num_validation] += 1
        assert data.info.num_train + data.info.num_validation == 32
    assert seen == {8: 4}
    with pytest.raises(ValueError, match="which is not in p00_s0.png"):
        read_folder(tmp_path, Reading(group_by="subject"))


def test_a_group_in_two_given_splits_is_refused(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.png")
    rows = "".join(f"{n}.png,{n % 2},{'train' if n < 3 else 'test'},p{n % 2}\n" for n in range(4))
    (tmp_path / "labels.csv").write_text("file,label,split,group\n" + rows)
    with pytest.raises(ValueError, match=r"1 group in several splits: p1 \(test, train\)"):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize(
    "axes, shape, images", [("ZYX", (5, 6, 8), 10), ("TYX", (5, 6, 8), 10), ("CYX", (2, 6, 8), 2)]
)
def test_pages_of_stacks(tmp_path, axes, shape, images):
    for name in "ab":
        (tmp_path / name).mkdir()
        pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
        tifffile.imwrite(tmp_path / name / "0.tif", pixels, imagej=True, metadata={"axes": axes})
    stacks = images > 2
    with pytest.warns(UserWarning, match="--pages channels") if stacks else contextlib.nullcontext():
        source = read_folder(tmp_path, Reading(validation_split=0))
    assert source.train.count == images and source.image_shape == (6, 8, 1 if stacks else 2)
    if stacks:  # all pages of a file are in one split, and each is another image
        read = [image.numpy().tobytes() for image, _ in source.train.examples]
        assert len(set(read)) == images
        assert source.summary is not None
        files = {f"{name}/0.tif#{page}" for name in "ab" for page in range(1, 6)}  # as `dropzoo predict` counts
        assert set(source.summary.files("train")) == files
        assert read_folder(tmp_path, Reading(pages="channels", validation_split=0)).image_shape == (6, 8, 5)


@pytest.mark.parametrize(
    "dtype, low, high",
    [("float32", -3.5, 900.0), ("int16", -1000, 2000), ("int32", 0, 70000), ("float64", 0, 255)],
)
def test_values_beyond_the_usual_ranges(tmp_path, dtype, low, high):
    pixels = np.linspace(low, high, 48).astype(dtype).reshape(SIZE)
    for n in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        (np.save if n else lambda path, each: tifffile.imwrite(path.with_suffix(".tif"), each))(
            tmp_path / "images" / f"{n}.npy", pixels
        )
        mask(tmp_path / "masks" / f"{n}.png")
    with pytest.raises(ValueError, match="--value-range"):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(value_range=(low, high)))
    for image, _ in source.train.examples:
        np.testing.assert_allclose(image[..., 0], (pixels - low) / (high - low), atol=1e-4)


def test_broken_files_are_all_named_or_left_out(tmp_path):
    for name in ("cat", "dog"):
        for n in range(10):
            picture(tmp_path / name / f"{n}.jpg")
    broken = [tmp_path / "cat" / "2.jpg", tmp_path / "cat" / "7.jpg", tmp_path / "dog" / "4.jpg"]
    for path, size in zip(broken, (0, 20, 300), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="Cannot read 3 files.*--broken skip") as error:
        load_data(tmp_path)
    assert all(str(path) in str(error.value) for path in broken)
    with pytest.warns(UserWarning, match="Left out 3 files that cannot be read"):
        info = load_data(tmp_path, broken="skip").info
    assert info.num_train + info.num_validation + info.num_test == 17


def test_files_that_are_no_images_are_counted(tmp_path):
    for name in ("cat", "dog"):
        for n in range(4):
            picture(tmp_path / name / f"{n}.jpg")
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
        (tmp_path / name / "notes.heic").write_bytes(b"x")
    with pytest.warns(UserWarning, match="Left out files without the ending of an image file: 2 .heic"):
        source = read_folder(tmp_path, Reading())
    assert any("skipped: 2" in note for note in source.summary.notes)


def test_an_image_in_two_splits_is_named(tmp_path):
    train_and_test(tmp_path)
    first, second = tmp_path / "train" / "cat" / "0.jpg", tmp_path / "test" / "dog" / "0.jpg"
    second.write_bytes(first.read_bytes())
    with pytest.warns(UserWarning, match="in the training set and in another") as said:
        read_folder(tmp_path, Reading())
    assert str(first) in str(said[0].message) and str(second) in str(said[0].message)


def test_a_class_without_training_images_is_refused(tmp_path):
    train_and_test(tmp_path)
    picture(tmp_path / "test" / "owl" / "0.jpg")
    with pytest.raises(ValueError, match="Each class needs training images. Received: none of owl"):
        read_folder(tmp_path, Reading())


def test_a_folder_of_ones_own_wins_over_a_set_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_folder("cifar10/train") is None
    picture(tmp_path / "cifar10" / "train" / "cat" / "0.png")
    assert find_folder("cifar10/train") == Path("cifar10/train")
    assert find_folder("cifar10") == Path("cifar10")


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_every_cache_gives_the_same_epochs(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("DROPZOO_CACHE", str(tmp_path / "cache"))
    train_and_test(tmp_path / "data")

    def epochs(how):
        data = load_data(tmp_path / "data", cache=how, batch_size=5, augment=True)
        return [batch for epoch in range(2) for batch in data.train.at_epoch(epoch)] + list(data.test)

    for found, expected in zip(epochs(cache), epochs("memory"), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("use", ["fit", "fit with a given loss", "validation", "evaluate", "command"])
def test_a_file_that_breaks_in_a_training_is_named(tmp_path, use):
    """Without a cache, files are not decoded before the training, and the middle of this one is damaged."""
    for name in ("cat", "dog"):
        for n in range(6):
            picture(tmp_path / name / f"{n}.png")
    data = load_data(tmp_path, cache="none", batch_size=4, validation_split=0.3)
    number = {"validation": "4", "evaluate": "5", "command": "5"}.get(use, "1")
    broken = tmp_path / "dog" / f"{number}.png"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 255
    broken.write_bytes(content)
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    trainer = Trainer(model, loss=None if use == "fit" else default_loss("classification", 2))
    with pytest.raises(ValueError, match=f"Cannot read {re.escape(str(broken))}.*--broken skip"):
        if use == "evaluate":
            trainer.evaluate(data.test)
        elif use == "command":
            evaluate(model, data.test, data.info)
        else:
            trainer.fit(fed(data.train, model), data.validation, verbose=0)


def test_files_of_equal_size_are_compared_up_to_a_limit(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for n in range(2):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / split / name / f"{n}.npy", np.full((*SIZE, 3), n, np.uint8))
    with pytest.warns(UserWarning, match="images are in the training set and in another"):
        read_folder(tmp_path, Reading(validation_split=0))
    monkeypatch.setattr(folders, "_MOST_TO_COMPARE", 1000)
    source = read_folder(tmp_path, Reading(validation_split=0))
    assert "it is not known whether training images are in another" in source.summary.notes[-1]


def test_balance_draws_all_classes_equally_often(tmp_path):
    for name, count in (("many", 45), ("few", 5)):
        for n in range(count):
            picture(tmp_path / name / f"{n}.png")
    data = load_data(tmp_path, balance=True, test_split=0.0, validation_split=0, batch_size=50)
    labels = np.concatenate([labels for epoch in range(8) for _, labels in data.train.at_epoch(epoch)])
    assert len(labels) == 400 and 0.4 < labels.mean() < 0.6


def test_balance_draws_from_images_of_several_sizes_that_come_in_their_order():
    """As those of a TFDS set do, which are cropped to one size."""
    labels = [0] * 9 + [1]
    images = [np.full((8 + n, 9, 1), n, np.uint8) for n in range(10)]
    spec = (tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((), tf.int64))
    examples = tf.data.Dataset.from_generator(lambda: zip(images, labels, strict=True), output_signature=spec)
    split = Split(examples, 10)
    data = training_batches(split, 10, make_augment("crop=6"), seed=0, balance=True)
    found = [(x.numpy(), y.numpy()) for epoch in range(8) for x, y in data.at_epoch(epoch)]
    drawn = np.concatenate([y for _, y in found])
    assert len(drawn) == 80 and 0.3 < drawn.mean() < 0.7
    for x, y in found:
        assert x.shape == (10, 6, 6, 1) and ((x.max((1, 2, 3)) > 8.5 / 255) == y).all()


def test_masks_among_the_images_of_classes_are_doubted(tmp_path):
    for name in ("benign", "normal"):
        for n in range(4):
            picture(tmp_path / name / f"{name} ({n}).png")
            mask(tmp_path / name / f"{name} ({n})_mask.png", np.stack([ids()] * 3, -1))
    with pytest.warns(
        UserWarning, match=r"8 images look like masks: they have the name of another image.*--masks"
    ):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(images="**/*.png", masks="**/*_mask.png"))
    assert source.task == "segmentation" and counts(source) == (5, 1, 2)
