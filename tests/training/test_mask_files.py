"""Mask files: their values, palettes and channels."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from _pictures import pixels, write, write_pairs
from dropzoo.training.data.load import load_data


@pytest.mark.costly(keep=3)
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
        ((1, 254, 255), "close to black or white.*--masks-as threshold"),
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
        ((0, 1, 0), r"Received: 0 and 1 in .*b\.png and 0 and 255 in .*a\.png. Convert"),
        ((1, 1, 1), r"Received: 0 and 1 in .*b\.png and 0 and 255 in .*a\.png. Convert"),
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
