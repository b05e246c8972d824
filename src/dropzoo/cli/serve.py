"""The command `dropzoo serve`."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dropzoo.cli.options import with_groups
from dropzoo.common.checks import check_positive, unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """The limits of requests as options of the command line; see `Limits` of the server for their meaning."""

    max_body_mib: Annotated[
        float, typer.Option("--max-body-mib", help="Largest request, in MiB.", rich_help_panel="Limits")
    ] = 16.0
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            help="Largest number of pixels in all images of a request together.",
            rich_help_panel="Limits",
        ),
    ] = 4 * 2**20
    max_rows: Annotated[
        int, typer.Option("--max-rows", help="Largest number of images in a request.", rich_help_panel="Limits")
    ] = 4096
    max_batch_size: Annotated[
        int,
        typer.Option(
            "--max-batch-size",
            help="Largest number of images that are joined from several requests into one batch.",
            rich_help_panel="Limits",
        ),
    ] = 64
    max_wait_ms: Annotated[
        float,
        typer.Option(
            "--max-wait-ms",
            help="Longest time that a batch waits for more requests, in milliseconds.",
            rich_help_panel="Limits",
        ),
    ] = 2.0
    max_queue: Annotated[
        int,
        typer.Option(
            "--max-queue",
            help="Largest number of requests that wait for one signature of the model.",
            rich_help_panel="Limits",
        ),
    ] = 256
    body_timeout: Annotated[
        float,
        typer.Option(
            "--body-timeout", help="Longest time to send a request, in seconds.", rich_help_panel="Limits"
        ),
    ] = 30.0

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of `Limits`, or raises a ValueError that names the option."""
        said = dict(vars(self))
        for name, value in said.items():
            check_positive(value, f"--{name.replace('_', '-')}")
        body, seconds = said.pop("max_body_mib"), said.pop("body_timeout")
        return {**said, "max_body_bytes": math.ceil(body * 2**20), "body_timeout_s": seconds}


@with_groups
def serve(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model's folder with its versions (saved_models/NAME), or a folder with several models."
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. By default, only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 8501,
    token: Annotated[
        str | None, typer.Option("--token", envvar="DROPZOO_TOKEN", help="Token that requests must carry.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest versions to serve.")] = 2,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            help="Repeatable: an origin whose web pages may send requests, as in https://app.example; * for all.",
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option("--root-path", help="Path under which a proxy serves this server, such as /models.")
    ] = "",
    *,
    limits: LimitOptions,
    engine: Annotated[str, typer.Option("--engine", help="uvicorn; or ray, for several processes.")] = "uvicorn",
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Number of processes, for --engine ray.")] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option("--max-replicas", min=1, help="Largest number of processes under load, for --engine ray."),
    ] = None,
) -> None:
    """Serves exports over HTTP: TensorFlow Serving's REST API, Monte-Carlo answers (predict_mc), and a web page.

    Example: dropzoo serve saved_models/unet

    Example: dropzoo serve saved_models --allow-origin https://app.example --max-body-mib 64
    """
    if engine not in ("uvicorn", "ray"):
        raise unknown("engine", engine, ("uvicorn", "ray"))
    if engine == "uvicorn" and (replicas, max_replicas) != (1, None):
        raise ValueError("`--replicas` and `--max-replicas` are for --engine ray")
    try:
        if engine == "ray":
            from dropzoo.serving.server import ray as ray_engine
        else:
            from dropzoo.serving.server import app as server
        from dropzoo.serving.server.limits import Limits
    except ModuleNotFoundError as error:
        extra = "serve,ray" if engine == "ray" else "serve"
        raise ValueError(f"The server needs extra packages: pip install '.[{extra}]' ({error})") from None
    options: dict[str, Any] = {"host": host, "port": port, "token": token, "keep": keep}
    options |= {"allow_origins": allow_origin or (), "root_path": root_path}
    options |= {"limits": Limits(**limits.arguments())}
    if engine == "ray":
        ray_engine.serve(folder, min_replicas=replicas, max_replicas=max_replicas, **options)
    else:
        server.serve(folder, **options)
