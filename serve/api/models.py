"""/v1/models: the versions in the store, what serves, and the operations of the rollout."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import ConfigDict, Field, ValidationError

from model_store.errors import BadRequest, ModelError, ModelNotFound, StorageError
from model_store.frozen import Frozen, wrong_fields
from model_store.names import DEFAULT_ALIAS, NAME, VersionId, parse_ref
from model_store.store import ModelStore
from serve.api.bodies import PROBLEMS, SmallBodyRoute
from serve.api.schemas import ModelsResponse, Wire, WireModelStatus, WireVersion
from serve.inference.engine import Engine
from serve.models.pools import Pools, Serving, serving_everywhere
from serve.rollout.client import RolloutClient
from serve.rollout.operations import Kind, Operation, Outcome, RolloutEvent, events
from serve.rollout.state import AliasState, read_state


class ModelDetail(Wire):
    """Answer of GET /v1/models/{name}."""

    name: str
    versions: list[WireVersion]
    aliases: dict[str, AliasState] = Field(description="what serves each alias, as last rolled out")
    wanted: dict[str, str] = Field(description="versions that aliases.json sets")
    under_way: list[Outcome]
    held_by: dict[str, list[str]] = Field(description="runs that hold each version")
    failures: dict[str, str] = Field(description="reason why an alias or version does not serve")


def model_detail(engine: Engine, name: str, about: dict[str, Any]) -> ModelDetail:
    """Return the status of one model; `about` is the rollout's report. Raises ModelNotFound, which lists the models."""
    store, models = engine.store, engine.models
    store.require_model(parse_ref(name).name)
    status = _status(store, name, engine.serving())
    failures = dict(status.failures)
    failures |= {f"{name}:{alias}": why for alias, why in about.get("failures", {}).items()}
    held = {v.version: models.holders(v) for v in models.names if v.name == name}
    return ModelDetail(
        name=name,
        versions=status.versions,
        aliases=read_state(store, name).aliases,
        wanted=store.aliases(name),
        under_way=about.get("under_way", []),
        held_by={version: holders for version, holders in held.items() if holders},
        failures=failures,
    )


def model_statuses(store: ModelStore, serving: Serving) -> list[WireModelStatus]:
    """Return one entry per model. Damaged versions, and a model that cannot be read, are listed among the failures."""
    statuses: list[WireModelStatus] = []
    for name in store.names():
        try:
            statuses += [_status(store, name, serving)] if store.versions(name) else []
        except StorageError as error:
            statuses.append(WireModelStatus(name=name, versions=[], failures={name: str(error)}))
    return statuses


def rollout_words(store: ModelStore, names: Iterable[str]) -> dict[str, str]:
    """Describe the roles of versions (canary, shadow, pinned) of models that can be read."""
    roles: dict[str, list[str]] = defaultdict(list)
    for name in names:
        with contextlib.suppress(ModelError, StorageError):
            for alias, state in read_state(store, name).aliases.items():
                if state.pinned:
                    roles[f"{name}@{state.active}"].append(f"pinned as {alias}")
                for kind, share in (("canary", state.canary), ("shadow", state.shadow)):
                    if share:
                        words = f"{kind} of {alias} ({share.percent:g} %)"
                        roles[f"{name}@{share.version}"].append(words)
    return {version: ", ".join(words) for version, words in sorted(roles.items())}


def _status(store: ModelStore, name: str, serving: Serving) -> WireModelStatus:
    failures = {k: why for k, why in serving.failures.items() if k.partition(":")[0] == name}
    aliases: dict[str, str] = {}
    try:
        aliases = store.aliases(name)
    except ModelError as error:
        failures[name] = str(error)
    versions: list[WireVersion] = []
    for version in store.versions(name):
        try:
            versions.append(_version(store, version, aliases, serving))
        except ModelError as error:
            failures[str(version)] = str(error)
    return WireModelStatus(name=name, versions=versions, failures=failures)


def _version(store: ModelStore, version: VersionId, aliases: dict[str, str], serving: Serving) -> WireVersion:
    described = store.describe(version)
    return WireVersion(
        version=version.version,
        kind=described.config.kind,
        aliases=sorted(alias for alias, target in aliases.items() if target == version.version),
        resident=version in serving.versions,
        weights_sha256=described.info.weights_sha256,
        inference_key=described.info.inference_key,
    )


WAIT_S = 100.0
"""Less than the proxy's timeout; a longer operation is answered 202 and continues."""

Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$")]


class Step(Frozen):
    """Body of an operation; `alias` is production by default."""

    model_config = ConfigDict(strict=True)

    alias: str = Field(default=DEFAULT_ALIAS, pattern=f"^{NAME.pattern}$")


class RollbackStep(Step):
    version: str | None = Field(
        default=None, max_length=64, description="the expected version; if it is another one, nothing is changed"
    )


