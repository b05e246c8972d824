"""Bad input to the server: the right status and one clear sentence, and the next good request is answered."""

import base64
import http.client
import json
import re
import socket
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import Held, live, png, until
from dropzoo.serving.server.limits import Limits

GREY = np.random.default_rng(0).integers(0, 256, (8, 8, 1), "uint8")
ROW = (GREY / 255).tolist()
PREDICT = "/v1/models/cnn:predict"
LIMITS = Limits(max_body_bytes=200_000, max_pixels=10_000, max_rows=200, body_timeout_s=2)


@pytest.fixture(scope="module")
def cnn(cnn_export):
    with live(cnn_export, limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def unet(unet_export):
    with live(unet_export, limits=LIMITS) as running:
        yield running


@pytest.fixture(autouse=True)
def _still_up(request):
    yield
    for name in {"cnn", "unet"} & set(request.fixturenames):
        running = request.getfixturevalue(name)
        image = GREY if name == "cnn" else np.repeat(GREY, 3, -1)
        address = f"/v1/models/{running.core.versions.name}:predict_mc"
        assert running.post(address, png(image), content_type="image/png")[0] == 200
        assert running.core.arriving == 0


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels; few bytes."""
    pixels = zlib.compress(b"\0" * (1 << 20))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def of_bytes(*values) -> dict:
    return {"signature_name": "predict_bytes", "instances": list(values)}


def with_pixel(value) -> dict:
    rows = (GREY / 255).tolist()
    rows[3][4][0] = value
    return {"instances": [rows]}


LINE = '{"signature_name": "predict_bytes", "instances": [{"b64": "..."}]}'
HEIC = b"\0\0\0\x18ftypheic" + bytes(40)
JPEG = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 256, (40, 40, 3), "uint8")).numpy()
IMAGES = {
    "no image": (b"no image", 400, "neither PNG nor JPEG"),
    "empty": (b"", 400, "The body is empty, but must be an image file. Send it as: curl"),
    "base64": (base64.b64encode(png(GREY)), 400, "seems to be in base64: send the bytes"),
    "a data URL": (b"data:image/png;base64," + base64.b64encode(png(GREY)), 400, "seems to be in base64"),
    "a GIF": (b"GIF89a" + bytes(40), 400, "It seems to be a GIF file: save it as PNG"),
    "a HEIC": (HEIC, 400, "It seems to be a HEIC or AVIF file: save it as PNG"),
    "the start of a PNG": (png(GREY)[:20], 400, "header of the image cannot be read"),
    "a PNG cut short": (png(GREY)[:60], 400, "cannot be decoded; it may be truncated"),
    "a JPEG cut short": (JPEG[:700], 400, "cannot be decoded; it may be truncated"),
    "the start of a JPEG": (JPEG[:30], 400, "header of the image cannot be read"),
    "a bomb of 100 megapixels": (bomb(10_000, 10_000), 413, "10000 x 10000 pixels; 10,000 are allowed"),
    "a bomb of 4 exapixels": (bomb(2**31 - 1, 2**31 - 1), 413, "are allowed"),
    "a PNG of no pixels": (bomb(0, 8), 400, "header of the image cannot be read"),
    "a body over the limit": (png(GREY) + bytes(200_000), 413, "200,000 bytes at most"),
}
JSON = {
    "not JSON": (b"{", 400, "JSON Parse error"),
    "no text": (b"\xff\xfe\x00", 400, "JSON Parse error"),
    "bare numbers": (np.ones(64, "float32").tobytes(), 400, "as NumPy saves it"),
    "bare zeros": (bytes(64), 400, "as NumPy saves it"),
    "a GIF": (b"GIF89a" + bytes(40), 400, "It seems to be a GIF file: save it as PNG"),
    "a WebP": (b"RIFF\x24\0\0\0WEBP" + bytes(40), 400, "It seems to be a WebP file: save it as PNG"),
    "a BMP": (b"BM\x9a\0" + bytes(40), 400, "It seems to be a BMP file: save it as PNG"),
    "a HEIC": (HEIC, 400, "It seems to be a HEIC or AVIF file: save it as PNG"),
    "bare base64": (base64.b64encode(png(GREY)), 400, "seems to be in base64: send the bytes"),
    "a typed array": ({"instances": [{str(i): 0.5 for i in range(64)}]}, 400, "56 others. For a typed array of"),
    "nothing": (b"", 400, "JSON Parse error"),
    "a deep nest": (b"[" * 90_000, 400, "JSON Parse error"),
    "a deep nest that closes": (b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}", 400, "'images' must"),
    "no object": ([1], 400, "the body must be an object"),
    "no input": ({}, 400, "exactly one of 'instances' and 'inputs'"),
    "two inputs": ({"instances": [ROW], "inputs": [ROW]}, 400, "exactly one of"),
    "an unknown key": ({"instances": [ROW], "signature": "predict_mc"}, 400, "unknown keys: 'signature'"),
    "no instances": ({"instances": []}, 400, "at least one instance"),
    "instances of another kind": ({"instances": 3}, 400, "must be a list"),
    "an unknown signature": ({"signature_name": "x", "instances": [ROW]}, 400, '"x" not found in signature def'),
    "a signature that is no text": ({"signature_name": 3, "instances": [ROW]}, 400, "'signature_name' must be"),
    "an unknown input": ({"instances": [{"pixels": ROW}]}, 400, "must be 'images'; received 'pixels'"),
    "an unknown column": ({"inputs": {"pixels": [ROW]}}, 400, "must be 'images'; received 'pixels'"),
    "rows of two kinds": ({"instances": [ROW, {"images": ROW}]}, 400, "'images' must be"),
    "wrong channels": ({"instances": [[[[0, 0, 0]] * 8] * 8]}, 400, "(any, 8, 8, 1); received (1, 8, 8, 3)"),
    "wrong size": ({"instances": [[[[0]] * 9] * 8]}, 400, "received (1, 8, 9, 1)"),
    "no batch": ({"inputs": ROW}, 400, "received (8, 8, 1)"),
    "one number": ({"inputs": 3}, 400, "received ()"),
    "a ragged array": ({"instances": [ROW, ROW[:3]]}, 400, "rows of one length"),
    "text": (with_pixel("0.5"), 400, "must be an array of numbers"),
    "truth among numbers": (with_pixel(True), 400, "must be an array of numbers"),
    "text among many": ({"instances": ["a" * 30_000, *[""] * 10_000]}, 400, "must be an array of numbers"),
    "too many rows": ({"instances": [[[[0]] * 8] * 8] * 201}, 413, "200 rows at most; received 201"),
    "too many pixels": ({"instances": [[[[0]] * 8] * 8] * 157}, 413, "10,000 pixels at most"),
    "null": (with_pixel(None), 400, "must be an array of numbers"),
    "truth": ({"instances": [[[[True]] * 8] * 8]}, 400, "must be an array of numbers"),
    "NaN": (with_pixel(float("nan")), 400, "NaN and Infinity are not JSON"),
    "infinity": (with_pixel(float("inf")), 400, "NaN and Infinity are not JSON"),
    "beyond float32": (with_pixel(1e39), 400, "must be finite numbers"),
    "beyond 64 bits": (with_pixel(10**400), 400, ""),
    "a file where pixels belong": ({"instances": [b64(png(GREY))]}, 400, "must be an array of numbers"),
    "base64 where pixels belong": (
        {"instances": [base64.b64encode(png(GREY)).decode()]},
        400,
        f"Received: a file in base64. For files: {LINE}, or send one as the body",
    ),
    "a data URL where pixels belong": (
        {"inputs": {"images": "data:image/png;base64,iVBORw0"}},
        400,
        f"Received: a data URL, in which base64 follows the comma. For files: {LINE}",
    ),
    "b64 by another name": (of_bytes({"base64": "iVBORw0"}), 400, 'For a file in base64, write {"b64": "..."}'),
    "pixels where a file belongs": (of_bytes(ROW), 400, 'must be {"b64": ...}'),
    "text where a file belongs": (of_bytes("abc"), 400, 'must be {"b64": ...}'),
    "no base64": (of_bytes({"b64": "***"}), 400, "with base64 text"),
    "base64 of no image": (of_bytes(b64(b"abc")), 400, "neither PNG nor JPEG"),
    "base64 of a bomb": (of_bytes(b64(bomb(10_000, 10_000))), 413, "are allowed"),
    "bombs that are too large together": (of_bytes(*[b64(bomb(90, 90))] * 2), 413, "received 16,200 (images: 2)"),
    "files that get too large": (of_bytes(*[b64(png(GREY[:1, :1]))] * 157), 413, "received 10,048 (images: 157)"),
    "too many files": (of_bytes(*[b64(b"abc")] * 201), 413, "200 rows at most; received 201"),
    "base64 of a PNG cut short": (of_bytes(b64(png(GREY)[:60])), 400, "may be truncated"),
    "a body over the limit": (b" " * 200_001, 413, "200,000 bytes at most"),
}


def check(answer, status, words) -> None:
    assert answer[0] == status, answer
    assert set(answer[1]) == {"error"} and words in answer[1]["error"]
    assert "\n" not in answer[1]["error"] and len(answer[1]["error"]) < 200


@pytest.mark.covering("data", "verb")
@pytest.mark.parametrize(("data", "status", "words"), IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("verb", ["predict", "predict_mc", "picture"])
def test_images(verb, data, status, words, cnn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(cnn.post(f"/v1/models/cnn:{verb}", data, content_type="image/png"), status, words)


@pytest.mark.parametrize(("body", "status", "words"), JSON.values(), ids=JSON)
def test_json(body, status, words, cnn):
    check(cnn.post(PREDICT, body), status, words)


@pytest.mark.parametrize(
    ("value", "words"), [(-1, "whole numbers"), (256, "whole numbers"), (0.5, "whole numbers")]
)
def test_pixels_that_are_no_bytes(value, words, unet):
    check(unet.post("/v1/models/cells:predict", {"inputs": [[[[value] * 3] * 4] * 4]}), 400, words)


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_images_without_pixels(size, unet):
    value = np.zeros((1, *size, 3)).tolist()
    check(unet.post("/v1/models/cells:predict", {"inputs": value}), 400, "must have the shape")
    wide = {"inputs": np.zeros((1, 1, 10_001, 3), int).tolist()}
    check(unet.post("/v1/models/cells:predict", wide), 413, "10,000 pixels at most")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v1/models/cat:predict", 404, "Latest(cat). Versions of cnn: 1"),
        ("POST", "/v1/models/cnn/versions/2:predict", 404, "Specific(cnn, 2)"),
        ("POST", "/v1/models/cnn/versions/one:predict", 404, "Specific(cnn, one)"),
        ("POST", f"/v1/models/cnn/versions/{'9' * 40}:predict", 404, "Servable not found"),
        ("POST", "/v1/models/cnn/versions/%D9%A1:predict", 404, "Servable not found"),  # an Arabic one
        ("GET", "/v1/models/cnn/versions/01", 404, "Specific(cnn, 01)"),
        ("GET", "/v1/models/cat", 404, "Servable not found"),
        ("GET", "/v1/models/cnn/versions/2", 404, "Servable not found"),
        ("GET", "/v1/models/cnn/versions/2/metadata", 404, "Servable not found"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "Not Found"),
        (
            "POST",
            "/v1/models/cnn:classify",
            405,
            "Method Not Allowed: POST /v1/models/cnn:classify. The address is",
        ),
        ("POST", "/v1/models/cnn:regress", 405, "The address is /v1/models/NAME:predict, or :predict_mc"),
        ("POST", "/v1/models/cnn:Predict", 405, "The address is /v1/models/NAME:predict, or :predict_mc"),
        ("GET", PREDICT, 405, "Predictions need a POST request"),
        ("PUT", PREDICT, 405, "Method Not Allowed"),
        ("DELETE", "/v1/models/cnn", 405, "Method Not Allowed"),
        ("POST", "/healthz", 405, "Method Not Allowed"),
        *[
            ("GET", f"/{name}", 404, f"Not Found: GET /{name}. The address is /healthz")
            for name in ("health", "ready", "livez", "readyz")
        ],
        ("GET", "/favicon.ico", 404, "Not Found: GET /favicon.ico"),
    ],
)
def test_addresses(method, path, status, words, cnn):
    code, body, headers = cnn.send(method, path, b"{}" if method == "POST" else None)
    check((code, json.loads(body)), status, words)
    allowed = "POST" if path == PREDICT else "GET, HEAD"
    assert headers.get("allow") == (allowed if status == 405 else None)


@pytest.mark.parametrize("kind", ["image/gif", "image/svg+xml", "multipart/form-data; boundary=x"])
def test_other_kinds_of_body(kind, cnn):
    check(cnn.post(PREDICT, png(GREY), content_type=kind), 415, "Send JSON, or the bytes of one file")


def test_json_may_be_called_anything_as_curl_does(cnn):
    kind = "application/x-www-form-urlencoded"
    assert cnn.post(PREDICT, {"instances": [ROW]}, content_type=kind)[0] == 200


def test_a_body_without_a_length_is_not_read_beyond_the_limit(cnn):
    """In chunks, for ever: it is cut off."""
    sent, piece = 0, b"2000\r\n" + bytes(0x2000) + b"\r\n"
    with socket.create_connection(("127.0.0.1", cnn.port), 30) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with pytest.raises(OSError):
            while sent < 200 * LIMITS.max_body_bytes:
                client.sendall(piece)
                sent += len(piece)
    assert sent < 200 * LIMITS.max_body_bytes


@pytest.mark.costly(keep=0)
def test_a_body_that_does_not_come_is_not_waited_for(cnn):
    with socket.create_connection(("127.0.0.1", cnn.port), 30) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[".encode())
        response = http.client.HTTPResponse(client)
        response.begin()
        check((response.status, json.loads(response.read())), 408, "did not arrive within 2 s")


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "9" * 5000, "\xb2"])
def test_lengths_that_are_none(length, cnn):
    with socket.create_connection(("127.0.0.1", cnn.port), 30) as client:
        client.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{}}".encode("latin-1")
        )
        assert re.match(rb"HTTP/1.1 4\d\d ", client.recv(100))


def test_clients_that_hang_up(cnn):
    body = json.dumps({"instances": [ROW]}).encode()
    head = f"POST /v1/models/cnn:predict_mc HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head, head + body[:100], head + body):  # before the body, in the middle, before the answer
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", cnn.port), 30) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # at once
                client.sendall(sent)
    until(lambda: cnn.core.arriving == 0)


def test_a_full_queue_refuses(plain_export):
    with live(plain_export, limits=Limits(max_queue=1)) as running:
        batcher, body = running.batcher(), {"instances": [ROW]}
        held = Held(batcher)
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(running.post, PREDICT, body)]
            assert held.begun.wait(30)
            answers += [pool.submit(running.post, PREDICT, body)]
            until(lambda: batcher.waiting == 1)
            check(running.post(PREDICT, body), 503, "busy: 1 requests are waiting")
            held.go_on.set()
            assert [answer.result()[0] for answer in answers] == [200, 200]


def test_an_image_the_model_fails_at_does_not_fail_those_batched_with_it(plain_export):
    good = {"signature_name": "predict_bytes", "instances": [b64(png(GREY))]}
    bad = {"signature_name": "predict_bytes", "instances": [b64(png(GREY)[:60])]}
    with live(plain_export) as running, ThreadPoolExecutor(6) as pool:
        batcher = running.batcher("predict_bytes")
        held = Held(batcher)
        answers = [pool.submit(running.post, PREDICT, good)]
        assert held.begun.wait(30)
        answers += [pool.submit(running.post, PREDICT, body) for body in (bad, good, bad, good, bad)]
        until(lambda: batcher.waiting == 5)
        held.go_on.set()
        assert [answer.result()[0] for answer in answers] == [200, 400] * 3
    assert sorted(held.rows, reverse=True) == [5, 1, 1, 1, 1, 1, 1]
