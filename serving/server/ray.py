"""The server on Ray Serve: the same application in several processes, whose number follows the load.

It needs the extras `serve` and `ray`. Each replica loads the versions, watches the folder and batches the requests
that reach it, so `/metrics` describes the replica that answers. It does not matter which replica answers, since
`predict_mc` is a pure function of the image.
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
from typing_extensions import Unpack

# Ray reads this when it is imported. Without it, Ray reports its use.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve as ray_serve

from dropzoo.common.checks import check_count
from dropzoo.serving.server.app import AppOptions, check_token, create_app

_log = logging.getLogger("dropzoo.serving")
NAME = "dropzoo"  #: Name of the application on a cluster.


class DeploymentOptions(AppOptions, total=False):
    """The options of `deployment`, for functions that pass them on."""

    min_replicas: int
    max_replicas: int | None
    num_cpus: float


def deployment(
    folder: Path,
    *,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    num_cpus: float = 1.0,
    **options: Unpack[AppOptions],
) -> ray_serve.Application:
    """Returns a Ray Serve application, for `ray.serve.run`.

    Args:
        folder: Folder of a model's versions, as for `create_app`; every machine of the cluster must see it.
        min_replicas: Int, the number of processes that always run.
        max_replicas: Int, the largest number of processes. Ray adds processes while each has more than eight
            requests at a time. None for `min_replicas`, a fixed number.
        num_cpus: Float, CPUs that Ray sets aside for a replica.
        options: As for `create_app`.

    Raises:
        ValueError: If a number of replicas is not positive, if `max_replicas` is below `min_replicas`, if the
            token is empty, or if the folder has no version.
    """
    least = check_count(min_replicas, "min_replicas")
    most = least if max_replicas is None else check_count(max_replicas, "max_replicas")
    if most < least:
        raise ValueError(
            f"`max_replicas` (--max-replicas) must be at least `min_replicas` (--replicas), {min_replicas}. "
            f"Received: max_replicas={most}"
        )
    check_token(options.get("token"))
    folder = Path(folder).resolve()
    found = [*folder.glob("*/saved_model.pb"), *folder.glob("*/*/saved_model.pb")]
    if not any(p.parent.name.isdigit() for p in found):
        # Raised here, because the user would find an error in a replica only in its log.
        raise ValueError(
            "Expected a folder of exported versions (NAME/1, NAME/2, ...), or a folder of several models. "
            f"Received: {folder}"
        )
    scaling: dict[str, Any] = {"num_replicas": min_replicas}
    if most > min_replicas:
        numbers = {"min_replicas": min_replicas, "max_replicas": most, "target_ongoing_requests": 8}
        scaling = {"autoscaling_config": numbers}
    made = ray_serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": num_cpus},
        max_ongoing_requests=512,  # many, because the replica makes batches of them and refuses requests itself
        graceful_shutdown_timeout_s=30,
        **scaling,
    )
    return made(ray_serve.ingress(_builder(str(folder), options))()).bind()


def _builder(folder: str, options: AppOptions) -> Callable[[], FastAPI]:
    """A function that makes the application inside a replica, where the versions are loaded."""

    def build() -> FastAPI:
        app = create_app(Path(folder), **options)
        app.state.server.settle()
        return app

    return build


def leave() -> None:
    """Deletes the application. It stops Ray Serve too, unless other applications use it on a shared cluster."""
    if set(ray_serve.status().applications) - {NAME}:
        ray_serve.delete(NAME)
    else:
        ray_serve.shutdown()


def serve(
    folder: Path, *, host: str = "127.0.0.1", port: int = 8501, **options: Unpack[DeploymentOptions]
) -> None:
    """Serves until the process is told to stop, on the cluster at `RAY_ADDRESS` or on this machine alone.

    Args:
        folder: Folder of a model's versions, as for `deployment`.
        host: Address that the proxy listens on.
        port: Int, port that the proxy listens on.
        options: As for `deployment`.
    """
    application = deployment(folder, **options)
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    before: dict[int, Any] = {}
    try:
        ray.init(ignore_reinit_error=True)
        ray_serve.start(http_options={"host": host, "port": port})
        # Set after Ray has set its own handlers, which would abort the process three seconds after a SIGTERM.
        before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
        ray_serve.run(application, name=NAME, route_prefix="/")
        _log.info("Serving %s on http://%s:%d", folder, host, port)
        stop.wait()
    finally:
        if ray.is_initialized():
            leave()
        ray.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
