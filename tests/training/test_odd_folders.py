"""Folders as cameras, spreadsheets and other programs leave them: each is read, or an error says what to do."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from _folders import RANDOM, SIZE, ids, mask, pairs, picture
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data


def turned(path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    picture(path, exif=exif)


def test_masks_of_photographs_that_exif_turns(tmp_path):
    """The mask of an image on its side has another size, and that of one upside down may only seem to fit."""
    pairs(tmp_path, 4, "images/{}.jpg", "masks/{}.png")
    turned(tmp_path / "images" / "2.jpg", 3)
    with pytest.warns(UserWarning, match=r"1 image is turned upright by the orientation in the file.*2\.jpg"):
        read_folder(tmp_path, Reading())
    turned(tmp_path / "images" / "1.jpg", 6)
    with pytest.raises(
        ValueError, match="8x6 with .* of 6x8. The image is turned upright .* Turn the mask in the same way"
    ):
        read_folder(tmp_path, Reading())


def test_masks_in_the_alpha_channel_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    for name in "abcd":
        for folder in ("images", "masks"):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            shape = ids() % 2 * np.uint8(255)
            Image.fromarray(shape if folder == "images" else np.stack([shape] * 4, -1)).save(path, exif=exif)
    image, given = next(iter(load_data(tmp_path, batch_size=1, masks_as="alpha").train))
    np.testing.assert_array_equal(image[..., 0], given)


def test_run_lengths_of_images_that_exif_turns_are_doubted(tmp_path):
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.jpg")
    turned(tmp_path / "images" / "2.jpg", 3)
    (tmp_path / "train.csv").write_text("ImageId,EncodedPixels\n" + "".join(f"{n},1 3 9 2\n" for n in range(4)))
    with pytest.warns(UserWarning, match=r"1 image is turned upright by the orientation in the file.*2\.jpg"):
        read_folder(tmp_path, Reading())


def test_masks_that_exif_turns_too(tmp_path):
    """A program that copies all metadata from an image to its mask copies the orientation."""
    exif = Image.Exif()
    exif[274] = 6
    for name in "abcd":
        for folder, white in (("images", 255), ("masks", 1)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(ids() % 2 * np.uint8(white)).save(path, exif=exif)
    image, given = next(iter(load_data(tmp_path, batch_size=1).train))
    assert image.shape == (1, SIZE[1], SIZE[0], 1)
    np.testing.assert_array_equal(image[..., 0], given)


@pytest.mark.parametrize("layout", ["masks/{}.png", "masks/{}_1.png"])
def test_a_mask_of_another_size_says_what_to_do(tmp_path, layout):
    pairs(tmp_path, 3, "images/{}.png", layout)
    mask(tmp_path / layout.format(1), np.pad(ids(), ((0, 1), (0, 0))))
    with pytest.raises(ValueError, match="6x8 with .* of 7x8. Resize or crop one of them"):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize("first", ["", "sep=;\r\n", '"sep=;"\r\n'])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets_on_windows(tmp_path, encoding, first):
    rows = [f'"Bilder\\Bäume {n}.JPG";{"Käse" if n % 2 else "Brot"}' for n in range(6)]
    for n in range(6):
        picture(tmp_path / "bilder" / f"bäume {n}.jpg")
    (tmp_path / "labels.csv").write_bytes((first + "\r\n".join(["File;Label", *rows, ""])).encode(encoding))
    source = read_folder(tmp_path, Reading())
    assert source.class_names == ("Brot", "Käse")
    labels = {path.stem[-1]: label for path, label in ((s.image, s.label) for s in source.summary.samples)}
    assert labels == {str(n): n % 2 for n in range(6)}


def test_a_name_in_another_case_means_a_file_only_if_no_other_has_it(tmp_path):
    for name in ("a.png", "A.png", "b.png"):
        picture(tmp_path / "images" / name)
    if len(list((tmp_path / "images").iterdir())) < 3:
        pytest.skip("the file system does not tell cases apart")
    table = tmp_path / "table.csv"
    table.write_text("file,label\na.png,0\nA.png,1\nB.png,1\n")
    source = read_folder(tmp_path, Reading(split_file=str(table)))
    assert [sample.image.name for sample in source.summary.samples] == ["a.png", "A.png", "b.png"]
    table.write_text("file,label\nA.PNG,0\nB.png,1\n")
    with pytest.raises(ValueError, match="For 1 of 2 files .*, there is no file, or more than one: A.PNG"):
        read_folder(tmp_path, Reading(split_file=str(table)))


def test_the_name_of_the_folder_is_no_pattern(tmp_path):
    root = tmp_path / "cells [v2] (copy)?*"[: -2 if sys.platform == "win32" else None]
    pairs(root, 4, "images/{}.png", "other/{}.png")
    source = read_folder(root, Reading(images="images/*.png", masks="oth*/*.png"))
    assert source.task == "segmentation" and len(source.summary.samples) == 4
    source = read_folder(root, Reading(images="images", masks="other/[0-9].png"))
    assert len(source.summary.samples) == 4


@pytest.mark.parametrize("void", [-1, -100])
def test_a_label_below_zero_may_mean_void(tmp_path, void):
    for n in range(4):
        picture(tmp_path / "images" / f"{n}.png")
        values = ids().astype("int64")
        values[0] = void
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.save(tmp_path / "masks" / f"{n}.npy", values)
    with pytest.raises(ValueError, match=f"down to {void}.*--ignore-class {void}"):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(ignore_class=void))
    assert source.class_names == ("0", "1")
    _, labels = source.train.read(0)
    np.testing.assert_array_equal(np.unique(labels), [void, 0, 1])


def test_a_stack_of_masks_in_one_array_names_the_option(tmp_path):
    for name, values in (("images", RANDOM.integers(0, 255, (12, *SIZE), "uint8")), ("masks", [ids()] * 12)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.stack(values))
        np.save(tmp_path / name / "b.npy", np.stack(values))
    with pytest.raises(ValueError, match=r"8 channels .* stack of masks.*--pages images"):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize("end", ["_MASK", "_Mask"])
def test_masks_beside_images_in_capitals(tmp_path, end):
    pairs(tmp_path, 4, "{}.JPG", f"{{}}{end}.PNG")
    assert read_folder(tmp_path, Reading()).task == "segmentation"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_in_utf_8_is_refused(tmp_path):
    for name in ("cat", "dog"):
        for n in range(3):
            picture(tmp_path / name / f"{n}.png")
    os.rename(tmp_path / "cat" / "1.png", os.fsencode(tmp_path / "cat") + b"/K\xf6ln.png")
    with pytest.raises(ValueError, match=r"must be in UTF-8. Received: .*K\\xf6ln.png"):
        read_folder(tmp_path, Reading())
