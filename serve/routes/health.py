"""Whether the process answers, and whether its models do. Never guarded: load balancers ask."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from model_store.errors import ModelNotReady
from serve.engine import Engine
from serve.routes.bodies import PROBLEMS


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses={503: PROBLEMS[503]})
    async def readyz() -> dict[str, Any]:
        """At least one model is loaded, and every alias points at one that is."""
        require_ready(engine)
        return {"status": "ready", "loaded": [str(version) for version in engine.residents.loaded]}

    return routes


def require_ready(engine: Engine) -> None:
    """Raises ModelNotReady that says what is missing."""
    residents = engine.residents
    if residents.failures:
        raise ModelNotReady("; ".join(f"{a}: {why}" for a, why in residents.failures.items()))
    if not residents.loaded:
        raise ModelNotReady(
            f"no model is loaded: add one to {engine.store.url} with 'resight models add' and "
            "'resight models promote'"
        )
