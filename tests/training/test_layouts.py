"""The layouts that people have: each is read with its split, pairs and classes, or refused with a way on."""

import json
import re

import numpy as np
import pytest

from _folders import SIZE, counts, ids, mask, pairs, picture, train_and_test
from dropzoo.predictions.table import claim_files
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data


def camvid(root):
    for split, count in (("train", 8), ("val", 3), ("test", 5)):
        pairs(root, count, f"{split}/{{}}.png", f"{split}annot/{{}}.png")


def inside(root):
    for split, count in (("training", 8), ("validation", 3), ("testing", 5)):
        pairs(root, count, f"{split}/images/{{}}.png", f"{split}/masks/{{}}.png")


def ade(root):
    for split, count in (("training", 8), ("validation", 3), ("test", 5)):
        pairs(root, count, f"images/{split}/{{}}.jpg", f"annotations/{split}/{{}}.png")


def cityscapes(root):
    for split, count in (("train", 8), ("val", 3), ("test", 5)):
        name = f"{split}/city/a_{{}}"
        pairs(root, count, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_labelIds.png")
        pairs(root, count, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_instanceIds.png")


def underscores(root):
    for split, count in (("train", 8), ("valid", 3), ("test", 5)):
        pairs(root, count, f"{split}/{{}}.jpg", f"{split}_masks/{{}}_mask.gif")


def voc(root):
    pairs(root, 16, "JPEGImages/{:02}.jpg", "SegmentationClass/{:02}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, numbers in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 16))):
        (lists / f"{name}.txt").write_text("".join(f"{n:02}\n" for n in numbers))


def whole_voc(root):
    """With the boxes, the lists of other tasks, and the many images that have no mask."""
    voc(root)
    (root / "Annotations").mkdir()
    for number in range(16, 40):
        picture(root / "JPEGImages" / f"{number:02}.jpg")
        (root / "Annotations" / f"{number:02}.xml").write_text("<annotation/>")
    main = root / "ImageSets" / "Main"
    main.mkdir()
    (main / "train.txt").write_text("".join(f"{n:02}\n" for n in range(40)))


def with_predictions(root):
    """The masks and pictures that `predict` wrote beside the images are no images."""
    pairs(root, 16, "images/{:02}.png", "masks/{:02}.png")
    made = [root / "images" / f"{n:02}_{kind}.png" for n in range(3) for kind in ("mask", "prediction")]
    for path in made:
        picture(path)
    claim_files(root / "images" / "predictions.csv", made)


def fastai(root):
    pairs(root, 16, "images/{:02}.png", "labels/{:02}_P.png")
    (root / "valid.txt").write_text("".join(f"{n:02}.png\n" for n in (8, 9, 10)))


def listed(root):
    pairs(root, 16, "a/{:02}.png", "b/{:02}.png")
    rows = [("train", "val", "test")[(n >= 8) + (n >= 11)] for n in range(16)]
    lines = [f"a/{n:02}.png;b/{n:02}.png;{split}" for n, split in enumerate(rows)]
    (root / "split.csv").write_text("image;mask;subset\n" + "\n".join(lines))


def split_alone(root):
    pairs(root, 17, "images/{:02}.png", "masks/{:02}.png")
    rows = [f"{n:02},{('train', 'val', 'test')[(n >= 8) + (n >= 11)]}" for n in range(16)]
    (root / "split.csv").write_text("file,split\n" + "\n".join(rows))


def kvasir(root):
    pairs(root, 16, "photos/{:02}.jpg", "outlines/{:02}.png", values=255 * ids())


def globbed(root):
    pairs(root, 16, "p{0}/{0}.png", "p{0}/{0}_mask.png")


def one_folder(root):
    pairs(root, 16, "{:02}.png", "{:02}_seg.png")


def coco(root):
    images, shapes = [], []
    for n in range(16):
        picture(root / "photos" / f"{n:02}.jpg")
        images.append({"id": n, "file_name": f"{n:02}.jpg", "height": SIZE[0], "width": SIZE[1]})
        corners = [1, 1, 5, 1, 5, 4, 1, 4]
        shapes.append({"id": n, "image_id": n, "category_id": 7, "segmentation": [corners]})
    content = {"images": images, "annotations": shapes, "categories": [{"id": 7, "name": "cell"}]}
    (root / "annotations.json").write_text(json.dumps(content))


GIVEN, FIFTH = (8, 3, 5), (12, 1, 3)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "make, options, expected",
    [
        (camvid, {}, GIVEN),
        (inside, {}, GIVEN),
        (ade, {}, GIVEN),
        (cityscapes, {}, GIVEN),
        (underscores, {}, GIVEN),
        (voc, {}, GIVEN),
        (whole_voc, {}, GIVEN),
        (whole_voc, {"images": "JPEGImages", "masks": "SegmentationClass"}, GIVEN),
        (with_predictions, {}, FIFTH),
        (with_predictions, {"images": "images/*.png", "masks": "masks"}, FIFTH),
        (fastai, {}, (13, 3, 0)),
        (listed, {"split_file": "split.csv"}, GIVEN),
        (listed, {}, GIVEN),
        (split_alone, {"split_file": "split.csv"}, GIVEN),
        (kvasir, {"images": "photos", "masks": "outlines"}, FIFTH),
        (globbed, {"images": "**/*.png", "masks": "**/*_mask.png"}, FIFTH),
        (one_folder, {}, FIFTH),
        (coco, {}, FIFTH),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
@pytest.mark.filterwarnings("ignore:.*will be left out", "ignore:Names such as")
def test_masks_and_their_splits(tmp_path, make, options, expected):
    make(tmp_path)
    source = read_folder(tmp_path, Reading(**options))
    assert source.task == "segmentation" and len(source.class_names) == 2
    assert counts(source) == expected
    image, annotation = next(iter(source.train.examples))
    assert image.shape == (*SIZE, 3) and annotation.shape == (*SIZE, 1) and 0 < annotation.numpy().mean() < 1


def imagenet(root):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for name in ("cat", "dog"):
            for n in range(count):
                picture(root / split / name / f"{n}.jpg")


def nested(root):
    for name in ("cat", "dog"):
        for n in range(5):
            picture(root / name / f"{n}.jpg")
            picture(root / name / "more" / "deep" / f"{n}.webp")


def kaggle(root):
    for n in range(10):
        picture(root / "train" / f"{n}.jpg")
    (root / "train.csv").write_text(
        "id,label\n" + "".join(f"{n},{'dog' if n % 2 else 'cat'}\n" for n in range(10))
    )


def patients(root):
    rows = []
    for n in range(20):
        picture(root / f"{n}.jpg")
        rows.append(f"{n}.jpg,{'dog' if n % 2 else 'cat'},p{n // 2}")
    (root / "labels.csv").write_text("file,label,patient\n" + "\n".join(rows))


@pytest.mark.parametrize(
    "make, expected",
    [
        (imagenet, (8, 4, 6)),
        (train_and_test, (18, 2, 6)),
        (nested, (14, 2, 4)),
        (kaggle, (8, 0, 2)),
        (patients, (14, 2, 4)),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_labels_and_their_splits(tmp_path, make, expected):
    make(tmp_path)
    source = read_folder(tmp_path, Reading())
    assert (source.task, source.class_names) == ("classification", ("cat", "dog"))
    assert counts(source) == expected


def test_a_class_may_be_called_test(tmp_path):
    for name in ("blood", "test"):
        for n in range(5):
            picture(tmp_path / name / f"{n}.png")
    assert read_folder(tmp_path, Reading()).class_names == ("blood", "test")


def test_all_images_of_a_folder_are_test_images_if_asked(tmp_path):
    train_and_test(tmp_path)
    data = load_data(tmp_path, test_split=1, cache="none", batch_size=4)
    assert (data.info.num_train, data.info.num_test) == (0, 26)
    assert sum(len(labels) for _, labels in data.test) == 26
    with pytest.raises(ValueError, match="have their own split: test, train. Received: test_split=0.5"):
        load_data(tmp_path, test_split=0.5)


@pytest.mark.parametrize(
    "images, masks, options",
    [
        ("images/{}.png", "masks/{}_seg.png", {}),
        ("images/img_{}.png", "masks/mask_{}.png", {}),
        ("images/{}_sat.png", "masks/{}_mask.png", {}),
        ("images/{}.png", "masks/{}-labels.tif", {}),
        ("images/sub{}/{}.png", "masks/sub{}/{}.png", {}),
        ("images/{}.png", "masks/{}abc.png", {"mask_suffix": "abc"}),
        ("images/{}_training.tif", "masks/{}_manual1.gif", {}),
    ],
)
def test_names_that_pair(tmp_path, images, masks, options):
    for number in range(1, 12):
        picture(tmp_path / images.replace("{}", str(number)))
        values = np.full(SIZE, number % 2, np.uint8)
        values[0, 0] = 1
        mask(tmp_path / masks.replace("{}", str(number)), values)
    source = read_folder(tmp_path, Reading(**options))
    for sample in source.summary.samples:
        assert re.findall(r"\d+", sample.image.stem)[0] == re.findall(r"\d+", sample.mask.stem)[0]
