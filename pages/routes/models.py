"""/ui/models: versions, aliases, what served when, and the operations of the rollout, which are sent to /v1/models."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from archive.views.publications import last_sealed
from batch.runs.listing import views_by_key
from model_store.errors import BadRequest, ModelError, ModelNotFound, StorageError
from model_store.names import DEFAULT_ALIAS, parse_ref
from model_store.store import ModelStore
from pages.context import Context
from pages.html import page, translator_of
from pages.impact import ChangeForm, Impacts
from serve.rollout.operations import RolloutEvent, events
from serve.rollout.state import AliasState, read_state
from serve.rollout.steps import rollback_target

MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class LivePeriod:
    """A time in which a version served an alias; `until` is None while it does."""

    version: str
    since: datetime
    until: datetime | None
    by: str


def router(context: Context, impacts: Impacts) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    store = context.store

    @routes.get("/models")
    def models(request: Request) -> HTMLResponse:
        rows = [(name, len(store.versions(name)), *_aliases(store, name)) for name in store.names()]
        return page(request, "models.html", rows=rows)

    @routes.get("/models/{name}")
    def model(request: Request, name: str, changed: str = "") -> HTMLResponse:
        store.require_model(name := parse_ref(name).name)
        aliases, problem = _aliases(store, name)
        past = events(store, name, MAX_EVENTS)
        return page(
            request,
            "model.html",
            name=name,
            versions=_versions(context, name, aliases),
            aliases=aliases,
            problem=problem,
            events=past,
            live={alias: live_times(past, alias) for alias in aliases},
            changed=changed,
        )

    @routes.get("/models/{name}/change")
    async def change(
        request: Request,
        name: str,
        do: Annotated[Literal["promote", "canary", "rollback"], Query()],
        alias: str = DEFAULT_ALIAS,
        version: str = "",
        percent: Annotated[float, Query(ge=0, le=100)] = 0,
    ) -> HTMLResponse:
        """Show what a promotion, a canary or a roll-back of an alias would change, with its form."""
        t, state = translator_of(request), await run_in_threadpool(_state_of, store, name, alias)
        back = do == "rollback"
        version = await run_in_threadpool(rollback_target, store, name, state) or "" if back else version
        if back and not version:
            raise BadRequest(f"alias {alias} of {name} has no earlier version to go back to")
        fields = {"alias": alias, "version": version}
        title = t("Let version {new} answer in place of {old}", new=version, old=state.active)
        button = t("Go back") if back else t("promote")
        if do == "canary":
            words = {"new": version, "n": f"{percent:g}", "alias": alias}
            title, button = t("Let {new} answer {n} % of {alias}", **words), t("canary")
            fields["percent"] = f"{percent:g}"
        post = f"//v1/models/{name}/{do}"
        then = f"/models/{name}?{urlencode({'changed': alias})}"
        form = ChangeForm(title, button, post, then, fields=fields, back=back)
        sides = f"{name}@{state.active}", f"{name}@{version}"
        return await impacts.page(request, *sides, form, of_model=name)

    return routes


def _state_of(store: ModelStore, name: str, alias: str) -> AliasState:
    """Return the state of an alias. Raises ModelNotFound."""
    store.require_model(parse_ref(name).name)
    state = read_state(store, name).aliases.get(alias)
    if state is None:
        raise ModelNotFound(f"unknown alias '{alias[:100]}' of {name}")
    return state


def live_times(past: Sequence[RolloutEvent], alias: str) -> list[LivePeriod]:
    """Return which version served an alias when, newest first, from its events, newest first."""
    times: list[LivePeriod] = []
    until: datetime | None = None
    for event in past:
        if event.outcome.operation.alias != alias or event.after is None:
            continue
        if event.before is None or event.before.active != event.after.active:
            times.append(LivePeriod(event.after.active, event.at, until, event.outcome.operation.kind))
            until = event.at
    return times


def _aliases(store: ModelStore, name: str) -> tuple[dict[str, AliasState], str]:
    """Return the aliases of a model, and a text on files of them that are damaged or cannot be read."""
    try:
        return read_state(store, name).aliases, ""
    except (ModelError, StorageError) as error:
        return {}, str(error)


def _versions(context: Context, name: str, aliases: dict[str, AliasState]) -> list[dict[str, Any]]:
    """Return the versions of a model, newest first, with the newest sealed run of each; damaged ones are left out."""
    views, rows = views_by_key(context.tables), list[dict[str, Any]]()
    for version in reversed(context.store.versions(name)):
        with contextlib.suppress(ModelError):
            described = context.store.describe(version)
            key = described.info.inference_key
            rows.append(
                {
                    "version": version.version,
                    "kind": described.config.kind,
                    "inference_key": key,
                    "aliases": [alias for alias, state in aliases.items() if state.active == version.version],
                    "views": views.get(key, []),
                    "run_id": last_sealed(context.tables, key),
                }
            )
    return rows
