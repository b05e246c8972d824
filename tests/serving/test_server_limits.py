"""What a request may take of the server's memory, whatever its size in bytes."""

import json

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import live
from _small_cnn import small_cnn
from dropzoo import serving
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.requests import read_predict, to_arrays
from dropzoo.serving.server.versions import Signature

PREDICT = "/v1/models/cnn:predict"
ROW = np.zeros((8, 8, 1)).tolist()
LIMITS = Limits(max_pixels=10_000)


def test_text_does_not_make_all_numbers_as_long():
    """An array of such texts would have 12 TB."""
    request = read_predict(json.dumps({"instances": ["a" * 1_000_000, *[""] * 3_000_000]}).encode())
    with pytest.raises(Refused, match="must be an array of numbers"):
        to_arrays(request, Signature({"x": tf.TensorSpec([None, 8])}, lambda inputs: inputs), LIMITS)


def test_images_count_as_large_as_the_model_makes_them(tmp_path):
    export = serving.export_model(small_cnn(), tmp_path / "cnn", 0, image_dtype="uint8", resize=8)
    with live(export.parent, limits=LIMITS, poll_seconds=3600) as running:
        status, answer = running.post(PREDICT, {"inputs": [[[[0]]]] * 157})
        assert status == 413 and "received 10,048 (images: 157)" in answer["error"]
        assert running.post(PREDICT, {"inputs": [[[[0]]]] * 156})[0] == 200
        (export / "assets.extra" / "info.json").write_text("{}")  # no `image_size`
        running.core.versions.refresh()
        assert running.post(PREDICT, {"inputs": [[[[0]]]] * 157})[0] == 200


def test_too_little_memory_is_said(plain_export):
    with live(plain_export) as running:
        batcher = running.batcher()
        run, batcher.run = batcher.run, lambda inputs: np.empty(2**55)
        status, answer = running.post(PREDICT, {"instances": [ROW]})
        assert status == 413 and "too large for this server's memory" in answer["error"]
        batcher.run = run
        assert running.post(PREDICT, {"instances": [ROW]})[0] == 200
