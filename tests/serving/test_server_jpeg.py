"""JPEG files of every kind, for models of one, three and four channels, and the way up of a camera's pictures."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from PIL import Image, ImageOps

from _live import live, png
from _small_cnn import small_cnn
from dropzoo import serving
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.limits import Limits

RGB = np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8")


def jpeg(mode: str, image: np.ndarray = RGB, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_jpeg_is_taken(channels, mode):
    data, spec = jpeg(mode), tf.TensorSpec([None, 8, 8, channels], tf.uint8)
    found, pixels = read_image(data, spec, Limits()), tf.io.decode_jpeg(data, channels=3).numpy()
    if channels == 1 and mode != "CMYK":
        pixels = tf.io.decode_jpeg(data, channels=1)
    elif channels == 1:
        pixels = tf.image.rgb_to_grayscale(pixels)
    elif channels == 4:
        pixels = np.concatenate([pixels, np.full((8, 8, 1), 255)], -1)
    np.testing.assert_array_equal(found[0], pixels)


@pytest.mark.parametrize(("channels", "mode"), [(1, "CMYK"), (4, "RGB")])
def test_the_signature_for_files_takes_them_alike(channels, mode, tmp_path):
    export = serving.export_model(small_cnn(input_shape=(8, 8, channels)), tmp_path / "cnn", 0)
    data = jpeg(mode)
    file = {"signature_name": "predict_bytes", "inputs": [{"b64": base64.b64encode(data).decode()}]}
    with live(export.parent) as running:
        status, uploaded = running.post("/v1/models/cnn:predict", data, content_type="image/jpeg")
        assert status == 200
        status, sent = running.post("/v1/models/cnn:predict", file)
        assert status == 200
        np.testing.assert_allclose(
            sent["outputs"]["probabilities"][0], uploaded["predictions"][0]["probabilities"], atol=1e-6
        )
        small = png(np.zeros((8, 8, channels), "uint8"))
        assert running.post("/v1/models/cnn:predict", small, content_type="image/png")[0] == 200


@pytest.mark.covering("orientation", "kind")
@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_are_turned_upright_as_the_page_does(orientation, kind):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(RGB[:5]).save(file, kind, exif=exif)
    found = read_image(file.getvalue(), tf.TensorSpec([None, None, None, 3], tf.uint8), Limits())[0]
    stored = tf.io.decode_image(file.getvalue()).numpy()
    upright = Image.fromarray(stored)
    upright.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(found, ImageOps.exif_transpose(upright))


def test_nonsense_for_exif_turns_nothing():
    data = jpeg("RGB", dpi=(72, 72), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")
    found = read_image(data, tf.TensorSpec([None, 8, 8, 3], tf.uint8), Limits())[0]
    np.testing.assert_array_equal(found, tf.io.decode_jpeg(data))