class VersionStep(Step):
    version: str = Field(max_length=64)


class ShareStep(Step):
    version: str | None = Field(default=None, max_length=64)
    percent: float = Field(ge=0, le=100, description="share of the alias's requests; 0 ends it")


def router(engine: Engine, rollouts: RolloutClient | None, pools: Pools | None = None) -> APIRouter:
    """Return the routes; of those that move aliases only `reload` without a rollout (an engine without a cluster)."""
    routes = APIRouter()
    reads = APIRouter(tags=["models"])
    controls = APIRouter(
        tags=["rollout"],
        responses={k: PROBLEMS[k] for k in (400, 404, 408, 409, 413, 429, 503)},
        route_class=SmallBodyRoute,
    )

    @reads.get("/v1/models", response_model=ModelsResponse)
    async def models() -> ModelsResponse:
        """Return every READY version in the store, its aliases, and whether it is loaded in the replica that answers
        or in one of its pool.
        """
        serving = await serving_everywhere(engine.serving(), pools)
        statuses = await engine.lookups.run(model_statuses, engine.store, serving)
        return ModelsResponse(store=engine.store.url, models=statuses)

    @reads.get("/v1/models/{name}", responses={404: PROBLEMS[404]})
    async def model(name: Name) -> ModelDetail:
        """Return one model: what serves for each alias, running operations, and failures."""
        about = await rollouts.about(name) if rollouts else {}
        return await engine.lookups.run(model_detail, engine, name, about)

    @reads.get("/v1/models/{name}/events", responses={404: PROBLEMS[404]})
    async def model_events(name: Name, most: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[RolloutEvent]:
        """Return the completed and refused operations on its aliases, newest first."""
        return await engine.lookups.run(events, engine.store, name, most)

    @reads.get("/v1/operations/{outcome_id}", responses={404: PROBLEMS[404]})
    async def operation(outcome_id: str) -> Outcome:
        """Return the state of an operation."""
        outcome = await rollouts.outcome(outcome_id) if rollouts else None
        if outcome is None:
            raise ModelNotFound(f"unknown operation {outcome_id}; see GET /v1/models/NAME/events")
        return outcome

    @controls.post("/v1/models/reload", response_model=ModelsResponse)
    async def reload() -> ModelsResponse:
        """Read the alias files and apply them now, in every replica."""
        if rollouts is not None:
            await rollouts.sync()
        await engine.aliases.refresh()
        return await models()

    if rollouts is not None:
        _add_operations(controls, rollouts)
    routes.include_router(controls)  # first, so that `reload` is not taken for a name
    routes.include_router(reads)
    return routes


def _add_operations(controls: APIRouter, rollouts: RolloutClient) -> None:
    async def apply(response: Response, kind: Kind, name: str, step: Step) -> Outcome:
        try:
            operation = Operation.model_validate({"kind": kind, "name": name, **step.model_dump()})
        except ValidationError as error:
            raise BadRequest(wrong_fields(error)) from error
        outcome = await rollouts.apply(operation, WAIT_S)
        if outcome.state in ("waiting", "running"):
            response.status_code = 202
            response.headers["Location"] = f"/v1/operations/{outcome.id}"
        outcome.raise_if_refused()
        return outcome

    @controls.post("/v1/models/{name}/promote")
    async def promote(response: Response, name: Name, step: VersionStep) -> Outcome:
        """Let a version answer for the alias, once every replica has loaded it."""
        return await apply(response, "promote", name, step)

    @controls.post("/v1/models/{name}/rollback")
    async def rollback(response: Response, name: Name, step: RollbackStep) -> Outcome:
        """Let the previous version answer again."""
        return await apply(response, "rollback", name, step)

    @controls.post("/v1/models/{name}/canary")
    async def canary(response: Response, name: Name, step: ShareStep) -> Outcome:
        """Let a version answer part of the alias's requests."""
        return await apply(response, "canary", name, step)

    @controls.post("/v1/models/{name}/shadow")
    async def shadow(response: Response, name: Name, step: ShareStep) -> Outcome:
        """Run a version on part of the alias's images and compare; it never answers."""
        return await apply(response, "shadow", name, step)

    @controls.post("/v1/models/{name}/pin")
    async def pin(response: Response, name: Name, step: Step) -> Outcome:
        """Prevent all changes of the alias until it is unpinned."""
        return await apply(response, "pin", name, step)

    @controls.post("/v1/models/{name}/unpin")
    async def unpin(response: Response, name: Name, step: Step) -> Outcome:
        """Allow changes of the alias again."""
        return await apply(response, "unpin", name, step)

    @controls.post("/v1/models/{name}/release")
    async def release(response: Response, name: Name, step: VersionStep) -> Outcome:
        """Free the memory of a version that no alias refers to and no run holds."""
        return await apply(response, "release", name, step.model_copy(update={"alias": DEFAULT_ALIAS}))
