"""Filter runs over HTTP; knows no Ray but through `batch/filters/submit.py`. Mounted at /runs by `batch/app.py`.

Everything is validated before anything starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, ConfigDict

from archive.query import query
from archive.tables import Tables
from archive.views import PRODUCTION
from batch.filters.contract import Filter
from batch.filters.prepare import EVERYTHING, prepare
from batch.filters.registry import FILTERS, filter_of
from batch.filters.scope import FilterScope
from batch.filters.spec import FilterSpec
from batch.filters.submit import submit_filters
from model_store.errors import ModelNotFound
from serve.access import Access, Guard
from serve.base_api import base_api
from serve.bounds import SMALL_BODIES, MaxRequests
from serve.routes.bodies import SmallBodyRoute
from serve.settings import Settings

Submit = Callable[[Sequence[FilterSpec], Settings], str]
MOST_REQUESTS = 2 * SMALL_BODIES
"""Requests that are answered at a time, so that bodies that arrive slowly leave room for others."""
_RUN = """
    select run_id, state_now as state, kind, inference_key, model_name, model_version, spec, metrics, message,
        started_at, event_at from runs where run_id = {run_id}
"""


class FilterRoute(SmallBodyRoute):
    """`config` may list the labels of a classifier: thousands of them."""

    most_bytes = 1024 * 1024


class FilterRequest(BaseModel):
    """`config` is the filter's, without its kind; without `scope` it is all that is published."""

    model_config = ConfigDict(extra="forbid")

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
    """`metrics` are those of a run that is sealed, or at work."""

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
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    submit: Submit = submit_filters,
) -> FastAPI:
    """Routes for those whom `access` lets in; None lets in everybody. `submit` starts what was asked."""
    api = base_api("Resight runs", "Runs over the archive")
    api.router.route_class = FilterRoute
    tables = Tables(settings.tables_url)

    @api.get("/filters")
    def filters() -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction]
        return [_described(one) for one in FILTERS.values()]

    @api.get("/filters/{kind}")
    def one_filter(kind: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        one = filter_of(kind)
        return _described(one) | {"schema": one.config.model_json_schema()}

    @api.post("/filters/{kind}", status_code=202)
    def start(kind: str, asked: FilterRequest) -> StartedRun:  # pyright: ignore[reportUnusedFunction]
        spec = prepare(tables, kind, asked.config, asked.scope, asked.view)
        return StartedRun(
            run_id=spec.run_id,
            layer_id=spec.layer().layer_id,
            scope=spec.scope.words(),
            job=None if asked.dry_run else submit([spec], settings),
        )

    @api.get("/{run_id}")
    def run(run_id: str) -> RunState:  # pyright: ignore[reportUnusedFunction]
        return _state(tables, run_id)

    api.add_middleware(Guard, access=access or Access(), origins=cors_origins)
    api.add_middleware(MaxRequests, most=MOST_REQUESTS)
    if cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return api


def _described(one: Filter) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "what": one.what,
        "order": one.order,
        "context": one.context,
        "groups": one.groups,
    }


def _state(tables: Tables, run_id: str) -> RunState:
    if tables.existing("runs") is None:
        raise ModelNotFound(f"no run '{run_id}'")
    quoted = "'" + run_id.replace("'", "''") + "'"
    rows = query(tables, _RUN.format(run_id=quoted)).to_pylist()
    if not rows:
        raise ModelNotFound(f"no run '{run_id}' has begun; see: resight runs list")
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
