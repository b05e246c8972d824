"""The forms of requests and answers besides JSON: files, arrays, gzip; other origins, proxies, several models."""

import base64
import gzip
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import live, png
from dropzoo.serving.server.app import check_origins, check_root_path, create_app
from dropzoo.serving.server.bodies import unzipped
from dropzoo.serving.server.forms import FORMS, form_of
from dropzoo.serving.server.limits import Limits, Refused

CNN, CELLS = "/v1/models/cnn", "/v1/models/cells"
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (8, 8, 1), "uint8")
RGB = RANDOM.integers(0, 256, (20, 30, 3), "uint8")
B64 = {"b64": base64.b64encode(png(GREY)).decode()}
LIMITS = Limits(max_body_bytes=100_000, max_pixels=20_000)


@pytest.fixture(scope="module")
def both(cnn_export, unet_export, tmp_path_factory):
    """A server of two models, for other origins and behind a proxy."""
    folder = tmp_path_factory.mktemp("models")
    for export in (cnn_export, unet_export):
        shutil.copytree(export, folder / export.name)
    options = {"allow_origins": ["https://app.example"], "root_path": "/zoo"}
    with live(folder, limits=LIMITS, **options) as running:
        yield running


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def ask(running, path, body, accept="", **headers):
    given = {"accept": accept} if accept else {}
    status, answer, back = running.send("POST", path, body, **given, **headers)
    return status, answer, back


def test_a_mask_has_the_classes_of_the_json(both):
    _, answer = both.post(f"{CELLS}:predict", png(RGB), content_type="image/png")
    classes = np.array(answer["predictions"][0]["classes"])
    for form, read in (("image/png", Image.open), ("image/tiff", tifffile.imread)):
        status, body, headers = ask(both, f"{CELLS}:predict", png(RGB), form, content_type="image/png")
        assert status == 200 and headers["content-type"] == form
        mask = np.asarray(read(io.BytesIO(body)))
        assert mask.shape == (20, 30) and mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, classes)
        path = f"{CELLS}:predict?output=classes"
        named = ask(both, path, png(RGB), form, content_type="image/png")[1]
        np.testing.assert_array_equal(np.asarray(read(io.BytesIO(named))), classes)


def test_arrays_are_those_of_the_json(both):
    _, answer = both.post(f"{CELLS}:predict_mc", png(RGB), content_type="image/png")
    wanted = answer["predictions"][0]
    status, body, _ = ask(both, f"{CELLS}:predict_mc", png(RGB), "application/x-npz", content_type="image/png")
    found = np.load(io.BytesIO(body))
    assert status == 200 and set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name][0], value, atol=1e-6)
    status, body, _ = ask(
        both, f"{CELLS}:predict_mc", npy(RGB), "application/x-npy", content_type="application/x-npy"
    )
    np.testing.assert_allclose(np.load(io.BytesIO(body))[0], wanted["mean"], atol=1e-6)
    path = f"{CELLS}:predict_mc?output=predictive_entropy"
    status, body, _ = ask(both, path, png(RGB), "image/tiff", content_type="image/png")
    np.testing.assert_allclose(tifffile.imread(io.BytesIO(body)), wanted["predictive_entropy"], atol=1e-6)


BATCH = RANDOM.random((2, 8, 8, 1), "float32")


@pytest.mark.parametrize(
    "body, kind",
    [
        (npy(BATCH), "application/x-npy"),
        (npy(BATCH.astype("float64")), "application/npy"),
        (npy(np.asfortranarray(BATCH)), "application/octet-stream"),
        (npy(BATCH), ""),
        (npz(images=BATCH), "application/x-npz"),
        (gzip.compress(npy(BATCH)), "application/x-npy"),
        (gzip.compress(json.dumps({"instances": BATCH.tolist()}).encode()), "application/json"),
        (
            gzip.compress(b"") + gzip.compress(json.dumps({"instances": BATCH.tolist()}).encode()),
            "application/json",
        ),
    ],
)
def test_bodies_that_say_the_same(body, kind, both):
    _, wanted = both.post(f"{CNN}:predict", {"instances": BATCH.tolist()})
    headers = {"content_type": kind} | ({"content_encoding": "gzip"} if body.startswith(b"\x1f\x8b") else {})
    status, answer = both.post(f"{CNN}:predict", body, **headers)
    assert status == 200
    for one, other in zip(answer["predictions"], wanted["predictions"], strict=True):
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-6)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_a_file_without_its_type_is_known_by_its_first_bytes(kind, both):
    assert both.post(f"{CNN}:predict", png(GREY), content_type=kind)[0] == 200


