"""/v1/models: what the store holds and what serves; the rollout's controls."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from serve.contract import ModelsResponse
from serve.engine import Engine
from serve.model_status import model_statuses


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models", response_model=ModelsResponse)
    async def models() -> ModelsResponse:
        """Every READY version in the store, its aliases, and what this replica has loaded."""
        statuses = await asyncio.to_thread(model_statuses, engine.store, engine.residents)
        return ModelsResponse(store=engine.store.url, models=statuses)

    @routes.post("/v1/models/reload", response_model=ModelsResponse)
    async def reload() -> ModelsResponse:
        """Read the alias files now (in the replica that answers; the others poll)."""
        await engine.residents.refresh()
        return await models()

    return routes
