"""/ui/: what is published, and what waits for people."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.views.views import Views
from pages.context import Context
from pages.html import page


def router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def overview(request: Request) -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page(request, "overview.html", view=Views(context.tables.url).current())

    return routes
