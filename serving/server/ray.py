"""The server on Ray Serve: the same application in several processes, as many as the load asks for.

It needs the extras `serve` and `ray`. Each replica loads the versions itself, watches the folder, and batches what
reaches it, so `/metrics` and the figures in it are of the replica that answers. Since `predict_mc` is a pure
function of the image, it does not matter which one that is.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers; read when Ray is imported

import ray
from ray import serve as ray_serve

from dropzoo.serving.montecarlo.sampler import check_count
from dropzoo.serving.server.app import create_app

_log = logging.getLogger("dropzoo.serving")
_NAME = "dropzoo"  # of the application on a cluster


def deployment(
    folder: Path, *, min_replicas: int = 1, max_replicas: int | None = None, num_cpus: float = 1.0, **options: Any
) -> Any:
    """A Ray Serve application, for `ray.serve.run`.

    Args:
        folder: The folder of a model's versions, as for `create_app`; every machine of the cluster must see it.
        min_replicas: Int, the processes that are always there.
        max_replicas: Int, the most there can be: one more while each has over eight requests at a time. None for
            a fixed number.
        num_cpus: Float, that Ray sets aside for a replica.
        options: As for `create_app`.

    Raises:
        ValueError: for bad numbers, or if there is no version in the folder.
    """
    most = check_count(min_replicas, "min_replicas") if max_replicas is None else max_replicas
    if check_count(most, "max_replicas") < min_replicas:
        raise ValueError(
            f"`max_replicas` must be at least `min_replicas`, {min_replicas}. Received: max_replicas={most}"
        )
    folder = Path(folder).resolve()
    if not any(p.parent.name.isdigit() for p in folder.glob("*/saved_model.pb")):
        raise ValueError(f"Expected a folder of exported versions. Received: {folder}")  # not in a replica's log
    scaling: dict[str, Any] = {"num_replicas": min_replicas}
    if most > min_replicas:
        numbers = {"min_replicas": min_replicas, "max_replicas": most, "target_ongoing_requests": 8}
        scaling = {"autoscaling_config": numbers}
    made = ray_serve.deployment(
        name=_NAME,
        ray_actor_options={"num_cpus": num_cpus},
        max_ongoing_requests=512,  # batches form in the replica; it refuses what is too much itself
        graceful_shutdown_timeout_s=30,
        **scaling,
    )
    return made(ray_serve.ingress(_builder(str(folder), options))()).bind()


def _builder(folder: str, options: dict[str, Any]) -> Callable[[], FastAPI]:
    def build() -> FastAPI:
        app = create_app(Path(folder), **options)
        app.state.server.settle()
        return app

    return build


def _leave() -> None:
    """Takes the application away; and Ray Serve too, unless it has others of a shared cluster."""
    if set(ray_serve.status().applications) - {_NAME}:
        ray_serve.delete(_NAME)
    else:
        ray_serve.shutdown()


def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 8501, **options: Any) -> None:
    """Serves until it is told to stop, on the cluster at `RAY_ADDRESS` or on this machine alone.

    Args:
        folder: As for `deployment`, and so for the options.
        host: That the proxy listens on.
        port: So too.
    """
    application = deployment(folder, **options)
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    before: dict[int, Any] = {}
    try:
        ray.init(ignore_reinit_error=True)
        ray_serve.start(http_options={"host": host, "port": port})
        # After Ray has set its own, which would abort the process three seconds after a SIGTERM.
        before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
        ray_serve.run(application, name=_NAME, route_prefix="/")
        _log.info("Serving %s on http://%s:%d", folder, host, port)
        stop.wait()
    finally:
        if ray.is_initialized():
            _leave()
        ray.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
