"""The server: TensorFlow Serving's REST API, Monte-Carlo predictions, image upload, and a page to try them on.

It needs the extra `serve`, and of a model only the SavedModel: no Keras, no pickle, no code from its folder.
"""

import asyncio
import contextlib
import gc
import hmac
import logging
import math
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from dropzoo import __version__
from dropzoo.serving.server import http as _http
from dropzoo.serving.server.batching import Batcher, Run
from dropzoo.serving.server.metrics import Metrics, Observed
from dropzoo.serving.server.pictures import picture
from dropzoo.serving.server.requests import Arrays, Limits, Refused, read_image, read_predict, to_arrays, to_json
from dropzoo.serving.server.versions import Signature, Versions

_LARGE = 2**16  # bytes of JSON that are read in a thread, so that they hold nobody else up
_log = logging.getLogger("dropzoo.serving")


class Server:
    """What the routes share: the versions, the limits, the threads and the figures."""

    def __init__(self, folder: Path, limits: Limits, token: str | None, keep: int) -> None:
        self.limits, self.token, self.metrics = limits, token, Metrics()
        self.pool = ThreadPoolExecutor(4, "predict")
        self.arriving, self.settled = 0, False
        self.versions = Versions(folder, self._batcher, keep)

    def _batcher(self, run: Run) -> Batcher:
        return Batcher(run, self.pool, self.limits, lambda: self.arriving, self.metrics.batch_size.observe)

    def check_token(self, request: Request) -> None:
        if self.token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
        if not (known and scheme.lower() == "bearer"):
            raise Refused(
                401, "The request needs the header 'Authorization: Bearer TOKEN' with the server's token"
            )

    async def body(self, request: Request) -> bytes:
        """The request's body, read no further than its limit."""
        limit = self.limits.max_body_bytes
        too_large = Refused(413, f"The body may have {limit:,} bytes at most")
        if int(request.headers.get("content-length", 0)) > limit:  # the HTTP parser lets only numbers through
            raise too_large
        self.arriving += 1
        try:
            body = bytearray()
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
            return bytes(body)
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {self.limits.body_timeout_s:g} s") from None
        finally:
            self.arriving -= 1

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *args)

    async def predict(self, request: Request, name: str, version: str | None, asked: str | None) -> Response:
        """Answers a Predict request, or an image file as the body."""
        found = self.versions.find(name, version)
        body, kind = await self.body(request), _http.content_type(request)
        if kind.startswith("image/"):
            signature = found.signature(asked or "serving_default")
            form, (inputs, pixels) = "instances", await self.in_thread(_from_file, body, signature, self.limits)
        else:

            def read() -> tuple[str, Signature, tuple[Arrays, int]]:
                parsed = read_predict(body, asked)
                signature = found.signature(parsed.signature_name)
                return parsed.form, signature, to_arrays(parsed, signature.specs, self.limits, signature.least)

            in_thread = len(body) > _LARGE
            form, signature, (inputs, pixels) = await self.in_thread(read) if in_thread else read()
        outputs = await _answer(signature, inputs, pixels)
        large = sum(value.nbytes for value in outputs.values()) > _LARGE
        text = await self.in_thread(to_json, outputs, form) if large else to_json(outputs, form)
        return Response(text, media_type="application/json")

    async def picture(self, request: Request, name: str) -> Response:
        """Answers an image file with what the page shows."""
        found = self.versions.find(name)
        body = await self.body(request)
        asked = "predict_mc" if "predict_mc" in found.signatures else "serving_default"
        signature = found.signature(asked)
        inputs, pixels = await self.in_thread(_from_file, body, signature, self.limits)
        outputs = await _answer(signature, inputs, pixels)
        shown = await self.in_thread(picture, outputs, found.class_names, found.task)
        return _http.answer({"version": str(found.number), "signature": asked, **shown})

    def status(self, name: str, version: str | None) -> Response:
        states = []
        if name == self.versions.name:
            for number, message in sorted(self.versions.failed.items()):
                if number not in self.versions.available:
                    states.append(_http.state(number, "END", "UNKNOWN", message))
            states += [_http.state(number, "AVAILABLE", "OK", "") for number in self.versions.available]
        states = [s for s in states if version in (None, s["version"])]
        if not states:
            self.versions.find(name, version)  # raises
        return _http.answer({"model_version_status": sorted(states, key=lambda s: -int(s["version"]))})

    def metadata(self, name: str, version: str | None) -> Response:
        found = self.versions.find(name, version)
        spec = {"name": name, "signature_name": "", "version": str(found.number)}
        return _http.answer({"model_spec": spec, "metadata": {"signature_def": {"signature_def": found.metadata}}})

    def health(self) -> Response:
        numbers = sorted(self.versions.available)
        return _http.answer(
            {"status": "ok" if numbers else "no version is loaded", "versions": numbers}, 200 if numbers else 503
        )

    def settle(self) -> None:
        """Takes what is loaded out of the garbage collector's sight.

        Each request makes enough lists for a collection, and some of those would look through all of TensorFlow.
        Only for a process that does nothing else; done anew for new versions, so that old ones are freed.
        """
        self.settled = True
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    async def watch(self, poll_seconds: float) -> None:
        while True:
            await asyncio.sleep(poll_seconds)
            try:
                before = self.versions.available
                await asyncio.to_thread(self.versions.refresh)
                if self.settled and self.versions.available is not before:
                    self.settle()
            except Exception:
                _log.exception("The versions of %s could not be looked at", self.versions.name)


