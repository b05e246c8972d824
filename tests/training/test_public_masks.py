"""Masks as they come in data sets: by several people, in pages, in greys, as run lengths; and arrays of pixels."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from _folders import SIZE, ids, pairs
from dropzoo.training.data.files.coco import unpacked
from dropzoo.training.data.files.drawing import draw
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.masks import Meaning, read_ids
from dropzoo.training.data.files.splits import fold_of
from dropzoo.training.data.files.table import Drawn, Reading, Runs, Sample
from dropzoo.training.data.folders import read_folder


def test_masks_by_several_people_are_one_group(tmp_path):
    pairs(tmp_path, 3, "a/{}.png", "b/{}.png")
    pairs(tmp_path, 3, "a/{}.png", "b/{}x.png")
    rows = "".join(f"a/{n}.png,b/{n}{end}.png,{'' if n else 'p'}\n" for n in range(3) for end in ("", "x"))
    (tmp_path / "rows.csv").write_text("file,mask,group\n" + rows)
    table = read_layout(tmp_path, Reading(split_file="rows.csv"))
    groups = [sample.group for sample in table.samples]
    assert groups[0] == groups[1] == "p" and groups[2] == groups[3] != groups[4]
    assert "4 rows of" in table.doubts[0]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 127, 254), (0, 38, 75, 113)])
def test_greys_far_apart_are_refused_until_said(tmp_path, values):
    stored = np.array(values, np.uint8)[np.arange(48).reshape(SIZE) % len(values)]
    pairs(tmp_path, 2, "images/{}.png", "masks/{}.png", values=stored)
    with pytest.raises(ValueError, match="values that are far apart: .*--masks-as palette"):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(masks_as="palette"))
    assert len(source.class_names) == len(values)
    expected = np.arange(48).reshape(SIZE) % len(values)
    np.testing.assert_array_equal(next(iter(source.train.examples))[1][..., 0], expected)


@pytest.mark.parametrize("pages", [1, 4, 6])
def test_masks_have_the_pages_of_their_images(tmp_path, pages):
    for name, count in (("images", 5), ("masks", pages)):
        (tmp_path / name).mkdir()
        stack = np.repeat(ids()[None], count, 0)
        tifffile.imwrite(tmp_path / name / "0.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match=f"a page for each page of its image. .* 5 pages, and .* with {pages}"):
        read_folder(tmp_path, Reading())


def test_all_masks_that_cannot_be_read_are_named(tmp_path):
    pairs(tmp_path, 5, "images/{}.png", "masks/{}.png")
    for n in (1, 3):
        (tmp_path / "masks" / f"{n}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="Cannot read 2 files.*--broken skip.*masks/1.png; .*masks/3.png"):
        read_folder(tmp_path, Reading())
    with pytest.warns(UserWarning, match="Left out 2 files .*masks/1.png, .*masks/3.png"):
        assert len(read_folder(tmp_path, Reading(broken="skip")).summary.samples) == 3


def test_rows_without_a_group_are_groups_of_their_own():
    fold = fold_of(np.zeros(6, int), ["p", "p", "", "", "", ""], 5)
    assert fold[0] == fold[1] and len(set(fold.tolist())) == 5


def test_run_lengths_are_columns_of_pixels():
    inside = draw(Drawn((3, 4), ((2, Runs((2, 3, 4, 1, 2))),)), np.load)
    np.testing.assert_array_equal(inside, [[0, 2, 0, 2], [0, 2, 0, 0], [2, 0, 0, 0]])


def coco_text(counts):
    """The text of run lengths as the reference implementation writes it, in C, here in Python."""
    text = ""
    for n, count in enumerate(counts):
        value, more = count - (counts[n - 2] if n > 2 else 0), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 * more) + 48)
    return text


def test_run_lengths_as_text():
    for seed in range(20):
        counts = [int(n) for n in np.random.default_rng(seed).integers(0, 5000, 9)]
        assert unpacked(coco_text(counts)) == counts


@pytest.mark.parametrize("shape, expected", [((3, 16, 18), (16, 18, 3)), ((12, 16, 18), (12, 16, 18))])
@pytest.mark.filterwarnings("ignore:Images have 18 channels. .*--pages images")
def test_arrays_with_their_channels_first(tmp_path, shape, expected):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    for name in ("a/0", "b/0"):
        np.save(tmp_path / f"{name}.npy", values)
    source = read_folder(tmp_path, Reading())
    image = next(iter(source.train.examples))[0].numpy()
    np.testing.assert_array_equal(image, np.moveaxis(values, 0, -1) if shape[0] == 3 else values)
    assert image.shape == expected == source.image_shape


def test_a_black_jpeg_with_a_value_of_1_has_no_foreground(tmp_path):
    Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "0.jpg")
    Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "0.png")
    found = [
        read_ids(Sample(tmp_path / "x", mask=tmp_path / f"0{end}"), Meaning("threshold", found=False)).max()
        for end in (".jpg", ".png")
    ]
    assert found == [0, 1]
