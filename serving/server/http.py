"""The HTTP side of the server: responses, the token, and errors in the shape of TensorFlow Serving's."""

import hmac
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from dropzoo.serving.server.bodies import ALIASES, UNTOLD, kind_of
from dropzoo.serving.server.hints import send_file
from dropzoo.serving.server.limits import Refused

# The page runs its own script and nothing else, and connects only to this server.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
#: The media types of the image files that a body may be.
IMAGES = ("image/png", "image/jpeg", "image/tiff")
#: The media types of arrays of NumPy.
ARRAYS = ("application/x-npy", "application/x-npz")

#: The last parts of the addresses at which other servers answer whether they are well.
_PROBES = ("health", "healthcheck", "live", "livez", "ready", "readyz")


class BearerToken(HTTPBearer):
    """Security dependency that refuses requests without the server's token.

    Args:
        token: Str, the token that requests must send.
    """

    def __init__(self, token: str) -> None:
        super().__init__(scheme_name="token", auto_error=False)
        self._token = token.encode()

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials:
        given = await super().__call__(request)
        # Headers are read as Latin-1, so this restores the bytes that the client sent.
        if given is None or not hmac.compare_digest(given.credentials.strip().encode("latin-1"), self._token):
            raise Refused(
                401, "The request needs the header 'Authorization: Bearer TOKEN' with the server's token"
            )
        return given


class Rooted:
    """Middleware for a server that a proxy shows under a path, whether the proxy keeps the path or takes it off.

    Args:
        app: The application that answers.
        root_path: Str, the path, without a slash at its end.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"] + "/" if scope["path"] == self._root else scope["path"]
            scope = {**scope, "root_path": self._root, "path": path}
        await self._app(scope, receive, send)


class HeadAsGet:
    """Middleware that answers HEAD as GET; the HTTP server leaves out the body.

    Args:
        app: The application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def answer(value: object, status: int = 200) -> Response:
    """Returns a JSON response.

    Args:
        value: The value to write; it must be JSON.
        status: Int, the HTTP status.
    """
    return Response(orjson.dumps(value), status, media_type="application/json")


def content_type(request: Request, body: bytes) -> str:
    """Returns the media type of the body.

    A body without a type, or with the type that curl gives, has that of its first bytes. Every other body that is
    neither an image nor an array is read as JSON, whatever its type says, as TensorFlow Serving does.

    Raises:
        Refused: If the body is a form, an image other than PNG, JPEG or TIFF, a file with the type of JSON or of
            text, or JSON with the type of an image.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    media = ALIASES.get(media, media)
    if media == "multipart/form-data" or (media.startswith("image/") and media not in IMAGES):
        message = "Send JSON, or the bytes of one file as image/png, image/jpeg or image/tiff"
        raise Refused(415, message, send_file() if media == "multipart/form-data" else "")
    found = kind_of(body)
    if media in UNTOLD and found:
        return found
    if found and not media.startswith("image/") and media not in ARRAYS:
        raise Refused(400, f"JSON Parse error: the body is a file, {found}", send_file(found))
    if media in IMAGES and body.lstrip()[:1] in (b"{", b"["):
        raise Refused(
            400, f"The body is JSON, not {media}. Send it with the header Content-Type: application/json"
        )
    return "application/x-npy" if media in ARRAYS else media


def _no_route(request: Request, error: HTTPException) -> str:
    """The error for an address or a method that does not exist, with the one that does."""
    said = f"{error.detail}: {request.method} {request.url.path}"
    if error.status_code == 405 and request.url.path.endswith((":predict", ":predict_mc")):
        return f"{said}. Use POST"
    if request.url.path.rpartition("/")[2] in _PROBES:
        return f"{said}. The address is /healthz"
    if error.status_code in (404, 405) and any(part in request.url.path.lower() for part in (":", "predict")):
        return f"{said}. The address is /v1/models/NAME:predict, or :predict_mc; GET /v1/models lists the names"
    return said


def add_errors(app: FastAPI) -> None:
    """Answers every error of the application with `{"error": "one sentence"}`."""

    def on(cause: type[Exception], answer_to: Callable[[Request, Any], Response]) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            return answer_to(request, error)

        app.add_exception_handler(cause, handle)

    def refused(request: Request, error: Refused) -> Response:
        response = answer({"error": error.text(str(request.url)[:200])}, error.status)
        if error.status in (408, 413):
            response.headers["connection"] = "close"  # because the rest of the body is not read
        if error.status == 405:
            response.headers["allow"] = "POST"
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    def missed(request: Request, error: HTTPException) -> Response:
        response = answer({"error": _no_route(request, error)}, error.status_code)
        if error.status_code == 405:
            response.headers["allow"] = "POST" if "POST" in (error.headers or {})["Allow"] else "GET, HEAD"
        return response

    on(Refused, refused)
    on(HTTPException, missed)
    on(MemoryError, lambda r, e: answer({"error": "The request is too large for this server's memory"}, 413))
    on(ClientDisconnect, lambda r, e: answer({"error": "The client closed the connection"}, 499))
    on(Exception, lambda r, e: answer({"error": "The server failed on this request; its log says why"}, 500))
