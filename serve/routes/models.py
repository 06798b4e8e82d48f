"""/v1/models: what the store holds and what serves, and the controls of the rollout."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.errors import BadRequest, ModelNotFound
from model_store.names import DEFAULT_ALIAS, NAME
from serve.contract import ModelsResponse
from serve.engine import Engine
from serve.model_status import ModelDetail, model_detail, model_statuses
from serve.rollout.client import Rollouts
from serve.rollout.events import Event, events
from serve.rollout.operations import Kind, Operation, Outcome
from serve.routes.bodies import PROBLEMS, SmallBodyRoute
from serve.serving import Everywhere, serving_everywhere

WAIT_S = 100.0
"""Less than the proxy's own limit; what takes longer is answered 202 and goes on."""

Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$")]


class Step(BaseModel):
    """The body of a control; `alias` is production unless it is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alias: str = Field(default=DEFAULT_ALIAS, pattern=f"^{NAME.pattern}$")


class VersionStep(Step):
    version: str = Field(max_length=64)


class ShareStep(Step):
    version: str | None = Field(default=None, max_length=64)
    percent: float = Field(ge=0, le=100, description="of the alias's requests; 0 ends it")


def read_router(
    engine: Engine, rollouts: Rollouts | None, pools: Everywhere | None = None
) -> APIRouter:
    """Routes that change nothing."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", response_model=ModelsResponse)
    async def models() -> ModelsResponse:
        """Every READY version in the store, its aliases, and whether it is loaded: in the replica that answers,
        or in one of its pool.
        """
        serving = await serving_everywhere(engine.residents, pools)
        statuses = await engine.lookups.run(model_statuses, engine.store, serving)
        return ModelsResponse(store=engine.store.url, models=statuses)

    @routes.get("/v1/models/{name}", responses={404: PROBLEMS[404]})
    async def model(name: Name) -> ModelDetail:
        """One model: what serves for each alias, what is under way, and why something is not."""
        about = await rollouts.about(name) if rollouts else {}
        return await engine.lookups.run(model_detail, engine, name, about)

    @routes.get("/v1/models/{name}/events", responses={404: PROBLEMS[404]})
    async def model_events(
        name: Name, most: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> list[Event]:
        """What happened to its aliases, newest first: done and refused."""
        return await engine.lookups.run(events, engine.store, name, most)

    @routes.get("/v1/operations/{outcome_id}", responses={404: PROBLEMS[404]})
    async def operation(outcome_id: str) -> Outcome:
        """How an operation stands."""
        found = await rollouts.outcome(outcome_id) if rollouts else None
        if found is None:
            raise ModelNotFound(f"no operation {outcome_id}; see GET /v1/models/NAME/events")
        return found

    return routes


def control_router(
    engine: Engine, rollouts: Rollouts | None, pools: Everywhere | None = None
) -> APIRouter:
    """Routes that move aliases; none without a rollout (an engine without a cluster)."""
    routes = APIRouter(
        tags=["rollout"],
        responses={k: PROBLEMS[k] for k in (400, 404, 408, 409, 413, 429, 503)},
        route_class=SmallBodyRoute,
    )

    @routes.post("/v1/models/reload", response_model=ModelsResponse)
    async def reload() -> ModelsResponse:
        """Follow the alias files now, in every replica."""
        if rollouts is not None:
            await rollouts.sync()
        await engine.residents.refresh()
        serving = await serving_everywhere(engine.residents, pools)
        statuses = await engine.lookups.run(model_statuses, engine.store, serving)
        return ModelsResponse(store=engine.store.url, models=statuses)

    if rollouts is None:
        return routes

    async def apply(response: Response, kind: Kind, name: str, **fields: object) -> Outcome:
        try:
            operation = Operation.model_validate({"kind": kind, "name": name, **fields})
        except ValidationError as error:
            raise BadRequest(error.errors()[0]["msg"]) from error
        outcome = await rollouts.apply(operation, WAIT_S)
        if outcome.state in ("waiting", "running"):
            response.status_code = 202
            response.headers["Location"] = f"/v1/operations/{outcome.id}"
        outcome.raise_if_refused()
        return outcome

    @routes.post("/v1/models/{name}/promote")
    async def promote(response: Response, name: Name, step: VersionStep) -> Outcome:
        """Let a version answer for the alias, once every replica has it."""
        return await apply(response, "promote", name, alias=step.alias, version=step.version)

    @routes.post("/v1/models/{name}/rollback")
    async def rollback(response: Response, name: Name, step: Step) -> Outcome:
        """Let the version before the present one answer again."""
        return await apply(response, "rollback", name, alias=step.alias)

    @routes.post("/v1/models/{name}/canary")
    async def canary(response: Response, name: Name, step: ShareStep) -> Outcome:
        """Let a version answer part of the alias's requests."""
        return await apply(response, "canary", name, **step.model_dump())

    @routes.post("/v1/models/{name}/shadow")
    async def shadow(response: Response, name: Name, step: ShareStep) -> Outcome:
        """Let a version see part of the alias's images, compare, and never answer."""
        return await apply(response, "shadow", name, **step.model_dump())

    @routes.post("/v1/models/{name}/pin")
    async def pin(response: Response, name: Name, step: Step) -> Outcome:
        """Nothing moves the alias until it is unpinned."""
        return await apply(response, "pin", name, alias=step.alias)

    @routes.post("/v1/models/{name}/unpin")
    async def unpin(response: Response, name: Name, step: Step) -> Outcome:
        """The alias may be moved again."""
        return await apply(response, "unpin", name, alias=step.alias)

    @routes.post("/v1/models/{name}/release")
    async def release(response: Response, name: Name, step: VersionStep) -> Outcome:
        """Free the memory of a version that no alias means and no run holds."""
        return await apply(response, "release", name, version=step.version)

    return routes
