"""/ui/: what is published, what waits for people, what runs, which cameras need attention, and activity."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.deployments import current
from archive.views.cameras import CameraViews
from archive.views.image_filter import ImageFilter
from archive.views.views import Views
from batch.runs.listing import page as runs
from batch.runs.listing import rows_of
from pages.attention import attention
from pages.context import Context
from pages.html import page, prefix, translator_of

NEWEST, BARS, MAX_RUNNING = 8, 30, 5
"""Number of newest images, of bars in a chart, and of running runs."""


def router(context: Context, cameras: CameraViews) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def overview(request: Request) -> HTMLResponse:
        if context.tables.existing("media") is None:
            return page(request, "start.html")
        t, index = translator_of(request), context.index
        context.follower.used()
        counted = [
            (t("images"), {}, ""),
            (t("with detections"), {"status": "ok"}, ""),
            (t("failed"), {"status": "failed"}, "bad"),
            (t("without result"), {"status": "missing"}, "waits"),
            (t("to review"), {"status": "ok", "reviewed": "false"}, "waits"),
        ]
        numbers = [
            (name, index.count(ImageFilter.model_validate(wanted)), urlencode(wanted), kind)
            for name, wanted, kind in counted
        ]

        def link(field: str) -> object:
            return lambda value: f"{prefix(request)}/images?{urlencode({field: value})}"

        everything, found = ImageFilter(), ImageFilter(status="ok")
        failed = dict(index.histogram(ImageFilter(status="failed"), "camera"))
        deployments = [row for (of, _), row in current(context.tables).items() if of == "deployment"]
        today = datetime.now(UTC).date()
        running = rows_of(context.tables, runs(context.tables, MAX_RUNNING, state="running"))
        return page(
            request,
            "overview.html",
            view=Views(context.tables.url).current(),
            numbers=numbers,
            running=running,
            attention=attention(cameras.activity(), failed, deployments, today),
            newest=index.page(everything, NEWEST).rows,
            hours=index.histogram(found, "hour"),
            days=[bar for bar in index.histogram(everything, "day") if bar[0]][-BARS:],
            labels=index.histogram(found, "label")[:BARS],
            cameras=[bar for bar in index.histogram(everything, "camera") if bar[0]][:BARS],
            day_link=lambda day: f"{prefix(request)}/images?{urlencode({'at': day})}",
            label_link=link("label"),
            camera_link=link("camera"),
        )

    return routes
