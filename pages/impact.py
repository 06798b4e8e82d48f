"""Show what a change would do before it is made, with the form that makes it.

old, new, Change --Impacts.page--> compare.html: counts by label and camera, and changed images, old and new
Scripts get the same from GET /runs/diff, and send the change itself to /runs or /v1/models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from archive.views.publications import last_sealed
from batch.publishing.impact.measure import Impact
from batch.publishing.impact.report import impact_report
from batch.publishing.impact.result_sets import PUBLISHED
from batch.publishing.impact.verdict import model_of
from batch.schedule.archive_state import schedule_words
from pages import html
from pages.context import Context
from serve.inference.admission import Threads

MAX_COMPARISONS = 2
MAX_ROWS, MAX_SAMPLES = 200, 6


@dataclass(frozen=True, slots=True)
class ChangeForm:
    """A form: its path `post`, the `fields` to send, and the page to go to after it.

    `reason`: it has a field for one, and also for an override if gates fail. `back` undoes an earlier change.
    """

    title: str
    button: str
    post: str
    then: str
    words: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    reason: bool = False
    back: bool = False


class Impacts:
    """Use one per process: it limits how many comparisons are made concurrently."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._threads = Threads(MAX_COMPARISONS, "comparisons are being made", MAX_COMPARISONS)

    async def page(
        self, request: Request, old: str, new: str, change: ChangeForm | None, done: bool = False, **values: Any
    ) -> HTMLResponse:
        """Return the page of a comparison. Raises what `impact_report` raises, and Overloaded."""
        context = self._context
        about = context.settings, context.tables, context.store, old, new, MAX_SAMPLES, html.translator_of(request)
        report = await self._threads.run(impact_report, *about)
        impact, names = report.impact, ("labels", "relabelled", "cameras")
        values |= {name: getattr(impact, name)[:MAX_ROWS] for name in names}
        values["left_out"] = sum(len(getattr(impact, name)) - len(values[name]) for name in names)
        values |= await run_in_threadpool(self._stored, impact, old, change, done)
        values |= {"old": old, "new": new, "change": change, "impact": impact, "model_of": model_of, "done": done}
        return html.page(request, "compare.html", verdict=report.verdict, samples=report.samples, **values)

    def _stored(self, impact: Impact, old: str, change: ChangeForm | None, done: bool) -> dict[str, Any]:
        """Return the warning before and after a publication, and the query of pictures that shows both sides."""
        tables, schedule = self._context.tables, ""
        if change and change.reason and change.back == done:
            schedule = schedule_words(self._context.store, impact.old if done else impact.new)
        shown = None if old == PUBLISHED else last_sealed(tables, impact.old.inference_key)
        run = last_sealed(tables, impact.new.inference_key)
        return {"schedule": schedule, "versions": {"shown": shown or "", "run": run or ""}}
