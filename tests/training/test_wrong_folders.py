"""Every way in which a folder can be wrong, and the folders of real data."""

import numpy as np
import pytest

from _pictures import SHARED, pixels, stored, write, write_pairs
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data


def unpaired(folder):
    write_pairs(folder, count=3)
    (folder / "masks" / "01.png").unlink()
    write(folder / "masks" / "07.png", pixels())


def truncated(suffix):
    def make(folder):
        write_pairs(folder, count=2, height=60, width=80, image_suffix=suffix)
        path = folder / "images" / f"01{suffix}"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def replaced(name, image):
    def make(folder):
        write_pairs(folder, count=2)
        write(folder / name, image)

    return make


def twins(folder):
    write_pairs(folder, count=2)
    write(folder / "images" / "00.jpg", pixels())


def text(folder):
    write_pairs(folder, count=2)
    (folder / "images" / "00.png").write_text("a letter")


def empty_class(folder):
    write(folder / "a" / "0.png", pixels())
    (folder / "b").mkdir()


@pytest.mark.parametrize(
    "make, messages",
    [
        (
            lambda folder: folder.rmdir(),
            ["No such folder", "Expected a folder with images/ and masks/, or with one folder for each class"],
        ),
        (lambda folder: None, ["Expected images/ and masks/, or at least two class folders, in"]),
        (lambda folder: write(folder / "images" / "0.png", pixels()), ["Expected images/ and masks/"]),
        (empty_class, ["No images in", "Expected files ending in .bmp, .gif"]),
        (unpaired, ["images without a mask: 01.png; masks without an image: 07.png"]),
        (twins, ["File names must differ in more than their extensions", "00"]),
        (truncated(".png"), ["Cannot read", "01.png", "Replace or remove the file"]),
        (truncated(".jpg"), ["Cannot read", "01.jpg"]),
        (truncated(".bmp"), ["Cannot read", "01.bmp"]),
        (truncated(".tif"), ["Cannot read", "01.tif"]),
        (text, ["Cannot read", "00.png"]),
        (replaced("masks/01.png", pixels(5, 8, 1)), ["its image's height and width", "of 6x8 with", "of 5x8"]),
        (replaced("masks/01.png", pixels()), ["class ids in one channel", "masks/01.png with 3 channels"]),
        (
            replaced("images/01.png", pixels(channels=1)),
            ["same number of channels", "with 3 and", "--channels"],
        ),
    ],
)
def test_folders_that_are_wrong(tmp_path, make, messages):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(ValueError) as error:
        load_data(folder)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.full((6, 8, 1), 1.5, "float32"), "Float images must be in [0, 1]"),
        (np.full((6, 8, 1), np.nan, "float32"), "Float images must be in [0, 1]"),
        (np.ones((6, 8, 1), "int32"), "Expected uint8, uint16 or float images. Received"),
        (np.full((6, 8, 1), 4095, "int32"), "such as 0,4095"),
        (np.full((6, 8, 1), -1000, "int32"), "such as -1000,0"),
        (np.zeros((6, 8, 1), "int32"), "such as 0,255"),
        (np.linspace(-1000, 3000, 48).reshape(6, 8, 1).astype("int32"), "such as -1000,3000"),
        (np.full((6, 8, 1), 1.5, "float32"), "such as 0,1.5"),
    ],
)
def test_tiffs_that_are_wrong(tmp_path, image, message):
    write(tmp_path / "images" / "a.tif", image)
    with pytest.raises(ValueError) as error:
        stored(tmp_path / "images" / "a.tif")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(data_dir="x"), "`data_dir` and `manual_dir` are only for TFDS names"),
        (dict(augment="crop=7"), "`crop` must fit in the images of 6x8. Received: crop=(7, 7)"),
        (dict(augment="saturation=0.5", num_channels=1), "`saturation` needs RGB images"),
        (dict(validation_split=0.99), "No training image is left"),
    ],
)
def test_arguments_that_do_not_suit_the_folder(tmp_path, arguments, message):
    write_pairs(tmp_path, count=10)
    with pytest.raises(ValueError) as error:
        load_data(tmp_path, **arguments)
    assert message in str(error.value)


def test_five_channels_cannot_be_turned_grey(tmp_path):
    write(tmp_path / "images" / "a.tif", pixels(channels=5))
    write(tmp_path / "masks" / "a.png", pixels(channels=1) // 128)
    with pytest.raises(ValueError, match="images that have 1 or 3 channels. Received: images with 5 channels"):
        load_data(tmp_path, num_channels=1)


@pytest.mark.parametrize(
    "name, shape, counts",
    [("dsb2018_nuclei", (256, 256, 3), (115, 13, 32)), ("isbi2012_membranes", (512, 512, 1), (22, 2, 6))],
)
def test_real_folders(name, shape, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the real images of {name} beside the checkout")
    source = read_folder(SHARED / name, Reading(validation_split=0.1))
    assert source.image_shape == shape and len(source.class_names) == 2
    assert (source.train.count, source.validation.count, source.test.count) == counts
