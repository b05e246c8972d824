"""The server: TensorFlow Serving's REST API, Monte-Carlo predictions, image upload, and a page to try them.

It needs the extra `serve`. It reads only the SavedModel, its `info.json` and its `counts.json`: no Keras file, no
pickle, and no code beside the model.
"""

import asyncio
import contextlib
import errno
import importlib.metadata
import logging
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypedDict

import jinja2
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from typing_extensions import Unpack

from dropzoo.serving.server.core import Server
from dropzoo.serving.server.http import HeadAsGet, Rooted, add_errors
from dropzoo.serving.server.limits import Limits
from dropzoo.serving.server.metrics import Observed
from dropzoo.serving.server.routes import model_routes, open_routes


class AppOptions(TypedDict, total=False):
    """The options of `create_app`, for functions that pass them on."""

    limits: Limits | None
    token: str | None
    poll_seconds: float
    keep: int
    allow_origins: Sequence[str]
    root_path: str


def create_app(
    folder: Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    poll_seconds: float = 2.0,
    keep: int = 2,
    allow_origins: Sequence[str] = (),
    root_path: str = "",
) -> FastAPI:
    """Returns the application, with its versions loaded.

    Args:
        folder: Folder of a model's versions, `saved_models/NAME`, which has the name of this folder; or a folder
            of such folders, `saved_models`, for several models.
        limits: Limits of requests; None for the defaults of `Limits`.
        token: Bearer token that requests must send; the page, `/healthz` and `/openapi.json` need none. None for
            a server that asks for no token.
        poll_seconds: Float, seconds between checks for new versions.
        keep: Int, how many of the newest versions to serve.
        allow_origins: Origins of other pages that may ask the server from a browser, such as
            `"https://app.example"`; `"*"` for all.
        root_path: Str, the path under which a proxy shows the server, such as `"/models"`; empty for the root.

    Raises:
        ValueError: If the folder has no version that can be served or is a version itself, if `keep` is not
            positive, if the token is empty, or if an origin or the root path has another form.
    """
    check_token(token)
    origins, root_path = check_origins(allow_origins), check_root_path(root_path)
    server = Server(Path(folder), limits or Limits(), keep)
    server.models.refresh()
    if not server.models.loaded():
        failed = [failure for each in server.models.by_name.values() for failure in each.failed.items()]
        why = "; ".join(f"{n}: {message}" for n, message in failed)
        raise ValueError(
            "Expected a folder of exported versions (NAME/1, NAME/2, ...), or a folder of several models. "
            f"Received: {folder}" + (f" ({why})" if why else "")
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
    app.add_middleware(HeadAsGet)
    if root_path:
        app.add_middleware(Rooted, root_path=root_path)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["Content-Encoding"],
            max_age=600,
        )
    add_errors(app)
    app.include_router(model_routes(server, token))
    if server.models.single:
        page_for(server.versions.name, server.limits)  # a name that the page cannot show is an error at once

    def page(name: str | None) -> str:
        known = sorted(server.models.by_name)
        return page_for(name if name in known else known[0], server.limits, known, root_path)

    app.include_router(open_routes(server, page))
    return app


def check_token(token: str | None) -> None:
    """Raises a ValueError if a token is empty: no request could carry it."""
    if token is not None and not token.strip():
        raise ValueError(
            f"`token` (--token) must not be empty. Received: token={token!r}. Leave it out if requests need none"
        )


def check_address(host: str, port: int) -> None:
    """Raises a ValueError if the server could not listen at an address.

    Args:
        host: Address to listen on.
        port: Int, port to listen on.
    """

    async def listen() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
        server.close()

    try:
        asyncio.run(listen())
    except OSError as error:
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise ValueError(
            f"The server cannot listen on {host}, port {port}: {why}. Choose another port with --port, or another "
            "address with --host"
        ) from None


def check_origins(origins: Sequence[str]) -> list[str]:
    """Returns origins as a browser sends them, or raises a ValueError if one is not an origin."""
    if isinstance(origins, str):
        raise ValueError(f"`allow_origins` must be a list of origins. Received: {origins!r}")
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s*?#]+", origin):
            raise ValueError(
                "An origin must be a scheme, a host and perhaps a port, such as https://app.example or "
                f"http://localhost:3000, or * for all. Received: {origin!r}"
            )
    return [origin.lower() for origin in origins]


def check_root_path(path: str) -> str:
    """Returns a root path without a slash at its end, or raises a ValueError if it has another form."""
    if path and not re.fullmatch(r"(/[\w.~+-]+)+/?|/", path, re.ASCII):
        raise ValueError(f"`root_path` (--root-path) must be a path such as /models. Received: root_path={path!r}")
    return path.rstrip("/")


def page_for(name: str, limits: Limits, names: Sequence[str] = (), root_path: str = "") -> str:
    """Returns the page at `/`.

    Args:
        name: Name of the model.
        limits: Limits of requests. The page shrinks images that have too many pixels.
        names: The names of all models.
        root_path: Str, the path under which a proxy shows the server.

    Raises:
        ValueError: If the name, which comes from a folder, has characters other than letters, digits and `_.+-`.
    """
    if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
        raise ValueError(
            f"A model's name may only have letters, digits and the signs _ . + - in it. Received: {name!r}"
        )
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    others = [each for each in names if each != name]
    values = {"name": name, "others": others, "root": root_path, "max_pixels": limits.max_pixels}
    return environment.from_string(page).render(**values)


def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 8501, **options: Unpack[AppOptions]) -> None:
    """Serves until the process is told to stop, and then still answers the requests that have arrived.

    Args:
        folder: Folder of a model's versions, or of several models, as for `create_app`.
        host: Address to listen on.
        port: Int, port to listen on; 0 for any free port.
        options: As for `create_app`.

    Raises:
        ValueError: If the address cannot be used, or as for `create_app`.
    """
    check_address(host, port)  # before the models are loaded, which takes longer
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
