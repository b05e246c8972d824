"""The server: its answers are those of the SavedModel, in every form, version and batch."""

import base64
import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _cli import run
from _live import Held, live, png, until
from dropzoo.serving.server import app as module
from dropzoo.serving.server.limits import Limits

CNN = "/v1/models/cnn"


@pytest.fixture(scope="module")
def cnn(cnn_export):
    with live(cnn_export) as running:
        yield running


@pytest.fixture(scope="module")
def unet(unet_export):
    with live(unet_export) as running:
        yield running


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).random((3, 8, 8, 1), "float32")


@pytest.fixture(scope="module")
def expected(cnn_export, x):
    loaded = tf.saved_model.load(str(cnn_export / "1"))
    return {name: loaded.signatures[name](images=x) for name in ("serving_default", "predict_mc")}


def check(found, expected) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("verb", ["predict", "predict_mc"])
@pytest.mark.parametrize("path", [CNN, f"{CNN}/versions/1"])
def test_rows_and_columns(path, verb, cnn, x, expected):
    wanted = expected["predict_mc" if verb == "predict_mc" else "serving_default"]
    rows = x.tolist()
    for body in ({"instances": rows}, {"instances": [{"images": row} for row in rows]}):
        status, answer = cnn.post(f"{path}:{verb}", body)
        assert status == 200
        check(columns(answer["predictions"]), wanted)
    for body in ({"inputs": rows}, {"inputs": {"images": rows}}):
        status, answer = cnn.post(f"{path}:{verb}", body)
        assert status == 200
        check(answer["outputs"], wanted)


def test_signatures_by_name(cnn, x, expected):
    body = {"signature_name": "predict_mc", "instances": x.tolist()}
    check(columns(cnn.post(f"{CNN}:predict", body)[1]["predictions"]), expected["predict_mc"])
    image = (x[0] * 255).astype("uint8")
    encoded = {"b64": base64.b64encode(png(image)).decode()}
    rows = []
    for value in ({"instances": [encoded]}, {"instances": [{"image_bytes": encoded}]}, {"inputs": [encoded]}):
        status, answer = cnn.post(f"{CNN}:predict", {"signature_name": "predict_bytes", **value})
        assert status == 200
        rows.append(answer.get("outputs") or columns(answer["predictions"]))
    by_file = columns(cnn.post(f"{CNN}:predict", png(image), content_type="image/png")[1]["predictions"])
    for row in rows:
        check(row, by_file)


def test_files_are_brought_to_the_models_channels_and_size(cnn, cnn_export):
    loaded = tf.saved_model.load(str(cnn_export / "1"))
    image = np.random.default_rng(0).integers(0, 256, (30, 17, 3), "uint8")
    for kind, data in {"png": png(image), "jpeg": tf.io.encode_jpeg(image).numpy()}.items():
        status, answer = cnn.post(f"{CNN}:predict", data, content_type=f"image/{kind}")
        assert status == 200
        check(columns(answer["predictions"]), loaded.signatures["predict_bytes"](image_bytes=[data]))
        assert set(cnn.post(f"{CNN}:predict_mc", data, content_type=f"image/{kind}")[1]["predictions"][0]) == {
            "mean",
            "variance",
            "predictive_entropy",
            "mutual_information",
        }


def test_images_of_any_size_and_type(unet, unet_export):
    loaded = tf.saved_model.load(str(unet_export / "1"))
    for height, width in ((9, 7), (12, 5)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")
        wanted = loaded.signatures["predict_mc"](images=image[None])
        status, answer = unet.post("/v1/models/cells:predict_mc", png(image), content_type="image/png")
        assert status == 200
        check(columns(answer["predictions"]), wanted)
        check(unet.post("/v1/models/cells:predict_mc", {"inputs": [image.tolist()]})[1]["outputs"], wanted)


def test_status_metadata_and_health(cnn):
    ok = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (CNN, f"{CNN}/versions/1"):
        assert cnn.get(path) == (200, {"model_version_status": [ok]})
        status, metadata = cnn.get(f"{path}/metadata")
        assert status == 200 and metadata["model_spec"] == {"name": "cnn", "signature_name": "", "version": "1"}
        definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert definition["inputs"]["images"]["dtype"] == "DT_FLOAT"
        sizes = [dim["size"] for dim in definition["inputs"]["images"]["tensor_shape"]["dim"]]
        assert sizes == ["-1", "8", "8", "1"] and definition["method_name"] == "tensorflow/serving/predict"
    assert cnn.get("/healthz") == (200, {"status": "ok", "versions": [1]})
    for path in ("/healthz", "/", "/metrics", "/v1/models", CNN, f"{CNN}/metadata", f"{CNN}/info"):
        assert cnn.send("HEAD", path)[:2] == (200, b"") and cnn.send("GET", path)[0] == 200


def test_metrics_name_routes_and_not_addresses(cnn, x):
    cnn.post(f"{CNN}:predict", {"instances": x.tolist()})
    cnn.get("/v1/models/secret")
    cnn.get("/somewhere/else")
    status, text, headers = cnn.send("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    assert re.search(rb'requests_total{route="/v1/models/{name}:predict",status="200"} \d', text)
    assert b"dropzoo_batch_size_bucket" in text and b"dropzoo_versions 1.0" in text
    assert b"secret" not in text and b"somewhere" not in text


def test_many_clients_are_answered_in_batches_and_alike(cnn, expected, x):
    batches = cnn.core.metrics.batch_size
    before = batches._sum.get(), sum(bucket.get() for bucket in batches._buckets)
    one = lambda i: cnn.post(f"{CNN}:predict_mc", {"instances": [x[i % 3].tolist()]})  # noqa: E731
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(96)))
    for i, (status, answer) in enumerate(answers):
        assert status == 200
        for name, value in answer["predictions"][0].items():
            np.testing.assert_allclose(value, expected["predict_mc"][name][i % 3], atol=1e-5)
    rows = batches._sum.get() - before[0]
    assert rows == 96 and sum(bucket.get() for bucket in batches._buckets) - before[1] < 96


