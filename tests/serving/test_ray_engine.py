"""The server on Ray Serve: two replicas answer as the model does, and a bad folder is said at once."""

import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("ray.serve", reason="needs the extra `ray`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _small_cnn import images, small_cnn
from dropzoo import serving
from dropzoo.serving.server import ray as ray_engine


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_bad_numbers_and_folders(plain_export, tmp_path):
    with pytest.raises(ValueError, match="at least `min_replicas`, 3. Received: max_replicas=2"):
        ray_engine.deployment(plain_export, min_replicas=3, max_replicas=2)
    with pytest.raises(ValueError, match="min_replicas=0"):
        ray_engine.deployment(plain_export, min_replicas=0)
    with pytest.raises(ValueError, match="must not be empty. Received: token=''"):
        ray_engine.deployment(plain_export, token="")
    with pytest.raises(ValueError, match="Expected a folder of exported versions"):
        ray_engine.deployment(tmp_path)


@pytest.mark.slow
def test_what_else_a_cluster_serves_goes_on():
    import ray
    from ray import serve as ray_serve

    def answer(request):
        return "here"

    made = ray_serve.deployment(ray_actor_options={"num_cpus": 0})(answer).bind()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        for name in ("other", ray_engine.NAME):
            ray_serve.run(made, name=name, route_prefix=f"/{name}")
        ray_engine.leave()
        assert set(ray_serve.status().applications) == {"other"}
        ray_serve.delete("other")
        ray_serve.run(made, name=ray_engine.NAME)
        ray_engine.leave()
        assert not ray_serve.status().applications
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_two_replicas_answer_as_the_model_does(tmp_path):
    model = small_cnn()
    serving.export_model(model, tmp_path / "cnn", 4)
    expected = serving.MonteCarlo(model, 4, "fixed")(images(2))["mean"].numpy()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dropzoo.cli", "serve", str(tmp_path / "cnn"), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("w") as out:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        running = subprocess.Popen(
            [*command, "--engine", "ray", "--replicas", "2"], stdout=out, stderr=out, env=environment
        )
    try:
        deadline, status = time.monotonic() + 240, None
        while status != 200:
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(1)
            try:
                status, _ = ask(port, "GET", "/healthz")
            except OSError:
                continue
        body, seen = json.dumps({"instances": images(2).tolist()}), []
        # The first replica answers while the second starts. A single replica's count of requests only grows.
        while len(seen) < 20 or not any(b < a for a, b in itertools.pairwise(seen)):
            assert time.monotonic() < deadline, f"only one replica answers: {seen}"
            status, answer = ask(port, "POST", "/v1/models/cnn:predict_mc", body)
            assert status == 200
            rows = json.loads(answer)["predictions"]
            np.testing.assert_allclose([row["mean"] for row in rows], expected, atol=1e-5)
            figures = ask(port, "GET", "/metrics")[1].decode()
            counts = re.findall(r"^dropzoo_requests_total{.*} (\S+)$", figures, re.M)
            seen.append(sum(map(float, counts)))
        status, answer = ask(port, "POST", "/v1/models/cnn:predict", "{}")
        assert status == 400 and "error" in json.loads(answer)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(90) == 0, log.read_text()[-3000:]