def create_app(
    folder: Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    poll_seconds: float = 2.0,
    keep: int = 2,
) -> FastAPI:
    """The application, its versions loaded.

    Args:
        folder: The folder of a model's versions, `saved_models/NAME`; its name is the model's.
        limits: See `Limits`.
        token: A bearer token that requests for the model must bring; the page and `/healthz` need none.
        poll_seconds: How often to look for new versions.
        keep: How many of the newest versions to serve.

    Raises:
        ValueError: if there is no version that can be served.
    """
    server = Server(Path(folder), limits or Limits(), token, keep)
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

    app = FastAPI(title="dropzoo", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_middleware(Observed, metrics=server.metrics)
    _http.add_errors(app)
    page = page_for(server.versions.name, server.limits)

    # First, since routes are tried in turn.
    def add_predict(verb: str, signature: str | None) -> None:
        async def predict(request: Request) -> Response:
            server.check_token(request)
            return await server.predict(
                request, request.path_params["name"], request.path_params.get("version"), signature
            )

        for path in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
            app.add_api_route(f"{path}:{verb}", predict, methods=["POST"], **_http.predict(path, verb))

    add_predict("predict", None)
    add_predict("predict_mc", "predict_mc")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=_http.PAGE_HEADERS)

    @app.head("/healthz", include_in_schema=False)  # for load balancers that probe so
    @app.get("/healthz", responses=_http.HEALTH)
    async def healthz() -> Response:
        return server.health()

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        server.check_token(request)
        return server.metrics.page(len(server.versions.available))

    @app.get("/v1/models/{name}/versions/{version}/metadata", responses=_http.GET)
    @app.get("/v1/models/{name}/metadata", responses=_http.GET)
    async def metadata(request: Request, name: str, version: str | None = None) -> Response:
        server.check_token(request)
        return server.metadata(name, version)

    @app.get("/v1/models/{name}/versions/{version}", responses=_http.GET)
    @app.get("/v1/models/{name}", responses=_http.GET)
    async def status(request: Request, name: str, version: str | None = None) -> Response:
        server.check_token(request)
        return server.status(name, version)

    @app.post("/v1/models/{name}:picture", include_in_schema=False)
    async def picture_(request: Request, name: str) -> Response:
        server.check_token(request)
        return await server.picture(request, name)

    return app


def page_for(name: str, limits: Limits) -> str:
    """The page at `/`. A model's name is a folder's: it must not become markup."""
    if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
        raise ValueError(f"A model's name may have letters, digits and _ . + - only. Received: {name!r}")
    page = (Path(__file__).parent / "page.html").read_text()
    return page.replace("MODEL_NAME", name).replace("MAX_PIXELS", str(limits.max_pixels))


def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 8501, **options: Any) -> None:
    """Serves until it is told to stop; requests that are under way are answered first."""
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


def _from_file(body: bytes, signature: Signature, limits: Limits) -> tuple[Arrays, int]:
    if len(signature.specs) != 1:
        raise Refused(400, "This signature has several inputs, and takes no image files")
    ((name, spec),) = signature.specs.items()
    image = read_image(body, spec, limits)
    return {name: image}, max(math.prod(image.shape[1:3]), signature.least)


async def _answer(signature: Signature, inputs: Arrays, pixels: int) -> Arrays:
    try:
        return await signature.predict(inputs, pixels)
    except tf.errors.InvalidArgumentError as error:
        _log.info("Refused by the model: %s", error.message)
        raise Refused(400, "The model does not take this input: it may be cut short, or of a wrong size") from None
    except tf.errors.ResourceExhaustedError:
        raise Refused(503, "The server has not enough memory for this request") from None
