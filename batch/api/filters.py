"""/runs/filters: the kinds of filters, and starting a run of one. A request is validated before anything starts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from archive.delta.tables import Tables
from archive.views.views import PRODUCTION
from batch.filters.contract import Filter
from batch.filters.prepare import EVERYTHING, prepare
from batch.filters.registry import FILTERS, filter_of
from batch.jobs.control import Jobs, submit_filters
from batch.runs.scope import FilterScope
from model_store.frozen import Frozen
from serve.api.bodies import SmallBodyRoute
from serve.auth.scopes import IDENTITY
from serve.settings import Settings


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


def router(settings: Settings, tables: Tables, jobs: Jobs) -> APIRouter:
    """Return the routes of filters; their runs are jobs of `jobs`."""
    routes = APIRouter(tags=["filters"], route_class=FilterRoute)

    @routes.get("/filters")
    def filters() -> list[dict[str, Any]]:
        """Return the kinds of filters in the order of their layers."""
        return [_described(filter_) for filter_ in FILTERS.values()]

    @routes.get("/filters/{kind}")
    def one_filter(kind: str) -> dict[str, Any]:
        """Return one kind with the JSON schema of its config."""
        filter_ = filter_of(kind)
        return _described(filter_) | {"schema": filter_.config.model_json_schema()}

    @routes.post("/filters/{kind}", status_code=202)
    def start(kind: str, request: FilterRequest, http: Request) -> StartedRun:
        """Start a run of a filter."""
        spec = prepare(tables, kind, request.config, request.scope, request.view)
        spec = spec.model_copy(update={"started_by": caller(http)})
        return StartedRun(
            run_id=spec.run_id,
            layer_id=spec.layer().layer_id,
            scope=spec.scope.words(),
            job=None if request.dry_run else submit_filters([spec], jobs, settings),
        )

    return routes


def caller(http: Request) -> str | None:
    """Return the name of the token of a request; None if no token is needed."""
    identity = http.scope.get(IDENTITY)
    return identity.name if identity else None


def _described(filter_: Filter) -> dict[str, Any]:
    return {
        "kind": filter_.kind,
        "what": filter_.what,
        "order": filter_.order,
        "context": filter_.context,
        "groups": filter_.groups,
    }
