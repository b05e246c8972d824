"""The OpenAPI description of requests and answers. The server does not use these models to parse requests."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dropzoo.serving.server.http import ARRAYS, IMAGES

Responses = dict[int | str, dict[str, Any]]


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())  # names may begin with `model_`


class Rows(_Described):
    """A Predict request in row form."""

    signature_name: str = "serving_default"
    instances: list[Any] = Field(
        min_length=1,
        description="One entry for each image: nested lists of numbers, an object by input name, or {'b64': ...}",
    )


class Columns(_Described):
    """A Predict request in columnar form."""

    signature_name: str = "serving_default"
    inputs: Any = Field(description="A batch: nested lists of numbers, an object by input name, or [{'b64': ...}]")


class Predictions(_Described):
    """The answer to rows, image files and arrays."""

    predictions: list[Any]


class Outputs(_Described):
    """The answer to columns."""

    outputs: Any


class Error(_Described):
    """The answer to every request that fails."""

    error: str = Field(description="What is wrong, and perhaps what to send instead")


class StatusCode(_Described):
    error_code: str
    error_message: str


class VersionStatus(_Described):
    version: str
    state: str
    status: StatusCode


class ModelStatus(_Described):
    """The versions of a model."""

    model_version_status: list[VersionStatus]


class Metadata(_Described):
    """The signatures of a version."""

    model_spec: dict[str, str]
    metadata: dict[str, Any]


class Health(_Described):
    """Whether the server can answer."""

    status: str
    versions: list[int]


def _errors(descriptions: dict[int, str]) -> Responses:
    return {status: {"description": description, "model": Error} for status, description in descriptions.items()}


_REFUSED = _errors({401: "No token", 404: "No such model or version"})

STATUS: Responses = {200: {"description": "The state of each version", "model": ModelStatus}, **_REFUSED}
METADATA: Responses = {200: {"description": "The signatures", "model": Metadata}, **_REFUSED}
HEALTH: Responses = {
    200: {"description": "A version is served", "model": Health},
    503: {"description": "No version is served", "model": Health},
}
_PREDICT: Responses = {
    200: {
        "description": "`predictions` for rows, image files and arrays, `outputs` for columns",
        "model": Predictions | Outputs,
    },
    **_REFUSED,
    **_errors(
        {
            400: "Bad input",
            406: "The server writes none of the types that `Accept` lists, or the answer does not have this form",
            408: "The body arrived too slowly",
            413: "The body is too large, or has too many rows, or its images have too many pixels",
            415: "The server does not take this type of body",
            503: "Too many requests are waiting",
        }
    ),
}


def predict(path: str, verb: str) -> dict[str, Any]:
    """Returns the description of one Predict route, as arguments of `add_api_route`.

    Args:
        path: Path of the route, with `{name}` and perhaps `{version}`.
        verb: `"predict"` or `"predict_mc"`.
    """
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    file = {"schema": {"type": "string", "format": "binary"}}
    bodies = {"oneOf": [Rows.model_json_schema(), Columns.model_json_schema()]}
    return {
        "summary": "Predict" if verb == "predict" else "Predict by Monte Carlo",
        "responses": _PREDICT,
        "operation_id": "_".join([verb, *names[1:]]),
        "openapi_extra": {
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": bodies}, **dict.fromkeys((*IMAGES, *ARRAYS), file)},
            },
        },
    }
