"""Whether the process answers, and whether its models do. Never guarded, and any query is ignored: load
balancers ask.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from serve.engine import Engine
from serve.parameters import any_query
from serve.routes.bodies import PROBLEMS
from serve.serving import Everywhere, serving_everywhere


def router(engine: Engine, pools: Everywhere | None = None) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    @any_query
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses={503: PROBLEMS[503]})
    @any_query
    async def readyz() -> dict[str, Any]:
        """Succeed if at least one model is loaded and each pool answers. `failures` names the models and aliases that
        do not serve, and why.
        """
        found = await serving_everywhere(engine.residents, pools)
        found.require_ready(engine.store.url)
        return {
            "status": "ready",
            "loaded": sorted(set(found.loaded)),
            "failures": found.failures,
        }

    return routes
