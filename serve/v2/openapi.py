"""What OpenAPI says of /v2 where FastAPI cannot know: bodies read by hand, versions left out of paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

from model_store.names import NAME, REF
from model_store.names import VERSION as VERSION_NAME
from serve.v2.contract import ErrorBody, Sent, schema_of

F = TypeVar("F", bound=Callable[..., Any])

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "the request cannot be understood, or an image in it is damaged",
        401: "a bearer token is needed",
        403: "the token has not the scope for it",
        404: "no such model; lists what exists",
        408: "the body did not arrive in time",
        409: "it contradicts what serves now",
        413: "too many bytes",
        429: "queue full, see Retry-After",
        503: "the model cannot answer now",
        504: "the deadline passed before its turn",
    }.items()
}
BINARY: dict[str, Any] = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
}
TENSOR_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "JSON, followed by what was asked for in binary", "content": BINARY}
}


def _path(name: str, text: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "pattern": f"^{pattern}$"},
    }


MODEL = _path("model", "name, name:alias or name@version; a name is its alias `production`", REF)
ALONE = _path("model", "name, without an alias or a version", NAME.pattern)
VERSION = _path("version", "an exact version", VERSION_NAME.pattern)


def json_body(kind: type[Sent], required: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema_of(kind)}}
    return {"requestBody": {"required": required, "content": content}}


def tensor_body(kind: type[Sent]) -> dict[str, Any]:
    """The same JSON may be followed by binary data."""
    body = json_body(kind, required=True)
    body["requestBody"]["content"] |= BINARY
    return body


def each(
    routes: APIRouter, method: str, tail: str, extra: dict[str, Any] | None = None, **options: Any
) -> Callable[[F], F]:
    """Routes of a model, with the version in the path and without; the endpoint sees neither."""

    def register(endpoint: F) -> F:
        for path, parameters in (
            ("/v2/models/{model}", [MODEL]),
            ("/v2/models/{model}/versions/{version}", [ALONE, VERSION]),
        ):
            routes.add_api_route(
                path + tail,
                endpoint,
                methods=[method],
                openapi_extra={"parameters": parameters, **(extra or {})},
                **options,
            )
        return endpoint

    return register
