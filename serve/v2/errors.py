"""Errors of /v2 as v2 has them, {"error": …}; statuses and headers are those of `serve/problems.py`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from model_store.errors import ResightError
from serve import problems
from serve.v2.contract import ErrorBody

log = structlog.get_logger("resight.serve")


class V2Route(APIRoute):
    """Answers every error of its endpoint and of its dependencies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ResightError as error:
                return of_error(error)
            except HTTPException as error:
                return _error(error.status_code, str(error.detail), error.headers)
            except RequestValidationError as error:
                return _error(400, "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors()))
            except ClientDisconnect:
                return _error(400, "the client went away")  # nobody reads this
            except Exception as error:
                log.exception("v2_failed", path=request.url.path)
                return _error(500, f"{type(error).__name__}; see the replica's log")

        return answer


def of_error(error: ResightError) -> Response:
    problem = problems.of_error(error)
    kept = {k: v for k, v in problem.headers.items() if not k.startswith("content-")}
    return _error(problem.status_code, str(error), kept)


def refusal(error: ResightError, path: str) -> Response:
    """For middlewares: a problem, or below /v2 what clients of that protocol read."""
    return of_error(error) if path.startswith("/v2") else problems.of_error(error)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    body = ErrorBody(error=text).model_dump_json()
    return Response(body, status, dict(headers or {}), "application/json")
