"""Data sets as they are downloaded: each is read as it is meant, or refused with a way on."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from _folders import ids, mask, pairs, picture
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.table import Reading


def write(path, text, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **how)


def images(root, name, numbers):
    for n in numbers:
        picture(root / name.format(n))


def kaggle(root):
    images(root, "train/{}.jpg", range(6))
    images(root, "test/{}.jpg", range(6, 9))
    write(root / "train.csv", "id,breed\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(6)))
    write(root / "sample_submission.csv", "id,breed\n" + "".join(f"{n},a\n" for n in range(6, 9)))


def gtsrb(root):
    images(root, "Train/{}.ppm", range(4))
    images(root, "Test/{}.ppm", range(4, 6))
    for split, numbers in (("Train", range(4)), ("Test", range(4, 6))):
        write(root / f"{split}.csv", "ClassId,Path\n" + "".join(f"{n % 2},{split}/{n}.ppm\n" for n in numbers))


def ham10000(root):
    rows = [f"L{n // 4},ISIC_{n},{'ab'[n % 2]},{n}.5" for n in range(8)]
    write(root / "HAM10000_metadata.csv", "lesion_id,image_id,dx,age\n" + "\n".join(rows))
    for n in range(8):
        picture(root / f"HAM10000_images_part_{1 + n // 4}" / f"ISIC_{n}.jpg")


def one_hot(root):
    images(root, "images/ISIC_{}.jpg", range(6))
    write(root / "truth.csv", "image,a,b\n" + "".join(f"ISIC_{n},{1.0 - n % 2},{n % 2 * 1.0}\n" for n in range(6)))


def food(root):
    for name in "ab":
        images(root, f"images/{name}/{{}}.jpg", range(4))
    for split, numbers in (("train", (0, 1, 2)), ("test", (3,))):
        write(root / "meta" / f"{split}.txt", "".join(f"{name}/{n}\n" for name in "ab" for n in numbers))


def split_in_class(root):
    for name in "ab":
        images(root, f"{name}/train/{{}}.png", range(3))
        images(root, f"{name}/test/{{}}.png", range(3, 4))


def intel(root):
    for split, numbers in (("train", range(3)), ("test", range(3, 4))):
        for name in "ab":
            images(root, f"seg_{split}/seg_{split}/{name}/{{}}.jpg", numbers)
    images(root, "seg_pred/seg_pred/{}.jpg", range(5))


def dogs(root):
    for name in "ab":
        images(root, f"Images/{name}/{{}}.jpg", range(3))
        write(root / "Annotation" / name / "0", "<annotation>")


def linked(root):
    for name in "ab":
        images(root, f"store/{name}/{{}}.png", range(3))
        (root / "data" / name).mkdir(parents=True)
        os.symlink(root / "store" / name, root / "data" / name / "link")
        os.symlink(root / "data", root / "data" / name / "again")  # a loop
    return root / "data"


def spreadsheet(root):
    images(root, "photos/{}.png", range(6))
    rows = "".join(f"photos\\{n}.png;{'ab'[n % 2]}\r\n" for n in range(6))
    write(root / "a.csv", "Image Name;Label\r\n" + rows, encoding="utf-16")


def accents(root):
    images(root, unicodedata.normalize("NFD", "photos/é{}.png"), range(6))
    write(root / "a.csv", "file|label\n" + "".join(f"é{n}.png|{'ab'[n % 2]}\n" for n in range(6)))


@pytest.mark.parametrize(
    "make, splits",
    [
        (kaggle, {"": 6}),
        (gtsrb, {"train": 4, "test": 2}),
        (ham10000, {"": 8}),
        (one_hot, {"": 6}),
        (food, {"train": 6, "test": 2}),
        (split_in_class, {"train": 6, "test": 2}),
        (intel, {"train": 6, "test": 2}),
        (dogs, {"": 6}),
        (linked, {"": 6}),
        (spreadsheet, {"": 6}),
        (accents, {"": 6}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_labels(tmp_path, make, splits):
    table = read_layout(make(tmp_path) or tmp_path, Reading())
    assert table.task == "classification" and table.class_names in (("a", "b"), ("0", "1"))
    found = [sample.split for sample in table.samples]
    assert {split: found.count(split) for split in set(found)} == splits
    assert {sample.label for sample in table.samples} == {0, 1}
    assert make is not ham10000 or len({sample.group for sample in table.samples}) == 2


@pytest.mark.parametrize(
    "head, marks, class_names, labels",
    [
        ("image,x,y,z", ("1,0,0", "0,1,0", "0,0,1"), ("x", "y", "z"), [0, 1, 2]),
        ("image,cat,dog,target", ("1.0,0,0", "0,1.0,0", "0,0,1.0"), ("cat", "dog", "target"), [0, 1, 2]),
        ("image,male,female,y", ("1,0,0", "0,1,1", "0,1,0"), ("0", "1"), [0, 1, 0]),
        ("image,male,female,y", ("1,0,0", "0,1,0", "0,1,0"), ("0",), [0, 0, 0]),
        ("image,age,sex,y", ("31,0,0", "45,1,1", "60,0,1"), ("0", "1"), [0, 1, 1]),
    ],
)
def test_a_class_may_have_the_name_of_a_column_of_labels(tmp_path, head, marks, class_names, labels):
    images(tmp_path, "images/{}.jpg", range(6))
    write(tmp_path / "truth.csv", f"{head}\n" + "".join(f"{n},{marks[n % 3]}\n" for n in range(6)))
    table = read_layout(tmp_path, Reading())
    assert table.class_names == class_names
    assert [sample.label for sample in table.samples] == labels * 2


def isic(root):
    for split in ("Training", "Validation"):
        name = f"ISIC2018_Task1_{split}"
        pairs(root, 3, f"{name}_Input/I{{}}.jpg", f"{name}_GroundTruth/I{{}}_segmentation.png")


def pets(root):
    pairs(root, 6, "images/cat_{}.jpg", "annotations/trimaps/cat_{}.png", values=ids(3) + np.uint8(1))
    for name, numbers in (("trainval", range(4)), ("test", range(4, 6))):
        write(root / "annotations" / f"{name}.txt", "".join(f"cat_{n} 1 1 1\n" for n in numbers))
    write(root / "annotations" / "xmls" / "cat_0.xml", "x")


def voc(root):
    images(root, "JPEGImages/{}.jpg", range(9))
    pairs(root, 6, "JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    pairs(root, 6, "JPEGImages/{}.jpg", "SegmentationObject/{}.png")
    write(root / "Annotations" / "0.xml", "x")
    for name, numbers in (("train", range(4)), ("val", range(4, 6)), ("trainval", range(6))):
        write(root / "ImageSets" / "Segmentation" / f"{name}.txt", "".join(f"{n}\n" for n in numbers))
        write(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{n}\n" for n in range(9)))


def drive(root):
    for split, count in (("training", 4), ("test", 2)):
        pairs(root, count, f"{split}/images/{{}}_{split}.tif", f"{split}/1st_manual/{{}}_manual1.gif")
        pairs(root, count, f"{split}/images/{{}}_{split}.tif", f"{split}/mask/{{}}_{split}_mask.gif")


def unlabelled_test(root):
    pairs(root, 4, "images/train/{}.png", "masks/train/{}.png")
    images(root, "images/test/{}.png", range(2))


def bare_test(root):
    pairs(root, 4, "train/images/{}.png", "train/masks/{}.png")
    images(root, "test/images/{}.png", range(2))
    (root / "test" / "masks").mkdir()


def coco2017(root):
    for split, count in (("train", 4), ("val", 2)):
        images(root, f"{split}2017/{{}}.jpg", range(count + 1))  # one has no annotation
        names = [{"id": n, "file_name": f"{n}.jpg", "height": 6, "width": 8} for n in range(count)]
        outline = {"size": [6, 8], "counts": [7, 2, 39]}
        shapes = [{"id": n, "image_id": n, "category_id": 90, "segmentation": outline} for n in range(count)]
        content = {"images": names, "annotations": shapes, "categories": [{"id": 90, "name": "x"}]}
        for kind in ("instances", "person_keypoints"):
            write(root / "annotations" / f"{kind}_{split}2017.json", json.dumps(content))


GLOBS = {"images": "**/images/*", "masks": "**/1st_manual/*"}


@pytest.mark.parametrize(
    "make, options, splits, said",
    [
        (isic, {}, {"train": 3, "validation": 3}, ""),
        (pets, {}, {"train": 4, "test": 2}, ""),
        (voc, {}, {"train": 4, "validation": 2}, "3 images are not in the list of any split"),
        (drive, GLOBS, {"train": 4, "test": 2}, ""),
        (unlabelled_test, {}, {"train": 4}, "2 images are in splits without masks"),
        (bare_test, {}, {"train": 4}, "holds 2 images without masks"),
        (coco2017, {}, {"train": 4, "validation": 2}, "2 images are not in any file of annotations"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_masks(tmp_path, make, options, splits, said):
    make(tmp_path)
    table = read_layout(tmp_path, Reading(**options))
    found = [sample.split for sample in table.samples]
    assert table.task == "segmentation" and {split: found.count(split) for split in set(found)} == splits
    assert said in " ".join(table.doubts)
    for sample in table.samples:
        if make is not coco2017:
            assert sample.mask.stem.replace("_segmentation", "").split("_manual")[0] in sample.image.stem
            assert sample.mask.parent.name not in ("mask", "SegmentationObject")


def test_run_lengths_that_do_not_cover_their_image(tmp_path):
    coco2017(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace("[7, 2, 39]", "[7, 2, 30]", 1))
    with pytest.raises(ValueError, match=r"val2017.0\.jpg must cover its 6x8 pixels\. Received: 39 pixels"):
        read_layout(tmp_path, Reading())


def parts(root):
    images(root, "images_part_1/{}.png", range(2))
    images(root, "images_part_2/{}.png", range(2, 4))


def kitti(root):
    for n in range(3):
        Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3) + np.uint8(n)).save(
            (root / f"image_2_{n}.png").with_name(f"{n}.png")
        )
        (root / "image_2").mkdir(exist_ok=True)
        os.replace(root / f"{n}.png", root / "image_2" / f"{n}.png")
        mask(root / "other" / f"{n}.png", np.eye(16, dtype=np.uint8))


def elsewhere(root):
    images(root, "a/{}.png", range(3))
    picture(root / "b" / "3.png")
    write(root / "rows.csv", "file,label\n" + "".join(f"a/{n}.png,{'ab'[n % 2]}\n" for n in range(4)))


def several_labels(root):
    images(root, "photos/{}.png", range(4))
    write(root / "rows.csv", "image,a,b,c\n0,1,1,0\n1,0,1,0\n2,0,0,0\n3,1,0,1\n")


def ages(root):
    images(root, "photos/{}.png", range(8))
    write(root / "rows.csv", "file,label\n" + "".join(f"{n}.png,{n + 0.37}\n" for n in range(8)))


def latin(root):
    images(root, "photos/{}.png", range(2))
    write(root / "rows.csv", "file,label\n0.png,Häuser\n1.png,Bäume\n", encoding="cp1252")


def nothing_said(root):
    images(root, "photos/{}.png", range(2))
    write(root / "rows.csv", "file,age,grade\n0.png,3,x\n1.png,4,y\n")


def rows_without_masks(root):
    pairs(root, 3, "a/{}.png", "b/{}.png")
    write(root / "rows.csv", "file,mask\na/0.png,b/0.png\na/1.png,\na/2.png,b/2.png\n")


def a_file(root):
    write(root / "rows.csv", "file,label\n")
    return root / "rows.csv"


@pytest.mark.parametrize(
    "make, options, message",
    [
        (drive, {}, "Several folders may hold the masks: .*--masks"),
        (parts, {}, "look like parts of one data set, not like classes.*--split-file"),
        (kitti, {}, r"other looks like the masks of .*image_2.*\(--masks\)"),
        (
            elsewhere,
            {"split_file": "rows.csv"},
            "For 1 of 4 files in .*, there is no file, .*: a/3.png",
        ),
        (several_labels, {}, "rows that mark 0 or 1 or 2 of the columns a, b, c"),
        (ages, {}, "Labels must be classes. Received: 8 numbers"),
        (latin, {"split_file": "rows.csv"}, "Expected text in UTF-8.*0xe4"),
        (nothing_said, {"split_file": "rows.csv"}, "must have a column label.*file, age, grade"),
        (rows_without_masks, {"split_file": "rows.csv"}, "Each row needs a mask. Received: 1 of 3 rows"),
        (a_file, {}, "Expected a folder. Received the file .*--split-file"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_refused_with_a_way_on(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=message):
        read_layout(make(tmp_path) or tmp_path, Reading(**options))
