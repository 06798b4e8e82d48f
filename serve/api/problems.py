"""Map errors to HTTP in one table; the most specific class applies. A test checks that each of them is mapped.

The body is a problem (RFC 9457), and below /v2 {"error": …}, the format of its protocol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from model_store import errors
from model_store.errors import ResightError
from model_store.frozen import by_field, wrong_fields
from serve.api.schemas import Problem

STATUS: dict[type[ResightError], int] = {
    errors.ImageUnsupported: 415,
    errors.ImageTooLarge: 413,
    errors.ImageError: 400,
    errors.ModelNotFound: 404,
    errors.ModelExists: 409,
    errors.ModelNotReady: 503,
    errors.ModelError: 503,
    errors.InvalidPolicy: 503,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Conflict: 409,
    errors.DeadlinePassed: 504,
    errors.TooSlow: 408,
    errors.Overloaded: 429,
    errors.RequestError: 400,
    errors.StorageFull: 507,
    errors.StorageError: 503,
    errors.GateClosed: 409,
    errors.ResightError: 500,
}
MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
REQUEST_ID = "x-request-id"


def status_of(error: ResightError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(
    status: int,
    kind: str,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
    path: str = "",
) -> Response:
    """Return an error in the format of a path; `kind` is the error's class name, `errors` are messages by field."""
    if path.startswith("/v2"):
        return Response(to_json({"error": detail}), status, headers, "application/json")
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in kind).strip()
    body = Problem(
        type=f"urn:resight:{words.replace(' ', '-')}",
        title=words.capitalize(),
        status=status,
        detail=detail,
        errors=dict(errors) if errors else None,
    )
    return Response(body.model_dump_json(exclude_none=True), status, headers, MEDIA_TYPE)


def retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(seconds))}


def of_error(error: ResightError, path: str = "") -> Response:
    """Return the response of an error, in the format of the requested path."""
    headers = {} if error.retry_after_s is None else retry_after(error.retry_after_s)
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status_of(error), type(error).__name__, str(error), headers, error.fields, path)


def with_id(answer: Response, request: Request) -> Response:
    """Return an answer with the id of its request, if it has one (`request_id_of`)."""
    if REQUEST_ID in request.scope:
        answer.headers[REQUEST_ID] = request.scope[REQUEST_ID]
    return answer


def install(api: FastAPI) -> None:
    """Answer every error of an application in the format of the path, including those of the framework."""

    @api.exception_handler(ResightError)
    async def resight_error(request: Request, error: ResightError) -> Response:
        return with_id(of_error(error, request.scope["path"]), request)

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path, detail, headers = request.scope["path"], str(error.detail), dict(error.headers or {})
        if detail == "Not Found":  # the framework's text if no route matches
            detail = f"unknown path {path[:200]}; see /docs for all paths"
        elif error.status_code == 405 and "Allow" in headers:
            detail = f"use {headers['Allow'].replace(', ', ' or ')} here"
        return problem(error.status_code, "HttpError", detail, headers, path=path)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        words = wrong_fields(error, name=lambda place: str(place[-1]))
        if isinstance(error.body, bytes):  # the framework has not parsed it
            words = "the body is read as JSON only with the header 'Content-Type: application/json': send it"
        return problem(400, "BadRequest", words, errors=by_field(error, skip=1), path=request.scope["path"])

    @api.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # the client has closed the connection

    @api.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        detail = f"{type(error).__name__}; see the replica's log"
        return with_id(problem(500, "InternalError", detail, path=request.scope["path"]), request)
