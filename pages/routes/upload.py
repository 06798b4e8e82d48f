"""/ui/upload: choose a camera, a model and files. The browser sends each file to POST /v1/images of the detectors."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.uploads import require_camera
from archive.views.views import Views
from model_store.names import parse_ref
from pages.choices import known_cameras
from pages.context import Context
from pages.html import page


def router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/upload")
    def upload(request: Request, camera: str = "", model: str = "") -> HTMLResponse:
        require_camera(camera)
        if model:
            parse_ref(model)
        view, store = Views(context.tables.url).current(), context.store
        models = [name for name in store.names() if store.versions(name)]
        first = view.model_name if view and view.model_name in models else next(iter(models), "")
        values = {"camera": camera, "model": model or first, "models": models}
        return page(request, "upload.html", **values, cameras=known_cameras(context))

    return routes
