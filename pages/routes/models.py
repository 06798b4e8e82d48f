"""/ui/models: versions, aliases, what served when, and the operations of the rollout, which are sent to /v1/models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.views.publications import last_sealed
from batch.runs.listing import views_by_key
from model_store.errors import ModelError
from model_store.names import parse_ref
from model_store.store import ModelStore
from pages.context import Context
from pages.html import page
from serve.rollout.events import Event, events
from serve.rollout.state import AliasState, read_state

MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, with the aliases and views that show it, and the newest sealed run of its inference key."""

    version: str
    kind: str
    inference_key: str
    weights_sha256: str
    aliases: list[str]
    views: list[str]
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Live:
    """A time in which a version served an alias; `until` is None while it does."""

    version: str
    since: datetime
    until: datetime | None
    by: str


def router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    store = context.store

    @routes.get("/models")
    def models(request: Request) -> HTMLResponse:
        rows: list[tuple[str, int, dict[str, AliasState], str]] = []
        for name in store.names():
            aliases, problem = _aliases(store, name)
            rows.append((name, len(store.versions(name)), aliases, problem))
        return page(request, "models.html", rows=rows)

    @routes.get("/models/{name}")
    def model(request: Request, name: str) -> HTMLResponse:
        store.require_model(parse_ref(name).name)
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
        )

    return routes


def live_times(past: Sequence[Event], alias: str) -> list[Live]:
    """Return which version served an alias when, newest first, from its events, newest first."""
    times: list[Live] = []
    until: datetime | None = None
    for event in past:
        if event.outcome.operation.alias != alias or event.after is None:
            continue
        if event.before is None or event.before.active != event.after.active:
            times.append(Live(event.after.active, event.at, until, event.outcome.operation.kind))
            until = event.at
    return times


def _aliases(store: ModelStore, name: str) -> tuple[dict[str, AliasState], str]:
    """Return the aliases of a model, and a text on damaged files of them."""
    try:
        return read_state(store, name).aliases, ""
    except ModelError as error:
        return {}, str(error)


def _versions(context: Context, name: str, aliases: dict[str, AliasState]) -> list[VersionRow]:
    """Return the versions of a model, newest first; damaged ones are left out."""
    views, rows = views_by_key(context.tables), list[VersionRow]()
    for version in reversed(context.store.versions(name)):
        try:
            described = context.store.describe(version)
        except ModelError:
            continue
        info = described.info
        rows.append(
            VersionRow(
                version.version,
                described.config.kind,
                info.inference_key,
                info.weights_sha256,
                [alias for alias, state in aliases.items() if state.active == version.version],
                views.get(info.inference_key, []),
                last_sealed(context.tables, info.inference_key),
            )
        )
    return rows
