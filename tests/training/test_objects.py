"""Masks that are drawn from objects: a file for each object, and run lengths in tables."""

import re

import numpy as np
import pytest
from PIL import Image

from _folders import SIZE, pairs
from _objects import (
    BOTH,
    FIRST,
    SECOND,
    below,
    below_in_splits,
    cell_lists,
    colours,
    images,
    labels_beside,
    named_apart,
    numbered,
    pneumothorax,
    runs,
    salt,
    science_bowl,
    science_bowl_without_masks,
    ships,
    ultrasound,
    write,
)
from dropzoo.training.data.files.drawing import counts_of, draw
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.table import Drawn, Reading, Starts
from dropzoo.training.data.folders import read_folder


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "make, count, without, said",
    [
        (science_bowl, 5, 0, "10 masks of single objects"),
        (labels_beside, 5, 0, "10 masks of single objects"),
        (numbered, 12, 0, "24 masks of single objects"),
        (below, 5, 0, "10 masks of single objects"),
        (below_in_splits, 6, 0, "12 masks of single objects"),
        (ultrasound, 4, 0, "8 masks of single objects"),
        (colours, 5, 0, "10 masks of single objects"),
        (named_apart, 5, 0, "10 masks of single objects"),
        (science_bowl_without_masks, 5, 0, "run lengths of 10 objects"),
        (cell_lists, 5, 0, "drawn from the outlines"),
        (ships, 5, 1, "run lengths of 8 objects"),
        (salt, 5, 1, "run lengths of 4 objects"),
        (pneumothorax, 5, 1, "run lengths of 4 objects"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*images? without masks")
def test_objects_are_joined(tmp_path, make, count, without, said):
    make(tmp_path)
    source = read_folder(tmp_path, Reading())
    summary = source.summary
    assert source.class_names == ("background", "object") and len(summary.samples) == count
    assert said in " ".join(summary.notes), summary.notes
    found = [summary.example(n)[1] for n in range(count)]
    empty = [n for n, each in enumerate(found) if not each.any()]
    assert len(empty) == without
    for n, each in enumerate(found):
        if n not in empty:
            np.testing.assert_array_equal(each, BOTH)
    np.testing.assert_array_equal(next(iter(source.train.examples))[1][..., 0], BOTH)
    pixels = sum(row["object"] for row in summary.counts.values())
    assert pixels == int(BOTH.sum()) * (count - without)


def steel(root):
    images(root, "train_images/{}.jpg", range(5))
    rows = [f"{n}.jpg,{label},{runs(each)}" for n in range(4) for label, each in ((3, FIRST), (1, SECOND))]
    write(root / "train.csv", "ImageId,ClassId,EncodedPixels", *rows)


def steel_with_joint_names(root):
    images(root, "train_images/{}.jpg", range(5))
    cells = [(n, label, FIRST if label == 3 else SECOND) for n in range(5) for label in (3, 1, 2)]
    rows = [f"{n}.jpg_{label},{runs(each) if n < 4 and label != 2 else ''}" for n, label, each in cells]
    write(root / "train.csv", "ImageId_ClassId,EncodedPixels", *rows)


def steel_from_a_spreadsheet(root):
    images(root, "train_images/{}.jpg", range(5))
    rows = [f"{n}.jpg;{label};{runs(each)}" for n in range(4) for label, each in ((3.0, FIRST), (1.0, SECOND))]
    write(root / "train.csv", "ImageId;ClassId;EncodedPixels", *rows, "4.jpg;nan;nan")


@pytest.mark.parametrize(
    "make, names, said",
    [
        (steel, ("background", "1", "3"), "1 image has no row in .* read as showing no object: 4.jpg"),
        (steel_with_joint_names, ("background", "1", "2", "3"), ""),
        (steel_from_a_spreadsheet, ("background", "1", "3"), ""),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*images? (has|have) no row")
def test_classes_of_run_lengths(tmp_path, make, names, said):
    make(tmp_path)
    source = read_folder(tmp_path, Reading())
    assert source.class_names == names
    expected = np.where(SECOND > 0, 1, FIRST * (len(names) - 1))  # the later row covers the earlier one
    np.testing.assert_array_equal(source.summary.example(0)[1], expected)
    assert not source.summary.example(4)[1].any()
    assert len(source.summary.doubts) == bool(said)
    if said:
        assert re.search(said, source.summary.doubts[0])


def test_runs_along_rows_are_told_by_their_distances(tmp_path):
    inside = np.zeros((40, 70), np.uint8)
    inside[5:35, 10:50] = 1
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.fromarray(inside * np.uint8(n)).save(tmp_path / "photos" / f"{n}.png")
    write(tmp_path / "train.csv", "id,annotation", *(f"{n},{runs(inside, 'C')}" for n in range(3)))
    with pytest.warns(UserWarning, match="go along the rows"):
        source = read_folder(tmp_path, Reading(test_split=0, validation_split=0))
    np.testing.assert_array_equal(source.summary.example(0)[1], inside)


def test_images_without_masks_are_background(tmp_path):
    numbered(tmp_path)
    images(tmp_path, "images/empty_{}.png", range(2))
    nothing = [
        sample.image.stem
        for sample in read_layout(tmp_path, Reading()).samples
        if isinstance(sample.mask, Drawn) and not sample.mask.shapes
    ]
    assert nothing == ["empty_0", "empty_1"]


@pytest.mark.parametrize("seed", range(3))
def test_pixels_of_runs_are_counted_without_drawing(seed):
    random = np.random.default_rng(seed)
    shapes = tuple((1, Starts(runs(random.random(SIZE) < 0.3))) for _ in range(3))
    drawn = draw(Drawn(SIZE, shapes), np.load)
    values, counts = np.unique(drawn, return_counts=True)
    assert counts_of(Drawn(SIZE, shapes)) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_tables_of_runs_give_splits_and_groups(tmp_path):
    images(tmp_path, "photos/{}.png", range(6))
    splits = ("train", "train", "train", "valid", "test", "test")
    rows = [f"{n},{runs(each)},{split},p{n // 2}" for n, split in enumerate(splits) for each in (FIRST, SECOND)]
    write(tmp_path / "rows.csv", "image,rle,split,case", *rows)
    with pytest.raises(ValueError, match=r"p1 \(train, validation\)"):
        read_folder(tmp_path, Reading())
    summary = read_folder(tmp_path, Reading(group_by=r"photos/\d")).summary
    assert [sample.split for sample in summary.samples] == [
        split.replace("valid", "validation") for split in splits
    ]
    write(tmp_path / "rows.csv", "image,rle,split", "0,1 2,trian")
    with pytest.raises(ValueError, match="must be train, validation or test. Received: 'trian' for 0"):
        read_folder(tmp_path, Reading())


def test_pairs_count_before_a_table(tmp_path):
    pairs(tmp_path, 4, "train/images/{}.png", "train/masks/{}.png")
    write(tmp_path / "train.csv", "id,rle_mask", *(f"{n},1 2" for n in range(4)))
    assert all(not isinstance(sample.mask, Drawn) for sample in read_layout(tmp_path, Reading()).samples)


@pytest.mark.parametrize("make", [labels_beside, ships, cell_lists], ids=lambda each: each.__name__)
@pytest.mark.filterwarnings("ignore:.*images? (without masks|(has|have) no row)")
def test_instances_keep_objects_apart(tmp_path, make):
    make(tmp_path)
    assert read_folder(tmp_path, Reading()).summary.objects is None
    summary = read_folder(tmp_path, Reading(masks_as="instances")).summary
    assert summary.class_names == ("background", "object")
    np.testing.assert_array_equal(summary.objects(0), np.where(SECOND > 0, 2, FIRST))
    np.testing.assert_array_equal(summary.example(0)[1], BOTH)


def test_numbers_in_masks_are_objects(tmp_path):
    pairs(tmp_path, 3, "images/{}.png", "masks/{}.png", values=7 * FIRST + 90 * (SECOND & ~FIRST))
    summary = read_folder(tmp_path, Reading(masks_as="instances")).summary
    assert np.unique(summary.objects(0)).tolist() == [0, 7, 90] and summary.example(0)[1].max() == 1
