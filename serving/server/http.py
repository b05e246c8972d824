"""The surface: responses, errors in TensorFlow Serving's shape, and what the OpenAPI description says of them."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dropzoo.serving.server.requests import Refused

# The page runs its own script and nothing else, and talks to nobody but this server.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}


def _errors(**statuses: str) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _ERROR}}
    return {int(code[1:]): {"description": text, "content": content} for code, text in statuses.items()}


GET: dict[int | str, dict[str, Any]] = {
    200: {"description": "As TensorFlow Serving answers", "content": _OBJECT},
    **_errors(s401="No token", s404="No such model or version"),
}
HEALTH: dict[int | str, dict[str, Any]] = {
    200: {"description": "A version is served", "content": _OBJECT},
    503: {"description": "None is", "content": _OBJECT},
}
_POST = {
    200: {"description": "`predictions` for rows and image files, `outputs` for columns", "content": _OBJECT},
    **_errors(
        s400="Bad input",
        s401="No token",
        s404="No such model or version",
        s408="The body came too slowly",
        s413="The body, or its images together, are too large",
        s415="Another kind of body",
        s503="Too many are waiting",
    ),
}
_TENSOR = {"description": "Nested lists of numbers, objects by input name, or {'b64': ...} for files"}
_BODY = {
    "type": "object",
    "properties": {"signature_name": {"type": "string"}, "instances": {"type": "array"}, "inputs": _TENSOR},
}
_FILE = {"schema": {"type": "string", "format": "binary"}}


def predict(path: str, verb: str) -> dict[str, Any]:
    """The description of one Predict route."""
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    return {
        "summary": "Predict" if verb == "predict" else "Predict by Monte Carlo",
        "responses": _POST,
        "operation_id": "_".join([verb, *names[1:]]),
        "openapi_extra": {
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _BODY}, "image/png": _FILE, "image/jpeg": _FILE},
            },
        },
    }


def answer(value: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def state(number: int, name: str, code: str, message: str) -> dict[str, Any]:
    """A version's entry in the status of a model."""
    return {"version": str(number), "state": name, "status": {"error_code": code, "error_message": message}}


def content_type(request: Request) -> str:
    """The kind of body; what is no image is read as JSON, whatever it is called, as in TensorFlow Serving."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data" or (kind.startswith("image/") and kind not in ("image/png", "image/jpeg")):
        raise Refused(415, "Send JSON, or the bytes of one file as image/png or image/jpeg")
    return kind


def add_errors(app: FastAPI) -> None:
    """Makes every error of the application `{"error": "one sentence"}`."""

    def on(kind: type[Exception], answer_to: Callable[[Request, Any], Response]) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            return answer_to(request, error)

        app.add_exception_handler(kind, handle)

    def refused(request: Request, error: Refused) -> Response:
        response = answer({"error": error.message}, error.status)
        if error.status in (408, 413):
            response.headers["connection"] = "close"  # what is left of the body is not read
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    on(Refused, refused)
    on(HTTPException, lambda r, e: answer({"error": f"{e.detail}: {r.method} {r.url.path}"}, e.status_code))
    on(MemoryError, lambda r, e: answer({"error": "The request is too large for this server's memory"}, 413))
    on(ClientDisconnect, lambda r, e: answer({"error": "The client hung up"}, 499))
    on(Exception, lambda r, e: answer({"error": "The server failed at this request; its log tells why"}, 500))
