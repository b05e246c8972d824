"""A server of this package on a free port, in a thread, and a client for it."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import uvicorn

from dropzoo.serving.server import app as module
from dropzoo.serving.server.batching import Batcher


class Held:
    """Holds up the batches of one signature until `go_on` is set, and notes how many rows each has."""

    def __init__(self, batcher: Batcher) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.rows: list[int] = []
        self.run, batcher.run = batcher.run, self

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.rows.append(len(next(iter(inputs.values()))))
        self.begun.set()
        assert self.go_on.wait(60)
        return self.run(inputs)


class Live:
    """A running server; `core` is its inside."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.app = module.create_app(folder, **options)
        self.core = self.app.state.server
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=20)
        self.uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def start(self) -> None:
        self._thread.start()
        until(lambda: self.uvicorn.started)

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}

    def batcher(self, signature: str = "serving_default") -> Batcher:
        """Returns the batcher of a signature of version 1."""
        return self.core.batcher(self.core.versions.available[1].signatures[signature])

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        status, body, _ = self.send("GET", path, **headers)
        return status, json.loads(body)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer, _ = self.send("POST", path, raw, **headers)
        return status, json.loads(answer)


@contextlib.contextmanager
def live(folder: Path, **options: Any) -> Iterator[Live]:
    running = Live(folder, **options)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def until(condition: Any, seconds: float = 30.0) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()
