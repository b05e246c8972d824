"""Slips of clients, and files of other programs: each is read as it is meant, or refused with what to send."""

import gzip
import io

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from dropzoo.common.images import upright
from dropzoo.serving.server.bodies import unzipped
from dropzoo.serving.server.files import read_tiff
from dropzoo.serving.server.forms import gzipped
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.requests import _from_base64, read_predict

LIMITS = Limits(max_body_bytes=100_000, max_pixels=20_000)
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
RGB = np.stack([GREY, 2 * GREY, 255 - GREY], -1)


def by_pillow(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", **options)
    return file.getvalue()


def by_tifffile(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "raw"])
@pytest.mark.parametrize(
    "pixels", [GREY, RGB, GREY.astype(np.uint16) * 257, GREY > 20], ids=["8", "rgb", "16", "1"]
)
def test_tiff_files_of_usual_compressions(pixels, compression):
    found = read_tiff(by_pillow(pixels, compression=compression), LIMITS)
    expected = pixels * np.uint8(255) if pixels.dtype == bool else pixels
    np.testing.assert_array_equal(found, expected if pixels.ndim == 3 else expected[..., None])


@pytest.mark.parametrize("compression", ["tiff_lzw", "raw"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_tiff_files_are_turned_upright(compression, orientation):
    shown = upright(GREY[:5], orientation)
    found = read_tiff(by_pillow(GREY[:5], compression=compression, tiffinfo={274: orientation}), LIMITS)
    np.testing.assert_array_equal(found, shown[..., None])


def test_a_stack_is_not_answered_by_its_first_page():
    for stack in (np.stack([GREY] * 5), np.stack([RGB] * 3)):
        with pytest.raises(Refused, match="several pages. Send each page as a separate file"):
            read_tiff(by_tifffile(stack, photometric="rgb" if stack.ndim == 4 else "minisblack"), LIMITS)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB, photometric="rgb")
        writer.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)  # a thumbnail
    np.testing.assert_array_equal(read_tiff(file.getvalue(), LIMITS), RGB)


def test_json_of_other_programs():
    assert read_predict(b'\xef\xbb\xbf{"instances": [1]}').value == [1]
    with pytest.raises(Refused, match="Content-Encoding: gzip"):
        read_predict(gzip.compress(b'{"instances": [1]}'))


def test_gzip_of_very_many_members():
    assert unzipped(gzip.compress(b"a") * 3, LIMITS) == b"aaa"
    with pytest.raises(Refused, match="A gzip body may have 100 members at most"):
        unzipped(gzip.compress(b"") * 500, LIMITS)


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip, deflate, br", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("GZIP; q=0.5", True),
        ("identity", False),
        ("gzip;q=x", False),
        ("", False),
    ],
)
def test_which_answers_are_compressed(accepted, is_packed):
    packed = gzipped(b"a" * 5000, accepted, "application/json")
    assert (packed is not None) == is_packed and (packed is None or gzip.decompress(packed) == b"a" * 5000)


@pytest.mark.parametrize("text", ["aGVsbG8", "aGVs\nbG8=", "_-_-"])
def test_base64_of_other_kinds(text):
    with pytest.raises(Refused) as error:
        _from_base64("images", {"b64": text})
    assert "without line breaks" in error.value.text("")
