"""Errors in the format of /v2, {"error": …}, with the statuses and headers of `serve/api/problems.py`."""

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
from serve.api import problems
from serve.api.v2.schemas import ErrorBody

log = structlog.get_logger("resight.serve")


class V2Route(APIRoute):
    """Route that answers every error of its endpoint and dependencies in the format of /v2."""

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
                return _error(400, problems.wrong_parameters(error))
            except ClientDisconnect:
                return _error(400, "the client disconnected")  # not delivered
            except Exception as error:
                log.exception("v2_failed", path=request.url.path)
                return _error(500, f"{type(error).__name__}; see the replica's log")

        return answer


def of_error(error: ResightError) -> Response:
    problem = problems.of_error(error)
    kept = {k: v for k, v in problem.headers.items() if not k.startswith("content-")}
    return _error(problem.status_code, str(error), kept)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    body = ErrorBody(error=text).model_dump_json()
    return Response(body, status, dict(headers or {}), "application/json")
