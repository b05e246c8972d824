"""The server: TensorFlow Serving's REST API, Monte-Carlo predictions, image upload, and a page to try them.

It needs the extra `serve`. It reads only the SavedModel and its `info.json`: no Keras file, no pickle, and no code
beside the model.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict, Unpack

import jinja2
import uvicorn
from fastapi import FastAPI

from dropzoo.serving.server.core import Server
from dropzoo.serving.server.http import add_errors
from dropzoo.serving.server.limits import Limits
from dropzoo.serving.server.metrics import Observed
from dropzoo.serving.server.routes import model_routes, open_routes


class AppOptions(TypedDict, total=False):
    """The options of `create_app`, for functions that pass them on."""

    limits: Limits | None
    token: str | None
    poll_seconds: float
    keep: int


def create_app(
    folder: Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    poll_seconds: float = 2.0,
    keep: int = 2,
) -> FastAPI:
    """Returns the application, with its versions loaded.

    Args:
        folder: Folder of a model's versions, `saved_models/NAME`. The model has the name of this folder.
        limits: Limits of requests; None for the defaults of `Limits`.
        token: Bearer token that requests for the model must send; the page and `/healthz` need none. None for a
            server that asks for no token.
        poll_seconds: Float, seconds between checks for new versions.
        keep: Int, how many of the newest versions to serve.

    Raises:
        ValueError: If the folder has no version that can be served or is a version itself, or if `keep` is not
            positive.
    """
    server = Server(Path(folder), limits or Limits(), keep)
    server.versions.refresh()
    if not server.versions.available:
        why = "; ".join(f"{n}: {message}" for n, message in server.versions.failed.items())
        raise ValueError(
            f"Expected a folder of exported versions. Received: {folder}" + (f" ({why})" if why else "")
        )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(server.watch(poll_seconds))
        yield
        watching.cancel()
        server.pool.shutdown(wait=True)

    version = importlib.metadata.version("dropzoo")
    app = FastAPI(title="dropzoo", version=version, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_middleware(Observed, metrics=server.metrics)
    add_errors(app)
    app.include_router(model_routes(server, token))
    app.include_router(open_routes(server, page_for(server.versions.name, server.limits)))
    return app


def page_for(name: str, limits: Limits) -> str:
    """Returns the page at `/`.

    Args:
        name: Name of the model.
        limits: Limits of requests. The page shrinks images that have too many pixels.

    Raises:
        ValueError: If the name, which comes from a folder, has characters other than letters, digits and `_.+-`.
    """
    if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
        raise ValueError(f"A model's name may have letters, digits and _ . + - only. Received: {name!r}")
    page = (Path(__file__).parent / "page.html").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(page).render(name=name, max_pixels=limits.max_pixels)


def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 8501, **options: Unpack[AppOptions]) -> None:
    """Serves until the process is told to stop, and then still answers the requests that have arrived.

    Args:
        folder: Folder of a model's versions, as for `create_app`.
        host: Address to listen on.
        port: Int, port to listen on; 0 for any free port.
        options: As for `create_app`.
    """
    app = create_app(folder, **options)
    app.state.server.settle()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        server_header=False,
        limit_concurrency=1024,
        timeout_graceful_shutdown=30,
    )
