"""/ui/layers: switch layers of a view on and off. /ui/filters/{kind}: fill in a filter, preview it, then run it.

A run starts only from a preview of the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from archive.annotations.layers import Layer, read_layers
from archive.views.views import PRODUCTION, Views
from batch.filters.layers import of_silent, states, switch, unfounded
from batch.filters.prepare import prepare
from batch.filters.preview import preview
from batch.filters.registry import FILTERS, filter_of
from batch.filters.scope import FilterScope
from batch.filters.spec import FilterSpec
from batch.jobs.control import submit_filters
from model_store.errors import BadRequest, Conflict, ModelNotFound
from pages.choices import known_cameras, labels_in_use
from pages.context import Context
from pages.forms import Submitted, fields_of, form_of, submitted
from pages.html import page, prefix
from serve.api import problems
from serve.api.bodies import SmallBodyRoute
from serve.inference.admission import Room

MAX_PREVIEWS = 2
"""Maximum concurrent previews; each reads all images of its scope."""


class FormRoute(SmallBodyRoute):
    """Route with a larger body limit: lists of labels can be long."""

    max_bytes = 1024 * 1024


def router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False, route_class=FormRoute)
    tables, previews = context.tables, Room(MAX_PREVIEWS, "previews are being made")

    @routes.get("/layers")
    def layers(request: Request, view: str = PRODUCTION) -> HTMLResponse:
        return _layers(request, view)

    def _layers(
        request: Request, view: str, wrong: tuple[str, str] = ("", ""), status: int = 200
    ) -> HTMLResponse:
        current = Views(tables.url).current(view)
        newest_first = [*reversed(states(tables, current))]
        rows = sorted(newest_first, key=lambda row: row.position or len(FILTERS) + 1)
        notes = [*unfounded(tables, current), *of_silent(tables, current)] if current else []
        values = {"view": view, "current": current, "rows": rows, "notes": notes, "wrong": wrong}
        kinds = sorted(FILTERS.values(), key=lambda entry: entry.order)
        return page(request, "layers.html", status, **values, kinds=kinds, unusual=_unusual)

    @routes.post("/layers")
    async def switch_layer(request: Request, view: str = PRODUCTION) -> Response:
        form = dict(await form_of(request))
        layer, to = form.get("layer", ""), form.get("to", "")
        if to not in ("on", "off") or not layer:
            raise BadRequest("send the fields layer (an id) and to (on or off)")
        which: dict[str, Any] = {to: [layer], "reason": form.get("reason", "")}
        try:
            await run_in_threadpool(switch, tables, view, **which)
        except (BadRequest, Conflict) as error:
            status, wrong = problems.status_of(error), (layer, str(error))
            return await run_in_threadpool(_layers, request, view, wrong, status)
        context.follower.used(view, changed=True)
        return _see(request, "/layers", view=view)

    @routes.get("/filters/{kind}")
    def form(
        request: Request, kind: str, view: str = PRODUCTION, layer: str = "", run: str = ""
    ) -> HTMLResponse:
        stored = read_layers(tables).get(layer) if layer else None
        if layer and (stored is None or stored.kind != kind):
            raise ModelNotFound(f"unknown layer '{layer}' of {kind}: see resight layers list")
        sent = Submitted(dict(stored.config) if stored else {}, {})
        return _form(request, kind, view, sent, started=run)

    def _form(
        request: Request, kind: str, view: str, sent: Submitted, status: int = 200, **more: Any
    ) -> HTMLResponse:
        entry, labels = filter_of(kind), labels_in_use(context, view)
        values: dict[str, Any] = {"camera": "", "started": "", "report": None, "examples": []}
        values |= {"entry": entry, "view": view, "whole": sent.errors.get("", [])}
        values |= {"labels": labels, "cameras": known_cameras(context, view), "previewed": ""}
        fields = fields_of(entry.config, sent.values, labels, sent.errors)
        return page(request, "filter.html", status, fields=fields, **values | more)

    @routes.post("/filters/{kind}")
    async def submit(request: Request, kind: str, view: str = PRODUCTION) -> Response:
        config, pairs = filter_of(kind).config, await form_of(request)
        own = {name: text for name, text in pairs if name.startswith("_")}
        sent = submitted(config, [pair for pair in pairs if not pair[0].startswith("_")])
        camera = own.get("_camera", "").strip()
        shown: dict[str, Any] = {"camera": camera}
        if not sent.errors:
            try:
                scope = FilterScope(camera=(camera,) if camera else ())
                spec = await run_in_threadpool(prepare, tables, kind, sent.values, scope, view)
                if "_run" in own and own.get("_previewed") == _settings_of(spec):
                    await run_in_threadpool(_start, spec)
                    return _see(request, f"/filters/{kind}", view=view, run=spec.run_id)
                with previews.place():
                    report, examples = await run_in_threadpool(preview, spec, tables)
                shown |= {"report": report, "examples": examples, "previewed": _settings_of(spec)}
            except BadRequest as error:
                sent = Submitted(sent.values, {"": [str(error)]})
        status = 400 if sent.errors else 200
        return await run_in_threadpool(_form, request, kind, view, sent, status, **shown)

    def _start(spec: FilterSpec) -> None:
        submit_filters([spec], context.jobs(), context.settings)

    return routes


def _settings_of(spec: FilterSpec) -> str:
    """Return what a preview and its run must have in common."""
    return f"{spec.layer().layer_id} {spec.scope.words()}"


def _unusual(layer: Layer) -> Mapping[str, Any]:
    """Return the settings of a layer that differ from the defaults of its filter."""
    entry = FILTERS.get(layer.kind)
    known = entry.config.model_json_schema()["properties"] if entry else {}
    return {
        name: value
        for name, value in layer.config.items()
        if value != known.get(name, {}).get("default")
    }


def _see(request: Request, path: str, **query: str) -> RedirectResponse:
    """Return a redirection after a form, so that reloading the page does not send it again."""
    return RedirectResponse(f"{prefix(request)}{path}?{urlencode(query)}", 303)
