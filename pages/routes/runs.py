"""/ui/runs: start and watch runs, compare their results, publish and roll back. Buttons send requests to /runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from archive.delta.tables import Tables
from archive.views.run_kinds import RunKind
from archive.views.views import Views, not_rolled_back
from batch.jobs.control import ended_here
from batch.publishing.impact.result_sets import PREVIOUS, PUBLISHED
from batch.publishing.publish import next_rollback
from batch.runs.accounting import failed_images
from batch.runs.listing import ShownState, find, page, require_run, rows_of, state_of
from model_store.names import DEFAULT_ALIAS
from pages import html
from pages.context import Context
from pages.impact import ChangeForm, Impacts

MAX_FAILED, MAX_PUBLICATIONS = 20, 50


def router(context: Context, impacts: Impacts) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    tables, store = context.tables, context.store

    @routes.get("/runs")
    def runs(
        request: Request,
        before: str | None = None,
        state: ShownState | None = None,
        kind: RunKind | None = None,
        model: str = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        done: bool = False,
    ) -> HTMLResponse:
        found = page(tables, limit + 1, before, state, kind, ended_here(context.settings, tables))
        rows = rows_of(tables, found[:limit])
        history = Views(tables.url).history()
        t, versions = html.translator_of(request), {name: store.versions(name) for name in store.names()}
        serving = {
            name: f"{name} ({t('the version that serves')})"
            for name, each in versions.items()
            if each and (len(each) == 1 or DEFAULT_ALIAS in store.aliases(name))
        }
        published = ""
        if history:
            name = history[-1].model_name
            published = name if name in serving else f"{name}@{history[-1].model_version}"
        return html.page(
            request,
            "runs.html",
            rows=rows,
            next=rows[-1].run_id if len(found) > limit else None,
            chosen={"state": state, "kind": kind},
            wanted=model,
            chosen_model=model or published,
            done=done,
            publications=history[: -MAX_PUBLICATIONS - 1 : -1],
            has_earlier=len(not_rolled_back(history)) > 1,
            models=[*serving.items(), *(str(version) for each in versions.values() for version in each)],
        )

    @routes.get("/runs/compare")
    async def compare(request: Request, old: str = PUBLISHED, new: str = PREVIOUS, done: bool = False) -> HTMLResponse:
        change = await run_in_threadpool(_change, html.translator_of(request), tables, old, new)
        return await impacts.page(request, old, new, change, done=done)

    @routes.get("/runs/{run_id}")
    def run(request: Request, run_id: str) -> HTMLResponse:
        found = find(tables, run_id, ended_here(context.settings, tables))
        if found is None and context.from_jobs(lambda jobs: jobs.job_of(run_id)):
            shown, failed = None, []  # its job has not begun
        else:
            shown = state_of(tables, found or require_run(tables, run_id))
            has_failed = shown.counts and shown.counts["failed"]
            failed = failed_images(tables, run_id, MAX_FAILED) if has_failed else []
        return html.page(request, "run.html", run_id=run_id, run=shown, failed=failed)

    return routes


def _change(t: Callable[..., str], tables: Tables, old: str, new: str) -> ChangeForm | None:
    """Return the form of a comparison with what is published: publish, or roll back. None for another comparison."""
    history = Views(tables.url).history()
    if new == PREVIOUS:
        words = next_rollback(tables, history, t) if history else ""
        title, fields = t("Roll back"), {"after": str(history[-1].serial)} if history else {}
        return ChangeForm(title, title, "//runs/rollback", "/runs?done=true", words, fields, reason=True, back=True)
    if old != PUBLISHED:
        return None
    title, post = t("Publish {new}", new=new), f"//runs/{quote(new, safe='')}/publish"
    then = "/runs/compare?done=true" if history else "/runs?done=true"
    return ChangeForm(title, t("Publish"), post, then, reason=True)
