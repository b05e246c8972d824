"""Data sets whose masks are drawn from objects, in the layouts in which people publish them."""

import json

import numpy as np
from PIL import Image

from _folders import SIZE, mask, picture

FIRST, SECOND = np.zeros((2, *SIZE), np.uint8)
FIRST[1:3, 1:4] = 1
SECOND[2:5, 3:6] = 1  # it overlaps the first
BOTH = FIRST | SECOND


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def images(root, name, numbers):
    for n in numbers:
        picture(root / name.format(n))


def runs(inside, order="F"):
    """Returns run lengths as on Kaggle: from 1 on, down the columns."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.ravel(order), [0]])))
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(edges[::2], edges[1::2], strict=True))


def parts(root, name, values=255):
    """Writes the masks of two objects."""
    for k, each in enumerate((FIRST, SECOND), 1):
        mask(root / name.format(k), each * np.uint8(values))


def nuclei(root):
    for n in range(5):
        picture(root / f"id{n}" / "images" / f"id{n}.png")
        parts(root / f"id{n}", f"masks/{n}e{{}}c.png")


def science_bowl(root):
    nuclei(root / "stage1_train")
    images(root, "stage1_test/x{0}/images/x{0}.png", range(3))
    rows = [f"id{n},{runs(each)}" for n in range(5) for each in (FIRST, SECOND)]
    write(root / "stage1_train_labels.csv", "ImageId,EncodedPixels", *rows)
    write(root / "stage1_sample_submission.csv", "ImageId,EncodedPixels", "x0,1 1")


def labels_beside(root):
    nuclei(root)
    write(root / "labels.csv", "ImageId,EncodedPixels", *(f"id{n},{runs(FIRST)}" for n in range(5)))


def numbered(root):
    images(root, "images/cell_{}.png", range(1, 13))
    for n in range(1, 13):
        parts(root, f"masks/cell_{n}_{{}}.png")


def below(root):
    images(root, "images/{}.jpg", range(5))
    for n in range(5):
        parts(root, f"masks/{n}/nucleus {{}}.png", 1)


def below_in_splits(root):
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        images(root, f"{split}/images/{{}}.png", numbers)
        for n in numbers:
            parts(root, f"{split}/masks/{n}/{{}}.png")


def ultrasound(root):
    for n in range(4):
        picture(root / f"benign ({n}).png")
        mask(root / f"benign ({n})_mask.png", FIRST * np.uint8(255))
        mask(root / f"benign ({n})_mask_1.png", SECOND * np.uint8(255))


def colours(root):
    nuclei(root)
    for path in root.glob("*/masks/*.png"):
        inside = np.asarray(Image.open(path))[..., None] > 0
        mask(path, np.where(inside, np.uint8((250, 120, 0, 255)), np.uint8((0, 0, 0, 255))))


def science_bowl_without_masks(root):
    for n in range(5):
        picture(root / "stage1_train" / f"id{n}" / "images" / f"id{n}.png")
    rows = [f"id{n},{runs(each)}" for n in range(5) for each in (FIRST, SECOND)]
    write(root / "stage1_train_labels.csv", "ImageId,EncodedPixels", *rows)


def named_apart(root):
    images(root, "images/image-{:03}.png", range(5))
    for n in range(5):
        parts(root, f"masks/mask-{n:03}-{{}}.tif")


def cell_lists(root):
    images(root, "images/{}.png", range(5))
    places = {"train": (0, 1, 2), "val": (3,), "test": (4,)}
    for split, numbers in places.items():
        names = [{"id": n, "file_name": f"{n}.png", "height": 6, "width": 8} for n in numbers]
        shapes = []
        for n in numbers:
            for each in (FIRST, SECOND):
                edges = np.flatnonzero(np.diff(np.concatenate([[0], each.ravel("F"), [0]])))
                counts = np.diff([0, *edges, each.size]).tolist()
                outline = {"size": [6, 8], "counts": counts}
                shapes.append({"id": n, "image_id": n, "category_id": 1, "segmentation": outline, "iscrowd": 1})
        content = {"images": names, "annotations": shapes, "categories": [{"id": 1, "name": "object"}]}
        write(root / f"livecell_coco_{split}.json", json.dumps(content))


def ships(root):
    images(root, "train_v2/{}.jpg", range(5))
    images(root, "test_v2/{}.jpg", range(5, 8))
    rows = [f"{n}.jpg,{runs(each)}" for n in range(4) for each in (FIRST, SECOND)]
    write(root / "train_ship_segmentations_v2.csv", "ImageId,EncodedPixels", *rows, "4.jpg,")
    write(root / "sample_submission_v2.csv", "ImageId,EncodedPixels", "5.jpg,1 2")


def salt(root):
    images(root, "train/images/{}.png", range(5))
    rows = [f"{n},{runs(BOTH)}" for n in range(4)]
    write(root / "train.csv", "id,rle_mask", *rows, "4,")
    write(root / "depths.csv", "id,z", *(f"{n},{n}00" for n in range(5)))


def pneumothorax(root):
    images(root, "dicom/{}.png", range(5))
    rows = [f"{n},{runs(BOTH)}" for n in range(4)]
    write(root / "train-rle.csv", "ImageId, EncodedPixels", *rows, "4, -1")


def along_rows(root):
    images(root, "photos/{}.png", range(5))
    rows = [f"{n},{runs(each, 'C')},astro" for n in range(5) for each in (FIRST, SECOND)]
    write(root / "train.csv", "id,annotation,cell_type", *rows)
