"""/ui/runs: start and watch runs, compare their results, publish and roll back. Buttons send requests to /runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from archive.views.run_kinds import RunKind
from archive.views.views import Views
from batch.publishing.impact.report import ImpactReport, impact_report
from batch.publishing.impact.result_sets import PREVIOUS, PUBLISHED
from batch.publishing.publish import next_rollback
from batch.runs.accounting import failed_images
from batch.runs.listing import ShownState, find, page, require_run, rows_of, state_of
from pages import html
from pages.context import Context
from serve.inference.admission import Room

MAX_COMPARISONS = 2
MAX_FAILED, MAX_ROWS, MAX_SAMPLES = 20, 200, 6


def router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    tables, store = context.tables, context.store
    comparisons = Room(MAX_COMPARISONS, "comparisons are being made")

    @routes.get("/runs")
    def runs(
        request: Request,
        before: str | None = None,
        state: ShownState | None = None,
        kind: RunKind | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> HTMLResponse:
        found = page(tables, limit + 1, before, state, kind)
        rows = rows_of(tables, found[:limit])
        models = [name for name in store.names() if store.versions(name)]
        return html.page(
            request,
            "runs.html",
            rows=rows,
            next=rows[-1].run_id if len(found) > limit else None,
            chosen={"state": state, "kind": kind},
            models=models,
            versions=[str(version) for name in models for version in store.versions(name)],
        )

    @routes.get("/runs/compare")
    async def compare(request: Request, old: str = PUBLISHED, new: str = PREVIOUS) -> HTMLResponse:
        with comparisons.place():
            report = await run_in_threadpool(
                impact_report, context.settings, tables, store, old, new, MAX_SAMPLES
            )
        history = Views(tables.url).history() if new == PREVIOUS else []
        undo = next_rollback(tables, history) if history else ""
        return html.page(request, "compare.html", **_compared(report), undo=undo, old=old, new=new)

    @routes.get("/runs/{run_id}")
    def run(request: Request, run_id: str) -> HTMLResponse:
        found = find(tables, run_id)
        if found is None and context.from_jobs(lambda jobs: jobs.job_of(run_id)):
            shown, failed = None, []  # its job has not begun
        else:
            shown = state_of(tables, found or require_run(tables, run_id))
            has_failed = shown.counts and shown.counts["failed"]
            failed = failed_images(tables, run_id, MAX_FAILED) if has_failed else []
        return html.page(request, "run.html", run_id=run_id, run=shown, failed=failed)

    return routes


def _compared(report: ImpactReport) -> Mapping[str, Any]:
    impact, names = report.impact, ("labels", "relabelled", "cameras")
    rows = {name: getattr(impact, name)[:MAX_ROWS] for name in names}
    left_out = sum(len(getattr(impact, name)) - len(rows[name]) for name in names)
    return {
        "impact": impact,
        "verdict": report.verdict,
        "left_out": left_out,
        **rows,
        "samples": report.samples,
    }
