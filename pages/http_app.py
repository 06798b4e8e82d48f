"""The HTTP application of the page, mounted at /ui: JSON at /ui/v1/…, HTML elsewhere. Without Ray.

Routes are declared without the prefix /ui, which the host sets as `root_path`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archive.views.cameras import CameraViews
from model_store.errors import IndexNotReady, ResightError
from pages.context import Context
from pages.html import page, static_router
from pages.impact import Impacts
from pages.routes import (
    cameras,
    exports,
    images,
    individuals,
    layers,
    models,
    overview,
    pictures,
    runs,
    session,
    statements,
    stream,
    upload,
)
from serve.api.base import base_api, describe_scopes, protect
from serve.auth.guard import Access
from serve.inference.admission import Room
from serve.settings import Limits

MAX_REQUESTS = 200
"""Maximum concurrent requests; a browser requests up to 60 thumbnails at once."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""Sent with every answer: the browser loads only files of this site, and no other site can frame it."""


def build_pages_app(
    context: Context, access: Access | None = None, cors_origins: Sequence[str] = (), limits: Limits | None = None
) -> FastAPI:
    """Return the application. `access` decides who may use it (None: everyone).

    `cors_origins` are other names under which browsers may reach it while no token is needed. `limits` bound
    the answers.
    """
    access = access or Access()
    api = base_api("Resight page", "Images, detections, statements and runs, for people and scripts")
    camera_views, impacts = CameraViews(context.tables), Impacts(context)
    for router in (
        overview.router(context, camera_views),
        images.router(context),
        pictures.router(context),
        layers.router(context),
        exports.router(context),
        upload.router(context),
        statements.router(context),
        individuals.router(context),
        stream.router(context, access),
        runs.router(context, impacts),
        models.router(context, impacts),
        session.router(access),
        cameras.router(context, camera_views),
        static_router(),
    ):
        api.include_router(router)
    _show_errors_as_pages(api)
    describe_scopes(api, "/ui")
    protect(api, access, cors_origins, Room(MAX_REQUESTS, "requests are being answered"), limits, "/ui")
    api.add_middleware(PageHeaders)
    return api


def is_json(request: Request) -> bool:
    """Return whether a request expects JSON: the paths of scripts."""
    path = request.url.path.removeprefix(str(request.scope.get("root_path", "")))
    return path.startswith(("/v1/", "/openapi.json", "/static/"))


def _show_errors_as_pages(api: FastAPI) -> None:
    """Show errors of HTML pages as a page, with the text and the status of the problem."""
    for kind in (ResightError, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _as_page(api.exception_handlers[kind]))


def _as_page(handler: Any) -> Any:
    async def shown(request: Request, error: Exception) -> Response:
        problem: Response = await handler(request, error)
        if is_json(request):
            return problem
        detail, waits = json.loads(bytes(problem.body))["detail"], isinstance(error, IndexNotReady)
        answer = page(request, "error.html", problem.status_code, detail=detail, waits=waits)
        for name in ("retry-after", "allow"):
            if name in problem.headers:
                answer.headers[name] = problem.headers[name]
        return answer

    return shown


class PageHeaders:
    """Middleware that adds the headers that an answer lacks; a route may set a stricter policy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self.app(scope, receive, send_headers)
