"""Folders of images: every file type and number type, and every way in which a folder can be wrong."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import ExifTags, Image, ImageOps

from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.images import read_images, read_mask
from dropzoo.training.data.load import load_data

SHARED = Path(__file__).parents[3] / "shared" / "data"


def pixels(
    height: int = 6, width: int = 8, channels: int = 3, dtype: type = np.uint8, seed: int = 0
) -> np.ndarray:
    return (
        np.random.RandomState(seed).randint(np.iinfo(dtype).max + 1, size=(height, width, channels)).astype(dtype)
    )


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        image = image[..., 0] if image.shape[-1] == 1 else image
        options = {"photometric": "rgb" if image.shape[-1] == 3 else "minisblack"}
        tifffile.imwrite(path, image, **options, **({"planarconfig": "contig"} if image.ndim == 3 else {}))
    elif path.suffix == ".jpg":
        tf.io.write_file(str(path), tf.io.encode_jpeg(image))
    elif path.suffix == ".png":
        tf.io.write_file(str(path), tf.io.encode_png(image))
    else:
        Image.fromarray(image).save(path)


def write_pairs(folder: Path, count: int = 10, image_suffix: str = ".png", **shape) -> None:
    for number in range(count):
        image = pixels(seed=number, **shape)
        write(folder / "images" / f"{number:02}{image_suffix}", image)
        write(folder / "masks" / f"{number:02}.png", (image[..., :1] > 127).astype("uint8"))


def stored(path: Path) -> np.ndarray:
    """What `load_data` makes of a single image file."""
    write(path.parents[1] / "masks" / f"{path.stem}.png", np.ones((6, 8, 1), "uint8"))
    return next(iter(load_data(path.parents[1]).train))[0][0].numpy()


def test_images_with_masks(tmp_path):
    write_pairs(tmp_path / "cells")
    data = load_data(tmp_path / "cells", batch_size=4, validation_split=0.25)
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (6, 2, 2)
    assert (data.info.name, data.info.task, data.info.num_classes) == ("cells", "segmentation", 2)
    assert (data.info.class_names, data.info.input_shape) == (("0", "1"), (6, 8, 3))
    for part, numbers in ((data.validation, (6, 7)), (data.test, (8, 9))):
        images, masks = next(iter(part))
        expected = np.stack([pixels(seed=number) for number in numbers])
        np.testing.assert_array_equal(images, expected.astype("float32") / 255)
        np.testing.assert_array_equal(masks, expected[..., 0] > 127)
    assert (images.dtype, masks.dtype) == (tf.float32, tf.int32)
    assert [tuple(masks.shape) for _, masks in data.train] == [(4, 6, 8), (2, 6, 8)]


def test_class_folders(tmp_path):
    for name, count in (("cat", 10), ("ant", 5)):
        for number in range(count):
            write(tmp_path / name / f"{number}.png", np.full((4, 5, 1), 10 * number + (name == "cat"), "uint8"))
    data = load_data(str(tmp_path), validation_split=0.25)
    assert (data.info.task, data.info.class_names) == ("classification", ("ant", "cat"))
    seen = {}
    for part in ("train", "validation", "test"):
        images, labels = next(iter(getattr(data, part)))
        values = np.rint(255 * images[:, 0, 0, 0]).astype(int)
        assert (values % 10 == labels.numpy()).all() and labels.dtype == tf.int32
        seen[part] = sorted(zip(labels.numpy().tolist(), (values // 10).tolist(), strict=True))
    assert seen["test"] == [(0, 4), (1, 8), (1, 9)]  # the last fifth of each class
    assert seen["validation"] == [(0, 3), (1, 6), (1, 7)]
    assert seen["train"] == [(0, 0), (0, 1), (0, 2)] + [(1, number) for number in range(6)]


def test_a_limit_takes_of_all_classes(tmp_path):
    for name in "abc":
        for number in range(5):
            write(tmp_path / name / f"{number}.png", pixels())
    _, labels = next(iter(load_data(tmp_path, limit=3).train))
    assert sorted(labels.numpy()) == [0, 1, 2]


def test_no_validation_and_no_test(tmp_path):
    write_pairs(tmp_path, count=2)
    data = load_data(tmp_path, validation_split=0)
    assert data.validation is None and data.test is None
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (2, 0, 0)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_as_the_camera_was_held(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.kron(pixels(2, 3, 1)[..., 0], np.ones((8, 8), "uint8"))).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))[..., None]
    np.testing.assert_allclose(read_images([path])[0], expected, atol=2)  # the decoders round differently


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


@pytest.mark.parametrize(
    "values, expected, num_classes",
    [
        ((0, 255), (0, 1), 2),
        ((0, 1), (0, 1), 2),
        ((0, 3), (0, 3), 4),
        ((255, 255), (1, 1), 2),
        ((0, 0), (0, 0), 2),
    ],
)
def test_mask_values(tmp_path, values, expected, num_classes):
    write(tmp_path / "images" / "a.png", pixels(1, 2))
    write(tmp_path / "masks" / "a.png", np.array(values, "uint8").reshape(1, 2, 1))
    data = load_data(tmp_path)
    assert data.info.num_classes == num_classes
    np.testing.assert_array_equal(next(iter(data.train))[1], [[expected]])


@pytest.mark.parametrize(
    "values, refused",
    [
        ((0, 2, 255), "256 classes.*--ignore-class 255.*--masks-as ids"),
        ((7, 255, 255), "ids up to 7"),
        ((1, 254, 255), "close to black or to white.*--masks-as threshold"),
        ((0, 255, 255), None),
    ],
)
def test_masks_that_may_mean_to_ignore(tmp_path, values, refused):
    write(tmp_path / "images" / "a.png", pixels(1, 3))
    write(tmp_path / "masks" / "a.png", np.array(values, "uint8").reshape(1, 3, 1))
    with pytest.raises(ValueError, match=refused) if refused else contextlib.nullcontext():
        load_data(tmp_path)
    if refused:
        data = load_data(tmp_path, masks_as="ids")
        assert data.info.num_classes == 256
        np.testing.assert_array_equal(next(iter(data.train))[1], [[values]])


@pytest.mark.parametrize(
    "others, match",
    [
        ((0, 0, 0), None),
        ((0, 1, 0), r"Received: 0 and 1 in .*b\.png and 0 and 255 in .*a\.png. Store"),
        ((1, 1, 1), r"Received: 0 and 1 in .*b\.png and 0 and 255 in .*a\.png. Store"),
        ((0, 2, 1), "ids up to 2, and 255"),
    ],
)
def test_black_and_white_masks_beside_others(tmp_path, others, match):
    for name, values in (("a", (0, 255, 0)), ("b", others)):
        write(tmp_path / "images" / f"{name}.png", pixels(1, 3))
        write(tmp_path / "masks" / f"{name}.png", np.array(values, "uint8").reshape(1, 3, 1))
    with pytest.raises(ValueError, match=match) if match else contextlib.nullcontext():
        load_data(tmp_path)


def test_jpeg_masks(tmp_path):
    """One that is black throughout is as it was stored; of an edge nothing is."""
    write(tmp_path / "images" / "a.png", pixels())
    write(tmp_path / "masks" / "a.jpg", np.zeros((6, 8, 1), "uint8"))
    assert load_data(tmp_path).info.num_classes == 2
    write(tmp_path / "masks" / "a.jpg", pixels(channels=1) // 128 * 255)
    with pytest.raises(ValueError, match=r"save the original masks as PNG.* Received: .*a.jpg with \d+ values"):
        load_data(tmp_path)


def test_palette_masks_give_their_indices_and_grey_rgb_masks_one_channel(tmp_path):
    write_pairs(tmp_path, count=2)
    ids = np.arange(48, dtype="uint8").reshape(6, 8) % 3
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "masks" / "00.png")
    write(tmp_path / "masks" / "01.png", np.repeat(ids[..., None], 3, axis=2))
    _, masks = next(iter(load_data(tmp_path).train))
    np.testing.assert_array_equal(masks, [ids, ids])


def test_images_of_different_sizes(tmp_path):
    for number, (height, width) in enumerate([(6, 8), (9, 7), (8, 8), (7, 9), (6, 6), (8, 9)]):
        image = pixels(height, width, seed=number)
        write(tmp_path / "images" / f"{number}.png", image)
        write(tmp_path / "masks" / f"{number}.png", image[..., :1] // 128)
    with pytest.raises(ValueError, match="Pass `image_size=.height, width.`, `batch_size=1`, or `augment` with"):
        load_data(tmp_path)

    whole = load_data(tmp_path, batch_size=1)
    assert whole.info.input_shape == (None, None, 3)
    assert sorted(tuple(images.shape) for images, _ in whole.train)[0] == (1, 6, 8, 3)

    resized = load_data(tmp_path, image_size=(5, 4))
    images, masks = next(iter(resized.train))
    assert images.shape == (4, 5, 4, 3) and masks.shape == (4, 5, 4)
    assert resized.info.input_shape == (5, 4, 3)

    cropped = load_data(tmp_path, batch_size=2, augment="crop=5x4")
    assert cropped.info.input_shape == (None, None, 3)
    for images, masks in cropped.train:
        assert images.shape == (2, 5, 4, 3) and masks.shape == (2, 5, 4)
        # The mask is a threshold of the image's red, so a crop of both must be one too.
        np.testing.assert_array_equal(masks, np.rint(255 * images[..., 0]) // 128)
    assert [tuple(images.shape) for images, _ in cropped.test] == [(1, 8, 9, 3)]


def test_crop_of_equal_images_leaves_the_test_images_whole(tmp_path):
    write_pairs(tmp_path, count=10)
    data = load_data(tmp_path, augment={"crop": (4, 5)})
    assert data.info.input_shape == (None, None, 3)
    assert data.train.element_spec[0].shape.as_list() == [None, 4, 5, 3]
    assert next(iter(data.test))[0].shape == (2, 6, 8, 3)
    assert load_data(tmp_path, augment={"crop": (6, 8)}).info.input_shape == (6, 8, 3)


@pytest.mark.parametrize("to, expected", [(1, (6, 8, 1)), (3, (6, 8, 3)), (None, (6, 8, 3))])
def test_num_channels(tmp_path, to, expected):
    write_pairs(tmp_path, count=2)
    data = load_data(tmp_path, num_channels=to)
    assert data.info.input_shape == expected == next(iter(data.train))[0].shape[1:]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_beside_rgb_ones(tmp_path, channels):
    grey = pixels(channels=1)
    write(tmp_path / "a" / "0.png", grey)
    write(tmp_path / "b" / "0.png", np.repeat(grey, 3, axis=2))
    images, _ = next(iter(load_data(tmp_path, num_channels=channels).train))
    assert images.shape == (2, 6, 8, channels)
    np.testing.assert_allclose(images, np.broadcast_to(grey / 255, images.shape), atol=1 / 255)


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
        (lambda folder: folder.rmdir(), ["No such folder", "Expected images/ and masks/, or one folder a class"]),
        (lambda folder: None, ["Expected images/ and masks/, or at least two class folders, in"]),
        (lambda folder: write(folder / "images" / "0.png", pixels()), ["Expected images/ and masks/"]),
        (empty_class, ["No images in", "Expected files ending in .bmp, .gif"]),
        (unpaired, ["images without a mask: 01.png; masks without an image: 07.png"]),
        (twins, ["Names must differ by more than their endings", "00"]),
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
        (np.ones((6, 8, 1), "int32"), "Expected 8-bit, 16-bit or float images. Received"),
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
        (dict(data_dir="x"), "`data_dir` and `manual_dir` are for TFDS names"),
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
    with pytest.raises(
        ValueError, match="turns images of 1 or 3 channels. Received: num_channels=1 for 5 channels"
    ):
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
