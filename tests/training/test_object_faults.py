"""Masks of objects that cannot be read as they are: each fault is named, with a way on, or doubted."""

import numpy as np
import pytest

from _folders import SIZE, mask, pairs
from _objects import BOTH, FIRST, images, nuclei, numbered, ships, write
from dropzoo.training.data.files import classes
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder


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
        (organs, {}, "tells them apart: liver, spleen.*class ids"),
        (annotators, {}, "tells them apart: ndho, stho.*--split-file"),
        (
            names_without_files,
            {},
            "train.csv holds masks as run lengths, but the first images that it names do not exist",
        ),
        (numbered, {"mask_suffix": "_1"}, "masks without an image: cell_10_2.png"),
        (nuclei, {"masks_as": "ids"}, "mask of a single object, so .*--masks-as"),
        (ships, {"masks_as": "palette"}, "outlines or run lengths, which hold no values.*--masks-as"),
        (table("0,1 2", "1,40 20"), {}, "an image of 6x8 have the numbers 1 to 48. .*1.png.*up to pixel 59"),
        (table("0,0 2", "1,4 2"), {}, "0.png .*begins at pixel 0. Add 1"),
        (table("0,1 2 3", "1,4 2"), {}, "pairs of whole numbers.*'1 2 3' for 0 in"),
        (table("0,eNoLCAgIMAEABAkBVg==", "1,4 2"), {}, "pairs of whole numbers.*PNG files"),
        (table("0,1 2", "7,4 2"), {}, "For 1 of 2 files in .*, there is no file, or more than one: 7"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*images? (without masks|(has|have) no row)")
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
    with pytest.warns(UserWarning, match="overlap.*several people.*--split-file"):
        read_folder(tmp_path, Reading())


def test_folders_of_one_pair_are_ordinary_masks(tmp_path):
    pairs(tmp_path, 4, "{0}/images/slice.png", "{0}/masks/slice.png", values=BOTH * np.uint8(2))
    source = read_folder(tmp_path, Reading())
    assert source.class_names == ("0", "1", "2") and source.summary.example(0)[1].max() == 2


def test_many_masks_are_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "_MOST_LOOKED_AT", 4)
    nuclei(tmp_path)
    summary = read_folder(tmp_path, Reading()).summary
    assert "shares of the classes were estimated from 2 of the images" in " ".join(summary.notes)
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
