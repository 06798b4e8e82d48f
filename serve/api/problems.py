"""Map errors to HTTP in one table (RFC 9457 problem JSON). The most specific class applies.

The error classes do not depend on HTTP; a test checks that each of them is mapped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
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


def status_of(error: ResightError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(
    status: int, kind: str, detail: str, headers: dict[str, str] | None = None, errors: Mapping[str, str] | None = None
) -> Response:
    """Return a problem response; `kind` is the error's class name, `errors` are messages by field."""
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


def of_error(error: ResightError) -> Response:
    """Return the problem response of an error."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers |= retry_after(error.retry_after_s)
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status_of(error), type(error).__name__, str(error), headers, error.fields)


def wrong_parameters(error: RequestValidationError) -> str:
    return wrong_fields(error, name=lambda place: str(place[-1]))


def install(api: FastAPI) -> None:
    """Answer every error of an application with a problem, including those of the framework."""

    async def resight_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ResightError)
        return of_error(error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = str(error.detail)
        if detail == "Not Found":  # the framework's text if no route matches
            detail = f"unknown path {request.url.path[:200]}; see /docs for all paths"
        return problem(error.status_code, "HttpError", detail, dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(400, "BadRequest", wrong_parameters(error), None, by_field(error, skip=1))

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # the client has closed the connection

    async def unknown(_: Request, error: Exception) -> Response:
        return problem(500, "InternalError", f"{type(error).__name__}; see the replica's log")

    api.add_exception_handler(ResightError, resight_error)
    api.add_exception_handler(HTTPException, http_error)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(ClientDisconnect, gone)
    api.add_exception_handler(Exception, unknown)
