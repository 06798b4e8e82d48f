"""HTTP API of filter runs, mounted at /runs by `batch/app.py` and `resight serve`. The host starts the runs.

A request is validated completely before anything starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel

from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.views import PRODUCTION
from batch.filters.contract import Filter
from batch.filters.prepare import EVERYTHING, prepare
from batch.filters.registry import FILTERS, filter_of
from batch.filters.scope import FilterScope
from batch.jobs.control import Jobs, submit_filters
from model_store.errors import ModelNotFound
from model_store.frozen import Frozen
from serve.api.base import base_api
from serve.api.bodies import SmallBodyRoute
from serve.api.limits import MaxRequests
from serve.auth.guard import Access, Guard
from serve.inference.admission import SMALL_BODIES, Room
from serve.settings import Settings

MAX_REQUESTS = 2 * SMALL_BODIES
"""Maximum concurrent requests: twice the concurrent bodies, so that slow bodies leave room for other requests."""
_RUN = """
    select run_id, state_now as state, kind, inference_key, model_name, model_version, spec, metrics, message,
        started_at, event_at from runs where run_id = {run_id}
"""


class FilterRoute(SmallBodyRoute):
    """Route with a larger body limit: `config` can list thousands of labels of a classifier."""

    max_bytes = 1024 * 1024


class FilterRequest(Frozen):
    """Request for a filter run. `config` is the filter's, without `kind`; the default scope is all published images."""

    config: dict[str, Any] = {}
    scope: FilterScope = EVERYTHING
    view: str = PRODUCTION
    dry_run: bool = False


class StartedRun(BaseModel):
    run_id: str
    layer_id: str
    scope: str
    job: str | None


class RunState(BaseModel):
    """State of a run. `metrics` are set while it is running and once it is sealed."""

    run_id: str
    state: str
    kind: str | None
    inference_key: str | None
    model: str
    spec: dict[str, Any]
    metrics: dict[str, Any] | None
    message: str | None
    started_at: str
    last_event_at: str


def build_runs_api(
    settings: Settings,
    jobs: Jobs,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Return the application. `access` decides who may use it (None: everyone); the runs are jobs of `jobs`."""
    api = base_api("Resight runs", "Runs over the archive")
    api.router.route_class = FilterRoute
    tables = Tables(settings.tables_url)

    @api.get("/filters")
    def filters() -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction]
        return [_described(filter_) for filter_ in FILTERS.values()]

    @api.get("/filters/{kind}")
    def one_filter(kind: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        filter_ = filter_of(kind)
        return _described(filter_) | {"schema": filter_.config.model_json_schema()}

    @api.post("/filters/{kind}", status_code=202)
    def start(kind: str, request: FilterRequest) -> StartedRun:  # pyright: ignore[reportUnusedFunction]
        spec = prepare(tables, kind, request.config, request.scope, request.view)
        return StartedRun(
            run_id=spec.run_id,
            layer_id=spec.layer().layer_id,
            scope=spec.scope.words(),
            job=None if request.dry_run else submit_filters([spec], jobs, settings),
        )

    @api.get("/{run_id}")
    def run(run_id: str) -> RunState:  # pyright: ignore[reportUnusedFunction]
        return _state(tables, run_id)

    api.add_middleware(Guard, access=access or Access(), origins=cors_origins)
    api.add_middleware(MaxRequests, room=Room(MAX_REQUESTS, "requests are being answered"))
    if cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return api


def _described(filter_: Filter) -> dict[str, Any]:
    return {
        "kind": filter_.kind,
        "what": filter_.what,
        "order": filter_.order,
        "context": filter_.context,
        "groups": filter_.groups,
    }


def _state(tables: Tables, run_id: str) -> RunState:
    if tables.existing("runs") is None:
        raise ModelNotFound(f"unknown run '{run_id}': see resight runs list")
    rows = query(tables, _RUN.format(run_id=literal(run_id))).to_pylist()
    if not rows:
        raise ModelNotFound(f"unknown run '{run_id}', or it has not started: see resight runs list")
    row = rows[0]
    return RunState(
        run_id=row["run_id"],
        state=row["state"],
        kind=row["kind"] or "detect",
        inference_key=row["inference_key"],
        model=f"{row['model_name']}@{row['model_version']}",
        spec=json.loads(row["spec"] or "{}"),
        metrics=json.loads(row["metrics"]) if row["metrics"] else None,
        message=row["message"],
        started_at=f"{row['started_at']:%Y-%m-%dT%H:%M:%SZ}",
        last_event_at=f"{row['event_at']:%Y-%m-%dT%H:%M:%SZ}",
    )
