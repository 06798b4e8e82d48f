"""OpenAPI of /v2 that FastAPI cannot derive: bodies read by hand, and paths with an optional version."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

from model_store.names import NAME, REF
from model_store.names import VERSION as VERSION_NAME
from serve.api.bodies import PROBLEMS
from serve.api.v2.schemas import ErrorBody, RequestObject

F = TypeVar("F", bound=Callable[..., Any])

# schemas, not `model`: FastAPI would build a validator for each status of each route, which is most of its start
_ERROR: dict[str, Any] = {"application/json": {"schema": ErrorBody.model_json_schema()}}
_TEXTS = {status: answer["description"] for status, answer in PROBLEMS.items() if status != 415} | {
    400: "the request cannot be understood, or an image in it is damaged",
    404: "unknown model; the error lists what exists",
    413: "too many bytes",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _ERROR} for status, text in _TEXTS.items()
}
BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
TENSOR_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "JSON, followed by the outputs requested in binary", "content": BINARY}
}


def _path(name: str, text: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "pattern": f"^{pattern}$"},
    }


MODEL = _path("model", "name, name:alias or name@version; a bare name selects its alias `production`", REF)
ALONE = _path("model", "name, without an alias or a version", NAME.pattern)
VERSION = _path("version", "an exact version", VERSION_NAME.pattern)


def json_body(kind: type[RequestObject], required: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema_of(kind)}}
    return {"requestBody": {"required": required, "content": content}}


def tensor_body(kind: type[RequestObject]) -> dict[str, Any]:
    """Describe a JSON body that binary data may follow."""
    body = json_body(kind, required=True)
    body["requestBody"]["content"] |= BINARY
    return body


def each(
    routes: APIRouter, method: str, tail: str, extra: dict[str, Any] | None = None, **options: Any
) -> Callable[[F], F]:
    """Register an endpoint at a model's path, with the version in it and without; the endpoint gets neither."""

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


@functools.cache
def schema_of(kind: type[RequestObject]) -> dict[str, Any]:
    """Return the JSON schema without references, for request bodies that FastAPI does not read."""
    whole = kind.model_json_schema()
    parts: dict[str, Any] = whole.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(parts[value["$ref"].rpartition("/")[2]])
        schema = {key: inlined(item) for key, item in value.items()}
        if "properties" in schema:
            schema["properties"] = _null_allowed(schema["properties"], schema.get("required", []))
        return schema

    return inlined(whole)


def _null_allowed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Allow null for optional properties."""
    null = {"type": "null"}
    return {
        name: schema if name in required or null in schema.get("anyOf", ()) else {"anyOf": [schema, null]}
        for name, schema in properties.items()
    }
