"""Fuzzing the server: whatever comes is answered or refused, and the server stays up."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import live, png
from dropzoo.serving.server.limits import Limits

GREY = np.random.default_rng(0).integers(0, 256, (8, 8, 1), "uint8")
JPEG = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 256, (40, 40, 3), "uint8")).numpy()
PREDICT = "/v1/models/cnn:predict"


@pytest.fixture(scope="module")
def cnn(cnn_export):
    with live(cnn_export, limits=Limits(max_body_bytes=200_000, max_pixels=10_000)) as running:
        yield running
        assert running.post(PREDICT, png(GREY), content_type="image/png")[0] == 200
        assert running.core.arriving == 0


NESTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "images", "x"]), inner),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), NESTS) | NESTS


@settings(max_examples=150, deadline=None, database=None)
@given(body=BODIES | st.binary(max_size=60), verb=st.sampled_from(["predict", "predict_mc"]))
def test_whatever_comes_is_answered_or_refused(cnn, body, verb):
    status, answer = cnn.post(f"/v1/models/cnn:{verb}", body)
    assert status == 200 or (400 <= status < 500 and set(answer) == {"error"}), answer


@settings(max_examples=150, deadline=None, database=None)
@given(position=st.integers(0, 120), value=st.binary(min_size=1, max_size=8), jpeg=st.booleans())
def test_damaged_files_are_answered_or_refused(cnn, position, value, jpeg):
    data = JPEG if jpeg else png(GREY)
    damaged = data[:position] + value + data[position + len(value) :]
    status, answer = cnn.post(PREDICT, damaged, content_type="image/jpeg")
    assert status == 200 or (400 <= status < 500 and set(answer) == {"error"}), answer


def test_the_openapi_description_holds(cnn):
    """Schemathesis sends what the description allows; no answer is a 5xx."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{cnn.port}/openapi.json")
    checks = schemathesis.checks
    wanted = [checks.not_a_server_error]
    for operation in schema.get_all_operations():

        @settings(max_examples=25, deadline=None, database=None)
        @given(case=operation.ok().as_strategy())
        def send(case):
            case.validate_response(case.call(timeout=30), checks=wanted)

        send()
