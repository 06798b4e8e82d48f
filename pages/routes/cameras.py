"""/ui/cameras, /ui/cameras/{id}, /ui/map: cameras, their deployments and clocks, and where they are.

Their forms send JSON to the routes of `pages/routes/deployments.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.deployments import TABLE, all_rows, valid
from archive.views.cameras import CameraViews
from model_store.errors import ModelNotFound
from pages.context import Context
from pages.html import page
from pages.location_map import HEIGHT, WIDTH, scatter
from pages.routes.deployments import listed, may, shown_to
from pages.trap_nights import calendar
from serve.auth.scopes import TokenScope

SHOWN_CHANGES = 50


def router(context: Context, views: CameraViews) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/cameras")
    def cameras(request: Request) -> HTMLResponse:
        rows = sorted(listed(context, views, "camera"), key=lambda row: row["camera_id"])
        unnamed = next((row for row in views.cameras() if row["camera_id"] is None), None)
        return page(request, "cameras.html", rows=rows, unnamed=unnamed, **_rights(request))

    @routes.get("/cameras/{name:path}")
    def camera(request: Request, name: str) -> HTMLResponse:
        row = next((row for row in listed(context, views, "camera") if row["id"] == name), None)
        if row is None:
            raise ModelNotFound(f"unknown camera '{name[:100]}': no image, deployment or record has it")
        changes = all_rows(context.tables.existing(TABLE))
        locations = {row["id"]: row for row in listed(context, views, "location")}
        deployments = [row for row in listed(context, views, "deployment") if row["camera_id"] == name]
        deployments.sort(key=lambda row: row["from_local"], reverse=True)
        of_camera = [row for row in changes if row["kind"] == "deployment" and row["camera_id"] == name]
        return page(
            request,
            "camera.html",
            camera=row,
            deployments=[shown_to(request, row) for row in deployments],
            locations={key: shown_to(request, row) for key, row in locations.items()},
            changes=[shown_to(request, row) for row in of_camera[: -SHOWN_CHANGES - 1 : -1]],
            current={row["change"] for row in valid(changes).values()},
            calendar=calendar(views.days(name), deployments, datetime.now(UTC).date()),
            **_rights(request),
        )

    @routes.get("/map")
    def location_map(request: Request) -> HTMLResponse:
        rows = [shown_to(request, row) for row in listed(context, views, "location")]
        rows.sort(key=lambda row: row["location"])
        rows = [row | {"n": number} for number, row in enumerate(rows, 1)]
        box = {"plane": scatter(rows), "width": WIDTH, "height": HEIGHT, "rows": rows}
        return page(request, "map.html", **box, **_rights(request))

    return routes


def _rights(request: Request) -> dict[str, bool]:
    return {"may_change": may(request, TokenScope.admin), "is_exact": may(request, TokenScope.review, TokenScope.admin)}
