"""The ground floor: checks, whole files, orientation."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dropzoo.common.checks import (
    check_choice,
    check_count,
    check_pair,
    check_positive,
    check_rate,
    check_seed,
    did_you_mean,
)
from dropzoo.common.files import RealPaths, lock, whole_file
from dropzoo.common.images import upright
from dropzoo.common.words import count_of

BAD = {
    check_count: (0, -1, True, 1.0, "3", None, np.float32(2)),
    check_seed: (-1, 2**32, True, 1.0, None),
    check_positive: (0, -1.0, math.nan, math.inf, True, "1", None),
    check_rate: (-0.1, 1.0, 1.5, 1 - 2**-25, math.nan, "0.5", None, True, np.bool_(False), [0.5], 0.5j),
    check_pair: (0, -1, 2.5, (3,), (3, 0), (1, 2, 3), "7", True, (True, 2), None),
}


@pytest.mark.parametrize(("check", "value"), [(check, value) for check, values in BAD.items() for value in values])
def test_a_bad_number_is_refused_by_the_name_of_its_argument(check, value):
    with pytest.raises(ValueError, match=r"^`amount` must be .* Received: amount="):
        check(value, "amount")


def test_counts_have_the_words_that_go_with_the_number():
    assert [count_of(n, "image") for n in (0, 1, 2, 2000)] == ["0 images", "1 image", "2 images", "2,000 images"]
    assert [count_of(n, "axis has", "axes have") for n in (1, 3)] == ["1 axis has", "3 axes have"]


def test_good_values_come_back():
    assert check_count(np.int64(3), "n") == 3 and type(check_count(np.int64(3), "n")) is int
    assert check_pair(np.int64(3), "n") == (3, 3) and check_pair([2, np.int32(3)], "n") == (2, 3)
    assert check_seed(2**32 - 1) == 2**32 - 1
    assert check_positive(1, "n") == 1 and check_positive(0.5, "n") == 0.5
    assert check_choice("same", "padding", ("valid", "same")) == "same"
    with pytest.raises(ValueError, match=r"`padding` must be one of 'valid', 'same'. Received: padding='full'"):
        check_choice("full", "padding", ("valid", "same"))


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "figures.json"
    with whole_file(path) as unfinished:
        unfinished.write_text("one")
        assert unfinished.suffix == ".json" and not path.exists()
    with pytest.raises(KeyError), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match="Expected the path of a file to write. Received the folder"):
        with whole_file(path.parent):
            pass
    assert list(tmp_path.iterdir()) == [path.parent]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_as_pillow_turns_it(orientation):
    pixels = np.arange(24, dtype="uint8").reshape(2, 4, 3)
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(pixels)
    image.getexif().update(exif)
    np.testing.assert_array_equal(upright(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", [1, 0, 9])
def test_an_unknown_orientation_leaves_the_image(orientation):
    pixels = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(upright(pixels, orientation), pixels)


def test_a_file_has_one_writer_at_a_time(tmp_path):
    with open(tmp_path / "file", "ab") as one, open(tmp_path / "file", "ab") as other:
        lock(one)
        with pytest.raises(BlockingIOError):
            lock(other)
        one.close()
        lock(other)


def test_close_names_are_suggested_or_else_names_that_contain_the_word():
    names = ["flip_horizontal", "flip_vertical", "scale"]
    assert did_you_mean("scal", names) == " Did you mean 'scale'?"
    assert did_you_mean("flip", names) == " Did you mean 'flip_horizontal' or 'flip_vertical'?"
    assert did_you_mean("", names) == did_you_mean("blur", names) == ""


def test_real_paths_are_those_of_pathlib(tmp_path, monkeypatch):
    """A loop that only looks at folders would miss links to files, and `..` behind a link."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "deep")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    real_path = RealPaths()
    for name in (
        "a/1.png",
        "a/2.png",
        "a/none.png",
        "link/3.png",
        "link/../1.png",
        "link/..",
        "link",
        ".",
        "a/./1.png",
    ):
        for path in (Path(name), tmp_path / name):
            assert real_path(path) == path.resolve(), path
    long = tmp_path / f"{'a' * 300}.png"
    assert real_path(long) == long
