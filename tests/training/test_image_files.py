"""Image files: every file type and number type comes out as it was stored."""

import io
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from _pictures import pixels, stored, write
from dropzoo.predictions.reading import pages_of
from dropzoo.training.data.files.headers import read_facts
from dropzoo.training.data.images import read_images, read_mask
from dropzoo.training.data.load import load_data


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_scaled_by_their_type(tmp_path, suffix, channels, dtype):
    image = pixels(channels=channels, dtype=dtype)
    write(tmp_path / "images" / f"a{suffix}", image)
    np.testing.assert_array_equal(
        stored(tmp_path / "images" / f"a{suffix}"), image.astype("f4") / np.iinfo(dtype).max
    )


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_other_lossless_files(tmp_path, suffix):
    image = np.repeat(pixels(channels=1), 3, axis=2)  # a GIF has 256 colours
    write(tmp_path / "images" / f"a{suffix}", image)
    np.testing.assert_array_equal(stored(tmp_path / "images" / f"a{suffix}"), image.astype("f4") / 255)


def test_jpeg(tmp_path):
    write(tmp_path / "images" / "a.jpg", np.full((6, 8, 3), 100, "uint8"))
    np.testing.assert_allclose(stored(tmp_path / "images" / "a.jpg"), 100 / 255, atol=2 / 255)


def photograph(path, orientation: int) -> np.ndarray:
    """Writes a picture with an orientation, and returns how it is shown."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.kron(pixels(2, 3, 1)[..., 0], np.ones((8, 8), "uint8"))).save(path, exif=exif)
    with Image.open(io.BytesIO(path.read_bytes())) as image:  # from a path, Pillow reads wrong rows of TIFF files
        return np.asarray(ImageOps.exif_transpose(image))[..., None]


@pytest.mark.covering("orientation", "suffix")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_picture_is_as_the_camera_was_held(tmp_path, orientation, suffix):
    path = tmp_path / f"a{suffix}"
    shown = photograph(path, orientation)
    np.testing.assert_allclose(read_images([path])[0], shown, atol=2)  # the decoders round differently
    facts = read_facts([path])[0][path]
    assert (facts.height, facts.width, facts.turned) == (*shown.shape[:2], orientation > 1)


def test_exif_after_the_pixels_of_a_png_counts(tmp_path):
    shown = photograph(tmp_path / "a.png", 6)
    data = (tmp_path / "a.png").read_bytes()
    start, pixels_at, end = (data.index(kind) - 4 for kind in (b"eXIf", b"IDAT", b"IEND"))
    moved = data[:start] + data[pixels_at:end] + data[start:pixels_at] + data[end:]
    (tmp_path / "b.png").write_bytes(moved)
    np.testing.assert_array_equal(read_images([tmp_path / "b.png"])[0], shown)


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_palettes_colour_images_and_number_masks(tmp_path, suffix):
    ids, colours = pixels(channels=1)[..., 0] % 3, pixels(1, 3)[0]
    image = Image.fromarray(ids)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_images([tmp_path / f"a{suffix}"])[0], colours[ids])
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{suffix}")[..., 0], ids)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_white_where_a_tiff_counts_from_it(tmp_path, dtype):
    path, image = tmp_path / "a.tif", pixels(channels=1, dtype=dtype)[..., 0]
    tifffile.imwrite(path, image, photometric="miniswhite")
    np.testing.assert_array_equal(read_images([path])[0][..., 0], np.iinfo(dtype).max - image)
    np.testing.assert_array_equal(read_mask(path)[..., 0], image)
    tifffile.imwrite(path, image > 127, photometric="miniswhite")
    np.testing.assert_array_equal(read_images([path])[0][..., 0], np.where(image > 127, 0, 255))
    np.testing.assert_array_equal(read_mask(path)[..., 0], image > 127)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped(tmp_path, channels):
    image = pixels(channels=channels)
    write(tmp_path / "images" / "a.png", image)
    np.testing.assert_array_equal(stored(tmp_path / "images" / "a.png"), image[..., :-1].astype("f4") / 255)


@pytest.mark.parametrize("first", [True, False], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_five_channels(tmp_path, first, byteorder):
    image = pixels(channels=5, dtype=np.uint16)
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "a.tif"
    if first:
        tifffile.imwrite(path, np.moveaxis(image, 2, 0), photometric="minisblack", byteorder=byteorder)
    else:
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", byteorder=byteorder)
    doubt = pytest.warns(UserWarning, match="Images have 5 channels.*--pages") if first else nullcontext()
    with doubt:  # pages of numbers may also be slices
        np.testing.assert_array_equal(stored(path), image.astype("f4") / 65535)


def test_float_tiff(tmp_path):
    image = np.linspace(0, 1, 48, dtype="float32").reshape(6, 8, 1)
    write(tmp_path / "images" / "a.tif", image)
    np.testing.assert_array_equal(stored(tmp_path / "images" / "a.tif"), image)


def test_number_types_may_be_mixed(tmp_path):
    write(tmp_path / "a" / "0.png", np.full((2, 2, 1), 255, "uint8"))
    write(tmp_path / "b" / "0.png", np.full((2, 2, 1), 65535, "uint16"))
    images, _ = next(iter(load_data(tmp_path).train))
    np.testing.assert_array_equal(images, np.ones((2, 2, 2, 1)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_inks_become_colours(tmp_path, compression):
    """Print shops store cyan, magenta, yellow and black; the values are those of Pillow, which has no profile."""
    inks = Image.fromarray(pixels(6, 8, 4), "CMYK")
    inks.save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(inks.convert("RGB")).astype(int)
    found = read_images([tmp_path / "a.tif"])[0]
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1  # Pillow rounds in another way
    facts, _ = read_facts([tmp_path / "a.tif"])
    assert facts[tmp_path / "a.tif"].channels == 3
    deep = pixels(6, 8, 4, np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="separated")
    light = 65535 - deep.astype(float)
    expected = light[..., :3] * light[..., 3:] / 65535
    assert np.abs(read_images([tmp_path / "deep.tif"])[0] - expected).max() <= 0.5
    tifffile.imwrite(tmp_path / "other.tif", deep, photometric="separated", extratags=[(332, 3, 1, 2, True)])
    assert read_images([tmp_path / "other.tif"])[0].shape[-1] == 4  # inks that are not those of print shops
    for page in pages_of(tmp_path / "a.tif", 3):
        np.testing.assert_array_equal(page.read(), found)


def test_a_stack_of_imagej_that_is_cut_short_is_not_its_first_image(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(32, 40, 8).transpose(2, 0, 1), imagej=True, metadata={"axes": "ZYX"})
    assert len(pages_of(path, 1)) == 8
    path.write_bytes(path.read_bytes()[:-5000])
    words = "states 8 images, for which it needs"
    for read in (lambda: read_images([path]), lambda: read_mask(path, 0), lambda: pages_of(path, 1)):
        with pytest.raises(ValueError, match=f"a.tif.*Replace or remove the file.*{words}"):
            read()
    assert words in read_facts([path])[1][path]


def test_an_image_out_of_a_stack_may_keep_the_description_of_the_stack(tmp_path):
    stack = pixels(32, 40, 8).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "stack.tif") as file:
        description = file.pages[0].description
    tifffile.imwrite(tmp_path / "a.tif", stack[3], description=description, metadata=None)
    np.testing.assert_array_equal(read_images([tmp_path / "a.tif"])[0][..., 0], stack[3])
    (page,) = pages_of(tmp_path / "a.tif", 1)
    np.testing.assert_array_equal(page.read()[..., 0], stack[3])
