"""GET /metrics: every replica's metrics in one answer, whichever replica is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from serve.engine import Engine
from serve.metrics import merged
from serve.rollout.client import Rollouts

Gather = Callable[[], Awaitable[Mapping[str, str]]]
"""The exposition of each replica, by its name."""


def router(engine: Engine, rollouts: Rollouts | None, gather: Gather | None) -> APIRouter:
    routes = APIRouter(tags=["metrics"])

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text format; samples carry their `replica`."""
        texts = (await gather() if gather else {}) or {"": engine.exposition()}
        swaps = await rollouts.counts() if rollouts else {}
        refused = await rollouts.refused() if rollouts else 0
        return Response(merged(texts, swaps, refused), media_type=CONTENT_TYPE_LATEST)

    return routes
