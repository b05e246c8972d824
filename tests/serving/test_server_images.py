"""Image files for a model: they are upright, keep their bits, and have the size that the model takes."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tifffile

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from PIL import Image

from dropzoo.common.pixels import Pixels
from dropzoo.serving.decode import decode_file
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.limits import Limits, Refused


@pytest.mark.covering("orientation", "order", "kind")
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_photographs_are_upright_inside_a_saved_model(orientation, order, kind):
    """No operation of TensorFlow reads EXIF, so the graph reads the tag from the bytes."""
    pixels = np.linspace(0, 255, 24 * 40 * 3).reshape(24, 40, 3).astype("uint8")
    exif, file = Image.Exif(), io.BytesIO()
    exif.endian = order
    exif.update({271: "a maker", 274: orientation} if orientation else {271: "a maker"})
    Image.fromarray(pixels).save(file, kind, exif=exif, quality=95)
    spec = tf.TensorSpec([None, None, None, 3], tf.uint8)
    found = decode_file(tf.constant(file.getvalue()), 3)
    np.testing.assert_allclose(255 * found, read_image(file.getvalue(), spec, Limits())[0], atol=1e-3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_broken_exif_turns_nothing(cut, kind):
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"[:cut]
    file = io.BytesIO()
    Image.new("RGB", (8, 16)).save(file, kind, exif=broken)
    assert decode_file(tf.constant(file.getvalue()), 3).shape in ((16, 8, 3), (8, 16, 3))


def tiff(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "channels", "white"),
    [
        (np.full((8, 8), 30000, "uint16"), 1, 65535),
        (np.full((8, 8), 30, "uint8"), 1, 255),
        (np.full((8, 8), 0.25, "float32"), 1, 1),
        (np.full((8, 8), 30000, ">u2"), 3, 65535),
        (np.full((8, 8, 3), 30, "uint8"), 3, 255),
        (np.full((8, 8, 3), 30, "uint8"), 1, 255),
        (np.full((9, 5, 3), 30000, "uint16"), 3, 65535),  # resized
    ],
)
def test_tiff_files_keep_their_bits(image, channels, white):
    spec = tf.TensorSpec([None, 8, 8, channels])
    found = read_image(tiff(image), spec, Limits(), Pixels(0, 255))
    np.testing.assert_allclose(found, np.full((1, 8, 8, channels), 255 * float(image.flat[0]) / white), rtol=2e-3)


def test_tiff_files_that_cannot_be_read_are_refused():
    spec, good = tf.TensorSpec([None, 8, 8, 1]), tiff(np.full((8, 8), 30000, "uint16"))
    for i in range(4, len(good), 3):
        for data in (good[:i], good[:i] + b"\xff\xff" + good[i + 2 :]):
            try:
                assert read_image(data, spec, Limits()).shape == (1, 8, 8, 1)
            except Refused as error:
                assert error.status in (400, 413)
    with pytest.raises(Refused, match="floats in .0, 1.; received int32"):
        read_image(tiff(np.zeros((8, 8), "int32")), spec, Limits())
    with pytest.raises(Refused, match="64 numbers .8 x 8 pixels.; 40 are allowed"):
        read_image(good, spec, Limits(max_pixels=10))
    with pytest.raises(Refused, match="2 channels, but the model takes 1"):
        read_image(
            tiff(np.zeros((8, 8, 2), "uint8"), photometric="minisblack", planarconfig="contig"), spec, Limits()
        )


def test_a_size_of_which_one_axis_is_known_is_checked():
    file = tf.io.encode_png(np.zeros((8, 9, 1), "uint8")).numpy()
    with pytest.raises(Refused, match=r"must have the size any x 8 \(height x width\); received 8 x 9"):
        read_image(file, tf.TensorSpec([None, None, 8, 1]), Limits())
