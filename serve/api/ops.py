"""GET /healthz, /readyz and /metrics.

The first two are for load balancers: they need no token, and ignore query parameters. Any replica returns the metrics
of all replicas.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from serve.api.base import any_query
from serve.api.bodies import PROBLEMS
from serve.inference.engine import Engine
from serve.models.pools import Pools, serving_everywhere
from serve.observability.metrics import merged
from serve.rollout.client import RolloutClient

Gather = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the exposition of each replica, by replica name."""


def router(
    engine: Engine, rollouts: RolloutClient | None, gather: Gather | None, pools: Pools | None = None
) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    @any_query
    async def healthz() -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses={503: PROBLEMS[503]})
    @any_query
    async def readyz() -> dict[str, Any]:
        """Succeed if at least one model is loaded and each pool answers. `failures` names the models and aliases that
        do not serve, and why.
        """
        serving = await serving_everywhere(engine.serving(), pools)
        serving.require_ready(engine.store.url)
        return {"status": "ready", "loaded": sorted(set(serving.loaded)), "failures": serving.failures}

    @routes.get("/metrics", response_class=Response, tags=["metrics"])
    async def metrics() -> Response:
        """Return the Prometheus text format; each sample has the label `replica`."""
        texts = (await gather() if gather else {}) or {"": engine.exposition()}
        swaps, refused = await rollouts.counts() if rollouts else ({}, 0)
        return Response(merged(texts, swaps, refused), media_type=CONTENT_TYPE_LATEST)

    return routes