@pytest.mark.parametrize("kind", ["image/x-png", "image/jpg", "image/pjpeg", "image/tif"])
def test_other_names_of_media_types(kind, both):
    assert both.post(f"{CNN}:predict", png(GREY), content_type=kind)[0] == 200


def test_gzip_answers(both):
    body = json.dumps({"instances": RANDOM.integers(0, 9, (1, 30, 30, 3)).tolist()}).encode()
    for accepted, packed in (
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("br", False),
    ):
        status, answer, headers = both.send("POST", f"{CELLS}:predict", body, accept_encoding=accepted)
        assert status == 200 and (headers.get("content-encoding") == "gzip") == packed
        assert "predictions" in json.loads(gzip.decompress(answer) if packed else answer)


LARGE = gzip.compress(bytes(10_000_000))
REFUSED = {
    "a bomb": (CNN, LARGE, {"content_encoding": "gzip"}, 413, "unpacked body may have"),
    "no gzip": (CNN, b"{}", {"content_encoding": "gzip"}, 400, "the body is not gzip"),
    "gzip cut short": (CNN, gzip.compress(b"{}" * 99)[:-9], {"content_encoding": "gzip"}, 400, "cut short"),
    "another encoding": (CNN, b"{}", {"content_encoding": "br"}, 415, "gzip"),
    "a PNG as JSON": (CNN, png(GREY), {"content_type": "application/json"}, 400, "-H 'Content-Type: image/png'"),
    "an npz as JSON": (CNN, npz(images=BATCH), {"content_type": "text/plain"}, 400, "--data-binary @inputs.npz"),
    "a file for predict_bytes": (
        f"{CNN}:predict?signature_name=predict_bytes",
        png(GREY),
        {"content_type": "image/png"},
        400,
        "takes files in JSON",
    ),
    "JSON as a PNG": (CNN, b'{"instances": []}', {"content_type": "image/png"}, 400, "application/json"),
    "a form": (CNN, b"--x", {"content_type": "multipart/form-data; boundary=x"}, 415, "--data-binary @image.png"),
    "base64 under numbers": (CNN, {"instances": [B64]}, {}, 400, '"signature_name": "predict_bytes"'),
    "base64 by name": (CNN, {"instances": [{"images": B64}]}, {}, 400, "predict_bytes"),
    "base64 in columns": (CNN, {"inputs": {"images": [B64]}}, {}, 400, "predict_bytes"),
    "a data address": (
        CNN,
        {"signature_name": "predict_bytes", "instances": [{"b64": "data:image/png;base64,AA"}]},
        {},
        400,
        "Leave out 'data:image/png;base64,'",
    ),
    "a list": (CNN, [[0.5]], {}, 400, 'Put it into one: {"instances": [...]}'),
    "a slip in a key": (CNN, {"instance": [1]}, {}, 400, "Did you mean 'instances'"),
    "no batch": (CNN, {"inputs": BATCH[0].tolist()}, {}, 400, "Put the image into a list"),
    "no channel": (CNN, {"inputs": BATCH[..., 0].tolist()}, {}, 400, "[..., None]"),
    "neither": (CNN, {"inputs": BATCH[0, ..., 0].tolist()}, {}, 400, "[None, ..., None]"),
    "channels first": (
        CELLS,
        {"inputs": np.zeros((1, 3, 9, 9), int).tolist()},
        {},
        400,
        "np.moveaxis(images, 1, -1)",
    ),
    "an unknown signature": (
        CNN,
        {"signature_name": "predict_cm", "instances": [1]},
        {},
        400,
        "Did you mean 'pred",
    ),
    "an array of texts": (CNN, npy(np.array(["a"])), {"content_type": "application/x-npy"}, 400, "numbers"),
    "an array of objects": (CNN, npy(np.array([{}])), {"content_type": "application/x-npy"}, 400, "hold objects"),
    "an array cut short": (CNN, npy(BATCH)[:-9], {"content_type": "application/x-npy"}, 400, "truncated"),
    "another name": (CNN, npz(pixels=BATCH), {"content_type": "application/x-npz"}, 400, "received 'pixels'"),
    "a zip bomb": (
        CNN,
        npz(images=np.zeros((9999, 8, 8, 1))),
        {"content_type": "application/x-npz"},
        413,
        "at most",
    ),
    "NaN in an array": (CNN, npy(BATCH * np.nan), {"content_type": "application/x-npy"}, 400, "finite"),
    "a WebP": (CNN, b"RIFF0000WEBP", {"content_type": "image/png"}, 400, "It seems to be a WebP file"),
    "an unknown form": (
        CNN,
        png(GREY),
        {"accept": "text/csv"},
        406,
        "An answer may be application/json, image/png",
    ),
    "a mask of a class": (CNN, png(GREY), {"accept": "image/png"}, 406, "returns no mask"),
    "a mask of two images": (CELLS, npy(np.stack([RGB, RGB])), {"accept": "image/png"}, 400, "application/x-npz"),
    "an unknown output": (
        f"{CELLS}:predict?output=means",
        png(RGB),
        {"accept": "image/tiff"},
        400,
        "There is no output 'means'",
    ),
    "another model": ("/v1/models/cell", png(RGB), {}, 404, "Models here: cells, cnn. Did you mean 'cells'"),
}


