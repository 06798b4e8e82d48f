"""/ui/layers and /ui/filters/{kind}: pages of layers and filters. Their JSON: GET, PUT /ui/v1/layers, and previews.

A run is started by POST /runs/filters/{kind}; the page offers it after a preview of the same settings.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from archive.annotations.layers import read_layers
from archive.views.views import PRODUCTION, View, Views
from batch.api.filters import FilterRequest, FilterRoute
from batch.filters.layers import LayerState, never_run_warnings, outdated_warnings, states, switch
from batch.filters.prepare import prepare
from batch.filters.preview import Example, preview
from batch.filters.registry import FILTERS, filter_of
from batch.filters.run import FilterReport
from model_store.errors import ModelNotFound
from model_store.frozen import Frozen
from pages.context import Context
from pages.forms import fields_of
from pages.html import page
from serve.inference.admission import Threads

MAX_PREVIEWS = 2
"""Maximum concurrent previews; each reads all images of its scope."""


class LayerRow(Frozen):
    """A stored layer: its `position` in the view (from 1; null: off) and settings other than the filter's defaults."""

    layer_id: str
    kind: str
    position: int | None
    assertions: int
    settings: dict[str, Any]


class LayersOfView(Frozen):
    """All layers, those of the view first and the lowest first; `view` is null if nothing is published."""

    view: View | None
    layers: tuple[LayerRow, ...]
    notes: tuple[str, ...]


class LayerSwitch(Frozen):
    is_on: bool
    view: str = PRODUCTION
    reason: str = Field(default="", max_length=2000, description="stored with the publication")


class Preview(Frozen):
    """Counts of a dry run, and up to 24 examples of what the run would change."""

    layer_id: str
    report: FilterReport
    examples: tuple[Example, ...]


def router(context: Context) -> APIRouter:
    routes = APIRouter(route_class=FilterRoute, tags=["layers"])
    tables, previews = context.tables, Threads(MAX_PREVIEWS, "previews are being made", MAX_PREVIEWS)

    @routes.get("/v1/layers")
    def list_layers(view: str = PRODUCTION) -> LayersOfView:
        current = Views(tables.url).current(view)
        notes = [*outdated_warnings(tables, current), *never_run_warnings(tables, current)] if current else []
        rows = [_row(state) for state in reversed(states(tables, current))]
        rows.sort(key=lambda row: row.position or len(FILTERS) + 1)
        return LayersOfView(view=current, layers=tuple(rows), notes=tuple(notes))

    @routes.put("/v1/layers/{layer_id}")
    def switch_layer(layer_id: str, body: LayerSwitch) -> LayersOfView:
        """Publish the view with the layer switched on or off."""
        names = {"on" if body.is_on else "off": [layer_id]}
        switch(tables, body.view, reason=body.reason, **names)
        context.follower.used(body.view, changed=True)
        return list_layers(body.view)

    @routes.post("/v1/filters/{kind}/preview")
    async def preview_filter(kind: str, body: FilterRequest) -> Preview:
        """Return what a run of the filter would change; nothing is written."""
        spec = await run_in_threadpool(prepare, tables, kind, body.config, body.scope, body.view)
        report, examples = await previews.run(preview, spec, tables)
        return Preview(layer_id=spec.layer().layer_id, report=report, examples=tuple(examples))

    @routes.get("/layers", include_in_schema=False)
    def layers(request: Request, view: str = PRODUCTION) -> HTMLResponse:
        kinds = sorted(FILTERS.values(), key=lambda entry: entry.order)
        return page(request, "layers.html", name=view, shown=list_layers(view), kinds=kinds)

    @routes.get("/filters/{kind}", include_in_schema=False)
    def form(request: Request, kind: str, view: str = PRODUCTION, layer: str = "", run: str = "") -> HTMLResponse:
        stored = read_layers(tables).get(layer) if layer else None
        if layer and (stored is None or stored.kind != kind):
            raise ModelNotFound(f"unknown layer '{layer}' of {kind}: see resight layers list")
        entry, labels = filter_of(kind), context.names("label", view)
        values: dict[str, Any] = {"entry": entry, "view": view, "started": run, "labels": labels}
        values["fields"] = fields_of(entry.config, stored.config if stored else None, labels)
        return page(request, "filter.html", cameras=context.names("camera", view), **values)

    return routes


def _row(state: LayerState) -> LayerRow:
    layer = state.layer
    entry = FILTERS.get(layer.kind)
    known = entry.config.model_json_schema()["properties"] if entry else {}
    return LayerRow(
        layer_id=layer.layer_id,
        kind=layer.kind,
        position=state.position,
        assertions=state.assertions,
        settings={name: value for name, value in layer.config.items() if value != known.get(name, {}).get("default")},
    )