def test_a_token_is_asked_for_where_there_is_one(cnn_export, x):
    with live(cnn_export, token="sesame") as running:
        body = {"instances": x.tolist()}
        for given in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "sesame"}):
            for status, answer in (running.post(f"{CNN}:predict", body, **given), running.get(CNN, **given)):
                assert status == 401 and "Bearer TOKEN" in answer["error"]
        both = (CNN, f"{CNN}/versions/1")
        closed = [("GET", "/metrics"), ("POST", f"{CNN}:picture")]
        closed += [("GET", f"{path}{end}") for path in both for end in ("", "/metadata")]
        closed += [("POST", f"{path}:{verb}") for path in both for verb in ("predict", "predict_mc")]
        for method, path in closed:
            status, _, headers = running.send(method, path)
            assert status == 401 and headers["www-authenticate"] == "Bearer", path
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert running.post(f"{CNN}:predict", body, authorization=f"{scheme} sesame")[0] == 200
        for path in ("/healthz", "/"):
            assert running.send("GET", path)[0] == running.send("HEAD", path)[0] == 200


def test_the_description_names_the_bodies_the_errors_and_the_token(cnn, cnn_export):
    described = cnn.get("/openapi.json")[1]
    post = described["paths"]["/v1/models/{name}:predict"]["post"]
    bodies = post["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert [set(body["properties"]) for body in bodies] == [
        {"signature_name", "instances"},
        {"signature_name", "inputs"},
    ]
    assert {"image/png", "application/x-npy"} <= set(post["requestBody"]["content"]) and "406" in post["responses"]
    error = {"$ref": "#/components/schemas/Error"}
    assert all(
        answer["content"]["application/json"]["schema"] == error
        for status, answer in post["responses"].items()
        if status != "200"
    )
    assert set(described["paths"]["/healthz"]["get"]["responses"]) == {"200", "503"} and "security" not in post
    closed = module.create_app(cnn_export, token="sesame").openapi()
    assert closed["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert "security" not in closed["paths"]["/healthz"]["get"]


@pytest.mark.parametrize("case", ["nothing", "a version", "no folder", "broken"])
def test_a_folder_that_cannot_be_served(case, tmp_path, plain_export):
    folder = {"a version": plain_export / "1", "no folder": tmp_path / "none"}.get(case, tmp_path)
    if case == "broken":
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="Expected (a|the) folder of"):
        module.create_app(folder)
    with pytest.raises(ValueError, match="`max_pixels` must be a positive number. Received: max_pixels=0"):
        Limits(max_pixels=0)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--max-body-mib", "0"], "`--max-body-mib` must be a positive number. Received: --max-body-mib=0.0"),
        (["--max-body-mib", "nan"], "`--max-body-mib` must be a positive number. Received: --max-body-mib=nan"),
        (["--max-pixels", "-1"], "`--max-pixels` must be a positive number. Received: --max-pixels=-1"),
        (["--body-timeout", "inf"], "`--body-timeout` must be a positive number. Received: --body-timeout=inf"),
        (["--root-path", "zoo"], "(--root-path) must be a path such as /models. Received: root_path='zoo'"),
        (["--token", ""], "(--token) must not be empty. Received: token=''"),
        (["--token", " "], "(--token) must not be empty. Received: token=' '"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1, port 0: "),
    ],
)
def test_options_of_the_command_that_are_refused_at_the_start(options, words, tmp_path, capsys):
    status, _, error = run(capsys, "serve", str(tmp_path), "--port", "0", *options)
    assert status == 2 and words in error


def test_a_port_that_is_in_use_is_found_before_the_models_are_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, error = run(capsys, "serve", str(tmp_path), "--port", str(port))
    assert status == 2 and "the port is in use. Choose another port with --port" in error
    status, _, error = run(capsys, "serve", str(tmp_path), "--port", str(port))
    assert status == 2 and "Expected a folder of exported versions" in error


def test_the_command_serves_until_it_is_terminated(cnn_export, x):
    command = [sys.executable, "-m", "dropzoo.cli", "serve", str(cnn_export), "--port", "0"]
    env = os.environ | {"DROPZOO_TOKEN": "sesame", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    seen = ""
    for line in process.stderr:
        seen += line
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
            break
    else:
        pytest.fail(seen)
    body = json.dumps({"instances": x.tolist()}).encode()
    request = urllib.request.Request(f"{found[1]}{CNN}:predict", body, {"Authorization": "Bearer sesame"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert len(json.load(response)["predictions"]) == 3
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in seen + rest


def test_stopping_waits_for_requests_that_are_under_way(plain_export, x):
    with live(plain_export) as running:
        held = Held(running.batcher())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            late = pool.submit(running.post, f"{CNN}:predict", {"instances": x.tolist()})
            assert held.begun.wait(30)
            running.uvicorn.should_exit = True
            until(lambda: not running.uvicorn.servers[0].is_serving())
            held.go_on.set()
            assert late.result()[0] == 200
