"""Masks that are drawn from objects: a file for each object, and run lengths in tables."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from _folders import SIZE, mask, pairs, picture
from dropzoo.training.data.files import classes
from dropzoo.training.data.files.drawing import counts_of, draw
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.table import Drawn, Reading, Starts
from dropzoo.training.data.folders import read_folder

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
@pytest.mark.filterwarnings("ignore:.*images without masks")
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
        (steel, ("background", "1", "3"), "1 images have no row in .* read as images without an object: 4.jpg"),
        (steel_with_joint_names, ("background", "1", "2", "3"), ""),
        (steel_from_a_spreadsheet, ("background", "1", "3"), ""),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*images have no row")
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


def another_size(root):
    nuclei(root)
    mask(root / "id2" / "masks" / "more.png", np.zeros((5, 8), np.uint8))


def greys(root):
    nuclei(root)
    mask(root / "id2" / "masks" / "more.png", np.arange(48, dtype=np.uint8).reshape(SIZE))


def broken(root):
    nuclei(root)
    (root / "id2" / "masks" / "more.png").write_bytes(b"\x89PNG\r\n")


def spare(root):
    numbered(root)
    mask(root / "masks" / "other_1.png")


def organs(root):
    images(root, "images/{}.png", range(4))
    for n in range(4):
        for name in ("liver", "spleen"):
            mask(root / "masks" / str(n) / f"{name}.png")


def annotators(root):
    images(root, "images/Image_{}.jpg", range(4))
    for n in range(4):
        for name in ("1stHO", "2ndHO"):
            mask(root / "masks" / f"Image_{n}_{name}.png")


def names_without_files(root):
    for n in range(2):
        images(root, f"train/case{n}/scans/slice_{{}}_6_8.png", range(3))
    write(root / "train.csv", "id,class,segmentation", "case0_slice_0,stomach,1 2", "case0_slice_1,stomach,")


def table(*rows):
    def make(root):
        images(root, "photos/{}.png", range(2))
        write(root / "train.csv", "ImageId,EncodedPixels", *rows)

    return make


@pytest.mark.parametrize(
    "make, options, message",
    [
        (another_size, {}, r"its image's height and width. Received: .*id2.png of 6x8 with .*more.png of 5x8"),
        (greys, {}, "must hold 0 and one other value. Received: .*more.png with 48 values.*--masks-as threshold"),
        (broken, {}, "Cannot read .*more.png.*--broken skip"),
        (spare, {}, "masks without an image: .*other_1.png"),
        (organs, {}, "differ in words: liver, spleen.*class ids"),
        (annotators, {}, "differ in words: ndho, stho.*--split-file"),
        (names_without_files, {}, "train.csv holds masks as run lengths, but its first names"),
        (numbered, {"mask_suffix": "_1"}, "masks without an image: cell_10_2.png"),
        (nuclei, {"masks_as": "ids"}, "mask of a single object of one class.*--masks-as"),
        (ships, {"masks_as": "palette"}, "outlines or run lengths, which hold no values.*--masks-as"),
        (table("0,1 2", "1,40 20"), {}, "the 48 pixels of an image of 6x8.*1.png.*up to pixel 59"),
        (table("0,0 2", "1,4 2"), {}, "0.png .*begins at pixel 0. Add 1"),
        (table("0,1 2 3", "1,4 2"), {}, "pairs of whole numbers.*'1 2 3' for 0 in"),
        (table("0,eNoLCAgIMAEABAkBVg==", "1,4 2"), {}, "pairs of whole numbers.*PNG files"),
        (table("0,1 2", "7,4 2"), {}, "1 of 2 files in .* do not exist: 7"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*images (without masks|have no row)")
def test_refused_with_a_way_on(tmp_path, make, options, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path, Reading(**options))


@pytest.mark.filterwarnings("ignore:Left out")
def test_greys_and_broken_files_have_ways_on(tmp_path):
    greys(tmp_path)
    kept = read_folder(tmp_path, Reading(masks_as="threshold=20")).summary
    assert kept.example(2)[1].sum() > BOTH.sum()
    broken(tmp_path)
    assert len(read_folder(tmp_path, Reading(broken="skip", masks_as="instances")).summary.samples) == 4


def test_masks_that_cover_each_other_are_doubted(tmp_path):
    images(tmp_path, "images/{}.png", range(4))
    for n in range(4):
        for person in range(3):
            mask(tmp_path / "masks" / f"{n}_{person}.png", FIRST)
    with pytest.warns(UserWarning, match="cover each other.*several people.*--split-file"):
        read_folder(tmp_path, Reading())


def test_folders_of_one_pair_are_ordinary_masks(tmp_path):
    pairs(tmp_path, 4, "{0}/images/slice.png", "{0}/masks/slice.png", values=BOTH * np.uint8(2))
    source = read_folder(tmp_path, Reading())
    assert source.class_names == ("0", "1", "2") and source.summary.example(0)[1].max() == 2


def test_many_masks_are_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "_MOST_LOOKED_AT", 4)
    nuclei(tmp_path)
    summary = read_folder(tmp_path, Reading()).summary
    assert "shares of the classes are those of 2 of the images" in " ".join(summary.notes)
    assert sum(sum(row.values()) for row in summary.counts.values()) == 2 * 48
    every = read_folder(tmp_path, Reading(broken="skip")).summary  # as in `inspect`
    assert sum(sum(row.values()) for row in every.counts.values()) == 5 * 48


def test_a_damaged_mask_is_named_while_training(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "_MOST_LOOKED_AT", 1)
    nuclei(tmp_path)
    path = tmp_path / "id3" / "masks" / "3e2c.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 255  # within the pixels: the header and the end are whole
    path.write_bytes(data)
    source = read_folder(tmp_path, Reading())
    with pytest.raises(ValueError, match="Cannot read .*3e2c.png"):
        source.check()


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
@pytest.mark.filterwarnings("ignore:.*images (without masks|have no row)")
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
