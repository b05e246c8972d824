"""The routes of the server. Some are open to anybody, and the others need the token."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import HTMLResponse

from dropzoo.serving.server import schemas
from dropzoo.serving.server.core import Server
from dropzoo.serving.server.http import PAGE_HEADERS, BearerToken

_MODEL = "/v1/models/{name}"
_VERSION = "/v1/models/{name}/versions/{version}"


def open_routes(server: Server, page: Callable[[str | None], str]) -> APIRouter:
    """Returns the routes that anybody may use: the page, and the health check for load balancers.

    Args:
        server: The server.
        page: Function from the name of a model to the HTML of its page.
    """
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def index(model: str | None = None) -> HTMLResponse:
        return HTMLResponse(page(model), headers=PAGE_HEADERS)

    @router.get("/healthz", responses=schemas.HEALTH)
    async def healthz() -> Response:
        return server.health()

    return router


def model_routes(server: Server, token: str | None) -> APIRouter:
    """Returns the routes of the model, and the route of the metrics.

    Args:
        server: The server.
        token: Bearer token that requests must send; None if they need none.
    """
    router = APIRouter(dependencies=[] if token is None else [Security(BearerToken(token))])
    for verb, signature in (("predict", None), ("predict_mc", "predict_mc")):
        for path in (_MODEL, _VERSION):
            described = schemas.predict(path, verb)
            router.add_api_route(f"{path}:{verb}", _predict(server, signature), methods=["POST"], **described)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return server.metrics.page(len(server.models.loaded()))

    @router.get(f"{_MODEL}/info", include_in_schema=False)
    async def info(name: str) -> Response:
        return server.info(name)

    @router.get("/v1/models", include_in_schema=False)
    async def listing() -> Response:
        return server.listing()

    @router.get(f"{_VERSION}/metadata", responses=schemas.METADATA)
    @router.get(f"{_MODEL}/metadata", responses=schemas.METADATA)
    async def metadata(name: str, version: str | None = None) -> Response:
        return server.metadata(name, version)

    @router.get(_VERSION, responses=schemas.STATUS)
    @router.get(_MODEL, responses=schemas.STATUS)
    async def status(name: str, version: str | None = None) -> Response:
        return server.status(name, version)

    @router.post(f"{_MODEL}:picture", include_in_schema=False)
    async def picture(request: Request, name: str) -> Response:
        return await server.picture(request, name)

    return router


def _predict(server: Server, signature: str | None) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a Predict route, for the signature in its address; None if the body names the signature."""

    async def predict(request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        return await server.predict(request, name, version, signature)

    return predict
