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
from starlette.exceptions import HTTPException

from archive.views.cameras import CameraViews
from model_store.errors import IndexNotReady, ResightError
from pages.context import Context
from pages.headers import PageHeaders
from pages.html import page, static_router
from pages.impact import Impacts
from pages.routes import (
    cameras,
    deployments,
    exports,
    images,
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
from serve.api.base import base_api, describe_scopes
from serve.api.limits import MaxRequests
from serve.auth.guard import Access, Guard
from serve.inference.admission import Room

MAX_REQUESTS = 200
"""Maximum concurrent requests; a browser requests up to 60 thumbnails at once."""


def build_pages_app(context: Context, access: Access | None = None, cors_origins: Sequence[str] = ()) -> FastAPI:
    """Return the application. `access` decides who may use it (None: everyone).

    `cors_origins` are other names under which browsers may reach it while no token is needed.
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
        stream.router(context, access),
        runs.router(context, impacts),
        models.router(context, impacts),
        session.router(access),
        cameras.router(context, camera_views),
        deployments.router(context, camera_views),
        static_router(),
    ):
        api.include_router(router)
    _answer_pages_with_pages(api)
    describe_scopes(api, "/ui")
    api.add_middleware(Guard, access=access, origins=cors_origins, prefix="/ui")
    api.add_middleware(MaxRequests, room=Room(MAX_REQUESTS, "requests are being answered"))
    api.add_middleware(PageHeaders)
    return api


def is_json(request: Request) -> bool:
    """Return whether a request expects JSON: the paths of scripts."""
    path = request.url.path.removeprefix(str(request.scope.get("root_path", "")))
    return path.startswith(("/v1/", "/openapi.json", "/static/"))


def _answer_pages_with_pages(api: FastAPI) -> None:
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
