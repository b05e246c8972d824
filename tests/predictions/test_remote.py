"""A server as a predictor: what it must be, and which options it cannot follow."""

import contextlib
import io
import socketserver
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from _cli import run
from dropzoo.cli import predictions
from dropzoo.predictions import remote

SIGNATURE = {
    "inputs": {
        "images": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": n} for n in ("-1", "8", "8", "1")]}}
    },
    "outputs": {"probabilities": {"tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}},
}


@pytest.mark.parametrize(
    "info, words",
    [
        *(({"task": task}, None) for task in ("multi_class", "binary", "multi_label", "regression")),
        ({}, None),
        ({"inputs": [{"pixels": {"low": -3.0, "high": 3.0, "from_files": False}}]}, "takes pixels from -3 to 3"),
    ],
)
def test_servers_of_every_output_kind_and_their_ranges(info, words, monkeypatch):
    output = "values" if info.get("task") == "regression" else "probabilities"
    signature = SIGNATURE | {"outputs": {output: SIGNATURE["outputs"]["probabilities"]}}
    answers = {
        "/v1/models": {"models": [{"name": "a"}]},
        "/v1/models/a/info": info,
        "/v1/models/a/metadata": {
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}
        },
    }
    served = SimpleNamespace(get=answers.__getitem__, address="http://x")
    monkeypatch.setattr(remote, "_Connection", lambda *_: served)
    if words is None:
        found = remote.connect("http://x")
        assert found.input_shape == (8, 8, 1) and found.task == info.get("task", "multi_class")
        assert not found.is_map
        return
    with pytest.raises(ValueError, match=words):
        remote.connect("http://x")


@pytest.mark.parametrize("first, images", [(None, (8, 8, 1)), (False, (8, 8, 1)), (True, (8, 1, 8))])
def test_the_record_of_an_export_says_where_the_channels_are(first, images, monkeypatch):
    sent = []

    def send(path, body, headers):
        sent.append(np.load(io.BytesIO(body)).shape)
        raise ValueError

    answers = {
        "/v1/models": {"models": [{"name": "a"}]},
        "/v1/models/a/info": {"inputs": [{"pixels": {"first": first}}]},
        "/v1/models/a/metadata": {
            "metadata": {"signature_def": {"signature_def": {"serving_default": SIGNATURE}}}
        },
    }
    found = SimpleNamespace(get=answers.__getitem__, send=send, address="http://x")
    monkeypatch.setattr(remote, "_Connection", lambda *_: found)
    predictor = remote.connect("http://x")
    assert predictor.input_shape == images
    with pytest.raises(ValueError):
        predictor.predict(np.zeros((2, *images), "float32"))
    assert sent == [(2, 8, 8, 1)]


def served(monkeypatch, versions, info):
    """Returns what `predict --server` keeps in the journal, and the paths that an answer asks for."""
    asked: list[str] = []

    def send(path, body, headers):
        asked.append(path)
        raise ValueError

    def get(path):
        if path == "/v1/models":
            return {"models": [{"name": "a", "versions": versions}]}
        signatures = {"serving_default": SIGNATURE, "predict_mc": SIGNATURE}
        return info if path.endswith("/info") else {"metadata": {"signature_def": {"signature_def": signatures}}}

    found = SimpleNamespace(get=get, send=send, address="http://x")
    monkeypatch.setattr(remote, "_Connection", lambda *_: found)
    predictor = remote.connect("http://x")
    with pytest.raises(ValueError):
        predictor.predict(np.zeros((1, 8, 8, 1), "float32"))
    return predictions._settings(None, predictions.ModelAnswers(server="http://x"), predictor), asked


@pytest.mark.parametrize("versions, info", [([1, 2], {}), ([1], {"created": "later"}), ([1], {"num_samples": 5})])
def test_another_version_of_a_server_has_other_settings(versions, info, monkeypatch):
    """So `predict` refuses to go on with a table of another model."""
    first, asked = served(monkeypatch, [1], {})
    assert asked == ["/v1/models/a/versions/1:predict_mc"] and first == served(monkeypatch, [1], {})[0]
    assert first != served(monkeypatch, versions, info)[0]


def test_a_version_in_the_address_is_refused():
    with pytest.raises(
        ValueError, match=r"newest version of a model. Leave out /versions/2: http://x/v1/models/a"
    ):
        remote.connect("http://x/v1/models/a/versions/2")


@pytest.mark.parametrize(
    "options, named",
    [
        (["--num-samples", "5"], "--num-samples"),
        (["--seed", "1", "--input-range", "0,1"], "--seed, --input-range"),
        (["--no-calibration", "--from-logits"], "--from-logits, --no-calibration"),
        (["--overlap", "8"], "--overlap"),
    ],
)
def test_options_that_a_server_cannot_follow(options, named, capsys):
    status, _, error = run(capsys, "predict", "a.png", "--server", "http://127.0.0.1:9", *options)
    assert status == 2 and f"cannot be used: {named}. Leave them out" in error.replace("\n", " ")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:85o1", "http://127.0.0.1:99999", "http://[::1", "http://my host:8501", "ftp://x", "//"],
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="A server's address must look like http://127.0.0.1:8501"):
        remote.connect(address)


@contextlib.contextmanager
def answering(answer: bytes):
    """Gives the address of a server that answers every request with these bytes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(4096)
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer, said",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>Jupyter</html>", "<html>Jupyter</html>"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"detail": "ok"}', "{'detail': 'ok'}"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno\n such page", "status 404, no such page"),
        (b"SSH-2.0-OpenSSH\r\n", "BadStatusLine, SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "IncompleteRead"),
    ],
)
def test_an_address_where_another_program_answers(answer, said):
    with answering(answer) as address, pytest.raises(ValueError) as error:
        remote.connect(address)
    assert f"Expected a dropzoo server at {address}. Received another answer: {said}" in str(error.value)
    assert "Pass the address that dropzoo serve prints" in str(error.value)


def test_a_server_that_closes_the_connection_does_not_answer():
    with (
        answering(b"") as address,
        pytest.raises(ValueError, match=f"{address} does not answer: Remote end closed"),
    ):
        remote.connect(address)
