"""HTTP API of runs and publications, mounted at /runs by `batch/app.py` and `resight serve`. The host starts the runs.

/runs  /runs/{run_id}  /runs/{run_id}/log|cancel|publish  /runs/rollback  /runs/diff  /runs/filters
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from archive.delta.tables import Tables
from batch.api import filters, runs
from batch.jobs.control import Jobs
from serve.api.base import base_api, protect
from serve.auth.guard import Access
from serve.inference.admission import SMALL_BODIES, Room
from serve.settings import Limits, Settings

MAX_REQUESTS = 2 * SMALL_BODIES
"""Maximum concurrent requests: twice the concurrent bodies, so that slow bodies leave room for other requests."""


def build_runs_api(
    settings: Settings,
    jobs: Jobs,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    others: Sequence[Jobs] = (),
    limits: Limits | None = None,
) -> FastAPI:
    """Return the application. `access` decides who may use it (None: everyone); the runs are jobs of `jobs`.

    `others` are the jobs of other hosts: their runs are shown and cancelled too. `limits` bound the answers.
    """
    api = base_api("Resight runs", "Runs over the archive")
    tables = Tables(settings.tables_url)
    api.include_router(filters.router(settings, tables, jobs))
    api.include_router(runs.router(settings, tables, (jobs, *others)))
    protect(api, access, cors_origins, Room(MAX_REQUESTS, "requests are being answered"), limits)
    if cors_origins:
        api.add_middleware(
            CORSMiddleware, allow_origins=cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    api.add_middleware(WholePaths)
    return api


class WholePaths:
    """Middleware that lets the path of the mount itself, /runs, be that of the route `/`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == scope.get("root_path"):
            scope = {**scope, "path": f"{scope['path']}/"}
        await self.app(scope, receive, send)
