"""The images behind paths: which files are images, their pages, and parts of them."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from dropzoo.predictions.paths import find_images
from dropzoo.predictions.reading import Rows, pages_of

RANDOM = np.random.default_rng(0)


def grey(*size: int) -> np.ndarray:
    return RANDOM.integers(0, 256, size, "uint8")


SAVED = {
    "grey": (grey(21, 17), {}),
    "colour, in tiles": (grey(21, 17, 3), {"tile": (16, 16), "compression": "zlib"}),
    "colour, in planes": (grey(3, 21, 17), {"planarconfig": "separate", "photometric": "rgb"}),
    "in strips": (grey(21, 17), {"rowsperstrip": 4, "compression": "zlib"}),
    "white is 0": (grey(21, 17), {"photometric": "miniswhite"}),
    "big-endian": (RANDOM.integers(0, 65535, (21, 17), "uint16"), {"byteorder": ">"}),
    "floats": (RANDOM.random((21, 17), "float32"), {}),
    "bits": (grey(21, 17) > 99, {}),
}


@pytest.mark.parametrize("pixels, how", SAVED.values(), ids=SAVED)
def test_parts_of_a_file_are_parts_of_the_image(pixels, how, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **how)
    (page,) = pages_of(tmp_path / "a.tif", 3)
    whole = page.read()
    with contextlib.closing(Rows(page)) as rows:
        assert rows.shape == whole.shape == (21, 17, whole.shape[2])
        for place in ((slice(0, 21), slice(0, 17)), (slice(3, 11), slice(5, 16)), (slice(20, 40), slice(0, 1))):
            np.testing.assert_array_equal(rows[place], whole[place])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_files_are_upright_as_a_whole_and_in_parts(orientation, tmp_path):
    Image.fromarray(grey(21, 17)).save(tmp_path / "a.tif", tiffinfo={274: orientation}, dpi=(50, 100))
    with Image.open(io.BytesIO((tmp_path / "a.tif").read_bytes())) as image:  # a path gives wrong rows
        shown = np.asarray(image)[..., None]  # Pillow turns TIFF files itself
    (page,) = pages_of(tmp_path / "a.tif", 1)
    np.testing.assert_array_equal(page.read(), shown)
    assert page.size == shown.shape[:2]
    assert page.tags.resolution == ((50, 100) if shown.shape[0] == 21 else (100, 50))
    with contextlib.closing(Rows(page)) as rows:
        assert rows.shape == shown.shape
        for place in ((slice(None), slice(None)), (slice(3, 11), slice(5, 16)), (slice(16, 40), slice(0, 1))):
            np.testing.assert_array_equal(rows[place], shown[place])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_map_stays_as_it_is_stored(compression, tmp_path):
    pixels, place = grey(21, 17), (0.0, 0.0, 0.0, 5.0, 50.0, 0.0)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={274: 6, 33922: place})
    (page,) = pages_of(tmp_path / "a.tif", 1)
    np.testing.assert_array_equal(page.read()[..., 0], pixels)
    assert page.size == pixels.shape


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientations", [(6, 1), (1, 6), (3, 8)])
def test_a_stack_stays_as_it_is_stored(orientations, compression, tmp_path):
    pixels = grey(2, 21, 17)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), True) as file:
        for each, orientation in zip(pixels, orientations, strict=True):
            Image.fromarray(each).save(file, "TIFF", compression=compression, tiffinfo={274: orientation})
            file.newFrame()
    for page, stored in zip(pages_of(tmp_path / "a.tif", 1), pixels, strict=True):
        np.testing.assert_array_equal(page.read()[..., 0], stored)


@pytest.mark.parametrize(
    "shape, axes, channels, pages",
    [
        ((5, 9, 8), "ZYX", 1, 5),
        ((5, 9, 8), "ZYX", 5, 1),  # channels, as when a folder is loaded
        ((2, 3, 9, 8), "TZYX", 1, 6),
        ((4, 9, 8, 3), "ZYXS", 3, 4),
        ((3, 2, 9, 8), "ZCYX", 2, 3),
        ((9, 8), "YX", 1, 1),
    ],
)
def test_the_pages_of_a_stack(shape, axes, channels, pages, tmp_path):
    pixels = grey(*shape)
    kind = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": axes}, photometric=kind, ome=False)
    found = pages_of(tmp_path / "a.tif", channels)
    assert len(found) == pages
    first = (
        np.moveaxis(pixels, 0, -1)
        if pages == 1 and len(shape) == 3
        else pixels[(0,) * (axes.index("Y") - ("C" in axes))]
    )
    wanted = np.moveaxis(first, 0, -1) if axes == "ZCYX" else first.reshape(9, 8, -1)
    np.testing.assert_array_equal(found[0].read(), wanted)


def test_which_files_are_images(tmp_path):
    for name in ("images/1.png", "masks/1.png", "b.PNG", ".hidden/c.png", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(each.name) for each in find_images([tmp_path])]
    assert names == ["b", "images/1"]  # not the masks of a data set
    assert [str(each.name) for each in find_images([tmp_path / "masks", tmp_path / "masks" / "1.png"])] == ["1"]
    assert [str(each.name) for each in find_images([f"{tmp_path}/**/*.png"])] == ["1", "1"]
    inside = (tmp_path, str(tmp_path / "*/*.png"), tmp_path / "images" / "1.png")
    assert [len(find_images([path], tmp_path / "images")) for path in inside] == [1, 1, 1]
    assert [str(each.name) for each in find_images([tmp_path / "images"], tmp_path)] == ["1"]
    (tmp_path / "empty").mkdir()
    refused = {"empty": "holds no images", ".hidden/*.jpg": "matches no image", "x.png": "No such file or folder"}
    for name, words in refused.items():
        with pytest.raises(ValueError, match=words):
            find_images([tmp_path / name])


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Root may read every folder, so the test simulates the refusal of the system."""
    (tmp_path / "closed").mkdir()
    Image.fromarray(grey(4, 4)).save(tmp_path / "a.png")
    scandir = os.scandir

    def scan(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ValueError, match="Cannot read the folder .*closed, because its permissions.* Change them"):
        find_images([tmp_path])


def by_pillow(path, pages):
    first, *more = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=more)


WRITERS = {
    "Pillow": by_pillow,
    "plain": lambda path, pages: tifffile.imwrite(path, pages, metadata=None, photometric="minisblack"),
    "ImageJ": lambda path, pages: tifffile.imwrite(path, pages, imagej=True, metadata={"axes": "ZYX"}),
    "OME": lambda path, pages: tifffile.imwrite(path, pages, ome=True, metadata={"axes": "TYX"}),
    "OME, compressed": lambda path, pages: tifffile.imwrite(
        path, pages, ome=True, metadata={"axes": "ZYX"}, compression="zlib"
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_stacks_of_other_programs(tmp_path, write, count, channels):
    stack = np.random.default_rng(0).integers(0, 255, (count, 16, 20), dtype=np.uint8)
    write(tmp_path / "a.tif", stack)
    pages = pages_of(tmp_path / "a.tif", channels)
    np.testing.assert_array_equal([page.read()[..., 0] for page in pages], stack)
    for page, wanted in zip(pages, stack, strict=True):
        rows = Rows(page)
        np.testing.assert_array_equal(rows[2:9, 3:20][..., 0], wanted[2:9, 3:20])
        rows.close()
