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


class BearerToken(HTTPBearer):
    """Security dependency that refuses requests without the server's token.

    Args:
        token: Str, the token that requests must bear.
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


def answer(value: object, status: int = 200) -> Response:
    """Returns a JSON response.

    Args:
        value: The value to write; it must be JSON.
        status: Int, the HTTP status.
    """
    return Response(orjson.dumps(value), status, media_type="application/json")


def content_type(request: Request) -> str:
    """Returns the media type of the body.

    Every body that is not an image is read as JSON, whatever its type says, as TensorFlow Serving does.

    Raises:
        Refused: If the body is a form, or an image other than PNG, JPEG or TIFF.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data" or (media.startswith("image/") and media not in IMAGES):
        raise Refused(415, "Send JSON, or the bytes of one file as image/png, image/jpeg or image/tiff")
    return media


def add_errors(app: FastAPI) -> None:
    """Answers every error of the application with `{"error": "one sentence"}`."""

    def on(cause: type[Exception], answer_to: Callable[[Request, Any], Response]) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            return answer_to(request, error)

        app.add_exception_handler(cause, handle)

    def refused(request: Request, error: Refused) -> Response:
        response = answer({"error": error.message}, error.status)
        if error.status in (408, 413):
            response.headers["connection"] = "close"  # because the rest of the body is not read
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    on(Refused, refused)
    on(HTTPException, lambda r, e: answer({"error": f"{e.detail}: {r.method} {r.url.path}"}, e.status_code))
    on(MemoryError, lambda r, e: answer({"error": "The request is too large for this server's memory"}, 413))
    on(ClientDisconnect, lambda r, e: answer({"error": "The client hung up"}, 499))
    on(Exception, lambda r, e: answer({"error": "The server failed on this request; its log says why"}, 500))
