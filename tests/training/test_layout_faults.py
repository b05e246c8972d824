"""Folders that are easily read wrongly: files of one name, lists that are not followed, stale copies on disk."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dropzoo.common.images import unreadable
from dropzoo.training.data.files.broken import refuse_broken
from dropzoo.training.data.files.masks import parse_meaning
from dropzoo.training.data.files.splits import assign
from dropzoo.training.data.files.table import Reading, Sample, Table
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data
from dropzoo.training.data.tfds import read_tfds

SIZE = (6, 8)


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros(SIZE, np.uint8)
    ids[1:3, 1:4] = value
    Image.fromarray(ids).save(path)
    return path


def coco(path: Path, names: list[str], categories: list[str], segmentation: list | None = None) -> None:
    """Writes annotations of a rectangle of the last category in each image."""
    corners = [[1, 1, 5, 1, 5, 4, 1, 4]] if segmentation is None else segmentation
    images = [{"id": n, "file_name": name, "height": 6, "width": 8} for n, name in enumerate(names)]
    last = len(categories)
    shapes = [{"id": n, "image_id": n, "category_id": last, "segmentation": corners} for n, _ in enumerate(names)]
    kinds = [{"id": n + 1, "name": name} for n, name in enumerate(categories)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": shapes, "categories": kinds}))


@pytest.fixture
def stored(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DROPZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def epoch(data) -> list[np.ndarray]:
    return [np.sort(images.numpy().mean((1, 2, 3))) for images, _ in (*data.train.as_stored(), *data.validation)]


@pytest.mark.costly(keep=0)
def test_folds_and_limits_do_not_share_a_file_on_disk(stored):
    for n in range(12):
        picture(stored / "ab"[n % 2] / f"{n}.png", 20 * n)
    seen = set()
    for more in ({"fold": (0, 5)}, {"fold": (1, 5)}, {"fold": (2, 5)}, {"limit": 8}):
        given = {"test_split": 0.0, "batch_size": 16, "validation_split": 0.2, **more}
        found, expected = (epoch(load_data(stored, cache=cache, **given)) for cache in ("disk", "none"))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        seen.add(str(found))
    assert len(seen) == 4


def test_the_key_of_a_named_set_tells_it_from_others():
    keys = {
        read_tfds(name, fraction, seed, None, None).key()
        for name, fraction, seed in (
            ("digits", 0.1, 0),
            ("digits", 0.1, 1),
            ("digits", 0.2, 0),
            ("digit_scenes", 0.1, 0),
        )
    }
    assert len(keys) == 4


def test_masks_that_are_corrected_in_place_are_read_anew(stored):
    for n in range(5):
        picture(stored / "images" / f"{n}.png")
        mask(stored / "masks" / f"{n}.png")

    def first() -> np.ndarray:
        return next(iter(load_data(stored, cache="disk", batch_size=1).train.as_stored()))[1].numpy()

    before = first()
    for path in (stored / "masks").iterdir():
        Image.fromarray(np.ones(SIZE, np.uint8)).save(path)
        os.utime(path, ns=(1, 1))
    assert (first() == 1).all() and (before == 0).any()


def test_names_of_colours_count_for_the_key(tmp_path):
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[2:] = 255, 0, 0
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(colours).save(tmp_path / "masks" / f"{n}.png")
    keys = set()
    for lines in ("0,0,0,road\n255,0,0,car\n", "255,0,0,car\n0,0,0,road\n"):
        (tmp_path / "own.csv").write_text(lines)
        keys.add(read_folder(tmp_path, Reading(masks_as="palette=own.csv")).key())  # the file is in the folder
    assert len(keys) == 2


def test_a_file_of_colours_may_be_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.csv").write_text("0,0,0,road\n255,0,0,car\n")
    assert parse_meaning("palette=~/own.csv", None, tmp_path / "x").palette.names == ("road", "car")


def test_coco_in_each_split_keeps_the_numbers_of_its_categories(tmp_path):
    for split in ("train", "valid", "test"):
        names = [picture(tmp_path / split / f"{n}.jpg").name for n in range(3)]
        coco(tmp_path / split / "_annotations.coco.json", names, ["zebra", "apple"])
    source = read_folder(tmp_path, Reading())
    assert source.class_names == ("background", "zebra", "apple")
    assert set(np.unique(next(iter(source.train.examples))[1])) == {0, 2}
    coco(tmp_path / "test" / "_annotations.coco.json", names, ["apple", "zebra"])
    with pytest.raises(
        ValueError, match="must have the same categories. Received: .*apple, zebra in .*test; .*zebra, apple in"
    ):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize("below", [".", "photos"])
def test_coco_images_of_one_name_in_several_folders(tmp_path, below):
    names = ["a/1.png", "b/1.png", "a/2.png", "b\\2.png", "a/3.png"]
    for n, name in enumerate(names):
        picture(tmp_path / below / name.replace("\\", "/"), n)
    coco(tmp_path / "annotations" / "all.json", names, ["cell"])
    samples = read_folder(tmp_path, Reading()).summary.samples
    found = {sample.image.relative_to(tmp_path / below).as_posix() for sample in samples}
    assert found == {name.replace("\\", "/") for name in names}


def test_coco_images_of_one_name_in_the_folders_of_splits(tmp_path):
    for split in ("train", "test"):
        names = [picture(tmp_path / "photos" / f"{split}2017" / f"{n}.png", n).name for n in range(3)]
        coco(tmp_path / "annotations" / f"instances_{split}2017.json", names, ["cell"])
    for sample in read_folder(tmp_path, Reading(validation_split=0)).summary.samples:
        assert sample.image.parent.name == f"{sample.split}2017"
    picture(tmp_path / "more" / "train2017" / "1.png")
    with pytest.raises(ValueError, match="lists 1 image for which there is no file, or more than one: 1"):
        read_folder(tmp_path, Reading())


def test_coco_of_boxes_alone_is_refused(tmp_path):
    coco(tmp_path / "a.json", [picture(tmp_path / "1.png").name], ["cell"], segmentation=[])
    with pytest.raises(ValueError, match="1 annotation in .* has no outline"):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize(
    "line",
    ["{folder}/{n} one.png", "{folder}/{n} one", "./{folder}/{n} one.png", "/from/elsewhere/{folder}/{n} one.png"],
)
def test_lists_of_splits_name_folders_and_names_with_spaces(tmp_path, line):
    for folder in ("cat", "dog"):
        for n in range(4):
            picture(tmp_path / folder / f"{n} one.png", 60 * n)
    for name, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        lines = [line.format(folder=folder, n=n) for folder in ("cat", "dog") for n in numbers]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n\n")
    source = read_folder(tmp_path, Reading())
    split = {"0": "train", "1": "train", "2": "validation", "3": "test"}
    assert all(sample.split == split[sample.image.name[0]] for sample in source.summary.samples)


def test_lines_of_lists_that_name_no_single_image_are_said(tmp_path):
    for folder in ("cat", "dog"):
        for n in range(4):
            picture(tmp_path / folder / f"{n}.png", 60 * n)
    (tmp_path / "test.txt").write_text("cat/0.png cat\n1\nowl\n")
    with pytest.warns(UserWarning, match="2 lines in the lists of splits .*: 1 in test.txt, owl in test.txt"):
        source = read_folder(tmp_path, Reading())
    assert source.test.count == 1


def grouped(sizes: list[int], label: int = 0) -> Table:
    samples = [
        Sample(Path(f"{group}-{n}"), label, group=f"g{group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    ]
    return Table(Path("x"), samples, ("a", "b"))


@pytest.mark.parametrize(
    "sizes, counts, is_said",
    [
        ([50, 50], (50, 0, 50), True),  # two patients: one tests, and one trains
        ([50, 50, 50], (50, 50, 50), True),
        ([5, 5, 5, 90], (90, 0, 15), False),
        ([10, 10, 10, 10], (20, 10, 10), True),
        ([100], (100, 0, 0), False),
        ([1] * 10, (7, 1, 2), False),
    ],
)
def test_large_groups_leave_images_in_each_split(sizes, counts, is_said):
    table = assign(grouped(sizes), Reading())
    found = [sample.split for sample in table.samples]
    assert tuple(found.count(split) for split in ("train", "validation", "test")) == counts
    assert any("The groups are large" in doubt for doubt in table.doubts) == is_said


def test_a_mask_of_the_name_of_its_image_is_not_the_image(tmp_path):
    for n in range(5):
        picture(tmp_path / "photos" / f"{n}.png")
        mask(tmp_path / "masks" / f"{n}.png")
    (tmp_path / "all.csv").write_text("image,mask\n" + "".join(f"{n}.png,{n}.png\n" for n in range(5)))
    for sample in read_folder(tmp_path, Reading(split_file="all.csv")).summary.samples:
        assert (sample.image.parent.name, sample.mask.parent.name) == ("photos", "masks")


def test_broken_files_are_told_from_stacks(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for n in range(2):
            pages = np.zeros((3, 2 if name == "images" else 1, *SIZE), np.uint8)
            pages[1:, :, 2:] = 1
            axes = "ZCYX"
            if name == "masks":
                pages, axes = pages[:, 0], "ZYX"
            tifffile.imwrite(tmp_path / name / f"{n}.tif", pages, imagej=True, metadata={"axes": axes})
    with pytest.warns(UserWarning) as said:
        source = read_folder(tmp_path, Reading(broken="skip"))
    assert not source.summary.unreadable and not any("Left out" in str(each.message) for each in said)
    assert len(source.summary.samples) == 6


def test_one_mask_too_few_is_named(tmp_path):
    for n in range(6):
        picture(tmp_path / f"{n}.png")
        if n:
            mask(tmp_path / f"{n}_mask.png")
    with pytest.raises(ValueError, match="images without a mask: 0.png"):
        read_folder(tmp_path, Reading())


def test_a_regular_expression_of_groups_wins_over_a_column_that_nobody_named(tmp_path):
    lines = [f"{picture(tmp_path / f'site{n % 3}_{n}.png', 20 * n).name},{'xy'[n % 2]},c{n}" for n in range(9)]
    (tmp_path / "all.csv").write_text("file,label,case\n" + "\n".join(lines))
    for group_by, groups in ((r"site\d+", 3), ("case", 9), (None, 9)):
        reading = Reading(split_file="all.csv", group_by=group_by, test_split=0.0, validation_split=0.0)
        assert len({sample.group for sample in read_folder(tmp_path, reading).summary.samples}) == groups


@pytest.mark.parametrize("test_split", [-0.1, 1.5])
def test_the_fraction_of_test_images_is_checked(tmp_path, test_split):
    with pytest.raises(ValueError, match=r"`test_split` must be in \[0, 1\]. Received: test_split="):
        load_data(tmp_path, test_split=test_split)


def test_a_missing_package_does_not_ask_to_replace_the_files():
    reason = ValueError("its compression needs another package. Install it: pip install imagecodecs")
    broken = {path: str(unreadable(path, reason)) for path in (Path("a.tif"), Path("b.tif"))}
    with pytest.raises(ValueError, match=r"^Cannot read a.tif: its compression .* pip install imagecodecs$"):
        refuse_broken(broken)