@pytest.mark.parametrize("path, body, headers, status, words", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_comes_with_what_to_send(path, body, headers, status, words, both):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    code, answer, _ = both.send("POST", path if ":predict" in path else f"{path}:predict", raw, **headers)
    error = json.loads(answer)["error"]
    assert code == status and words in error and "\n" not in error and len(error) < 400, error


@pytest.mark.parametrize(
    "method, path, words",
    [
        ("GET", f"{CNN}:predict", "need a POST request"),
        ("POST", f"{CNN}/predict", "/v1/models/NAME:predict"),
        ("POST", "/predict", "GET /v1/models lists the names"),
    ],
)
def test_another_address(method, path, words, both):
    status, answer, _ = both.send(method, path, b"{}" if method == "POST" else None)
    assert status in (404, 405) and words in json.loads(answer)["error"]


@pytest.mark.parametrize(
    "accept, form",
    [
        ("", FORMS[0]),
        ("*/*", FORMS[0]),
        ("application/json, text/plain, */*", FORMS[0]),
        ("text/html,application/xhtml+xml,image/webp,*/*;q=0.8", FORMS[0]),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("IMAGE/PNG, */*", "image/png"),
        ("application/json;q=0.5, application/x-npz", "application/x-npz"),
        ("application/zip", "application/x-npz"),
        ("image/x-png", "image/png"),
        ("image/tif", "image/tiff"),
        ("text/csv, image/tiff;q=0.1", "image/tiff"),
    ],
)
def test_the_form_that_is_preferred(accept, form):
    assert form_of(accept) == form


@pytest.mark.parametrize("accept", ["text/csv", "image/webp", "application/json;q=0", "application/json;q=x"])
def test_forms_that_there_are_not(accept):
    with pytest.raises(Refused, match="An answer may be"):
        form_of(accept)


def test_two_models_behind_a_proxy_for_another_origin(both):
    assert both.get("/v1/models")[1] == {"models": [{"name": n, "versions": [1]} for n in ("cells", "cnn")]}
    assert both.get("/zoo/v1/models/cnn")[0] == 200  # a proxy that keeps the path
    assert both.get("/v1/models/cnn")[0] == 200  # and one that takes it off
    asked = {"origin": "https://app.example", "access_control_request_method": "POST"}
    more = {"access_control_request_headers": "content-type,authorization"}
    status, _, headers = both.send("OPTIONS", f"{CNN}:predict", None, **asked, **more)
    assert status == 200 and headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in headers["access-control-allow-headers"]
    status, _, headers = both.send("POST", f"{CNN}:predict", png(GREY), origin="https://app.example")
    assert status == 200 and headers["access-control-allow-origin"] == "https://app.example"
    _, _, headers = both.send("POST", f"{CNN}:predict", b"no", origin="https://app.example")
    assert headers["access-control-allow-origin"] == "https://app.example"  # an error can be read too
    _, _, headers = both.send("POST", f"{CNN}:predict", png(GREY), origin="https://evil.example")
    assert "access-control-allow-origin" not in headers
    for name in ("cnn", "cells"):
        page = both.send("GET", f"/?model={name}")[1].decode()
        assert f'const MODEL = "{name}"' in page and 'const ROOT = "/zoo";' in page


def test_a_model_that_is_added_and_one_that_is_taken_away(both):
    models = both.core.models
    folder = models.by_name["cnn"].folder.parent
    shutil.copytree(folder / "cnn", folder / "dogs")
    models.refresh()
    assert both.post("/v1/models/dogs:predict", png(GREY))[0] == 200
    shutil.rmtree(folder / "dogs")
    models.refresh()
    assert both.post("/v1/models/dogs:predict", png(GREY))[0] == 404


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://*.example", "ftp://a", ""])
def test_origins_of_another_form(origin):
    with pytest.raises(ValueError, match="must be a scheme, a host"):
        check_origins([origin])


def test_paths_and_folders_of_another_form(tmp_path):
    assert check_root_path("/a/b/") == "/a/b" and check_root_path("") == check_root_path("/") == ""
    for path in ("a", "//", "/a b", "/a?b"):
        with pytest.raises(ValueError, match="must be a path such as"):
            check_root_path(path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="Expected a folder of exported versions"):
        create_app(tmp_path)


def test_a_member_after_the_limit_is_not_unpacked():
    with pytest.raises(Refused, match="unpacked body may have"):
        unzipped(gzip.compress(bytes(90_000)) * 2, LIMITS)
    assert zipfile.is_zipfile(io.BytesIO(npz(a=BATCH)))


NOT_FINITE = (500, {"error": "The model's answer is not finite"})


@pytest.mark.parametrize("verb, form", [*(("predict_mc", form) for form in FORMS), ("picture", FORMS[0])])
def test_an_answer_that_is_not_finite_is_an_error_in_every_form(verb, form, both, monkeypatch):
    path = f"{CELLS}:{verb}"
    assert ask(both, path, png(RGB), form)[0] == 200
    batcher = both.core.batcher(both.core.models.by_name["cells"].available[1].signatures["predict_mc"])
    run = batcher.run
    monkeypatch.setattr(batcher, "run", lambda x: {name: value * np.nan for name, value in run(x).items()})
    assert both.post(path, png(RGB), accept=form) == NOT_FINITE


def test_the_command_line_can_ask_a_server(both, unet_export):
    from dropzoo.predictions.remote import connect
    from dropzoo.runs.predictors import load_predictor

    address = f"http://127.0.0.1:{both.port}"
    predictor = connect(f"{address}/v1/models/cells")
    there = load_predictor(unet_export)
    assert predictor.class_names == there.class_names == ("background", "cell", "edge") and predictor.is_map
    images = np.stack([RGB, RGB[::-1]]) / np.float32(255)
    found, wanted = predictor.predict(images), there.predict(images)
    for name in ("mean", "predictive_entropy", "mutual_information"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
    assert connect(f"{address}/v1/models/cnn").predict(np.zeros((1, 8, 8, 1)))["mean"].shape == (1, 4)
    for wrong, words in (
        (address, "several models: .*Name one: "),
        (f"{address}/v1/models/cell", "Did you mean 'cells'"),
    ):
        with pytest.raises(ValueError, match=words):
            connect(wrong)
    with pytest.raises(ValueError, match="does not answer"):
        connect("127.0.0.1:9")
    with pytest.raises(ValueError, match="The server refused the request with status 413"):
        predictor.predict(np.zeros((3, 100, 100, 3), "float32"))
