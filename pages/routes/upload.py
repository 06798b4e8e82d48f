"""/ui/upload: choose a camera, a model and files, and see the time and place of each before it is sent.

The browser sends the beginning of each file to POST /ui/v1/uploads/check, and the file to POST /v1/images.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.deployments import current
from archive.catalogue.exif import read_exif
from archive.catalogue.uploads import require_camera
from archive.delta.tables import Tables
from archive.views.views import Views
from model_store.frozen import Frozen
from model_store.images.header import require_supported
from model_store.names import parse_ref
from pages.context import Context
from pages.html import page
from serve.api.bodies import SmallBodyRoute


class HeadRoute(SmallBodyRoute):
    """Route for the first 256 KiB of a file, where EXIF data are."""

    max_bytes = 256 * 1024


class UploadCheck(Frozen):
    """Values that the catalogue will have of a file. `timestamp_flags` are doubts about its time."""

    camera_id: str | None
    captured_at_local: str | None
    timestamp_flags: tuple[str, ...]
    location: str | None


def router(context: Context) -> APIRouter:
    routes = APIRouter(route_class=HeadRoute, tags=["uploads"])

    @routes.get("/upload", include_in_schema=False)
    def upload(request: Request, camera: str = "", model: str = "") -> HTMLResponse:
        require_camera(camera)
        if model:
            parse_ref(model)
        view, store = Views(context.tables.url).current(), context.store
        models = [name for name in store.names() if store.versions(name)]
        first = view.model_name if view and view.model_name in models else next(iter(models), "")
        values = {"camera": camera, "model": model or first, "models": models}
        return page(request, "upload.html", **values, cameras=context.names("camera"))

    @routes.post("/v1/uploads/check")
    async def check(request: Request, camera: str = "") -> UploadCheck:
        """Return the camera, time and place that an upload has, from the beginning of its file; nothing is stored.

        Other files than pictures, by their first bytes, are refused as by the upload.
        """
        require_camera(camera)
        return await asyncio.to_thread(_checked, context.tables, await request.body(), camera)

    return routes


def _checked(tables: Tables, head: bytes, camera: str) -> UploadCheck:
    require_supported(head)
    exif = read_exif(head)
    own, taken = exif.camera_serial or camera or None, exif.captured_at_local
    places = [
        row["location"]
        for (kind, _), row in current(tables).items()
        if kind == "deployment" and row["camera_id"] == own
        if taken and row["from_local"] <= taken < (row["until_local"] or "~")
    ]
    return UploadCheck(
        camera_id=own, captured_at_local=taken, timestamp_flags=exif.timestamp_flags, location=next(iter(places), None)
    )
