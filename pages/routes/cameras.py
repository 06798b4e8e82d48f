"""Cameras, their deployments and clocks, and where they are: /ui/cameras, /ui/cameras/{id} and /ui/map.

The same as JSON at /ui/v1/cameras, /ui/v1/locations and /ui/v1/deployments, which the forms change; that needs admin.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.deployments import (
    KINDS,
    TABLE,
    Camera,
    Deployment,
    Fact,
    Kind,
    all_rows,
    current,
    record,
    remove,
    revert,
    valid,
)
from archive.views.cameras import CameraViews, share
from model_store.errors import BadRequest, ModelNotFound
from pages.context import Context
from pages.html import identity_of, page
from pages.location_map import HEIGHT, WIDTH, scatter
from pages.trap_nights import calendar
from serve.api.bodies import SmallBodyRoute
from serve.auth.scopes import TokenScope

OF_PLURAL: dict[str, Kind] = {f"{kind}s": model.kind for kind, model in KINDS.items()}
TIMES = ("first_at", "last_at")
SHOWN_CHANGES = 50
ROUNDED_DIGITS = 1
"""Decimal places of coordinates for those without the scope review or admin: about 10 km."""
Limit = Annotated[int, Query(ge=1, le=5000)]
After = Annotated[str, Query(max_length=1000, description="`next` of the previous page")]


def router(context: Context, views: CameraViews) -> APIRouter:
    routes = APIRouter(route_class=SmallBodyRoute, tags=["cameras"])
    tables = context.tables

    @routes.get("/v1/deployment_changes")
    def changes(request: Request, after: Annotated[int, Query(ge=0)] = 0, limit: Limit = 1000) -> dict[str, Any]:
        """Return all statements about cameras, locations and deployments, oldest first; none is ever removed."""
        rows = [row for row in all_rows(tables.existing(TABLE)) if row["change"] > after]
        more = len(rows) > limit
        shown = [_shown_to(request, row) for row in rows[:limit]]
        return {"changes": shown, "next": str(shown[-1]["change"]) if more else ""}

    @routes.post("/v1/deployment_changes/{change}/revert")
    def restore(request: Request, change: int) -> dict[str, Any]:
        """State a fact again as this change stated it, also one that is deleted."""
        return {"id": revert(tables, change, identity_of(request).name)}

    @routes.get("/cameras", include_in_schema=False)
    def cameras(request: Request) -> HTMLResponse:
        rows = sorted(_listed(context, views, "camera"), key=lambda row: row["camera_id"])
        unnamed = next((row for row in views.cameras() if row["camera_id"] is None), None)
        return page(request, "cameras.html", rows=rows, unnamed=unnamed, share=share, **_rights(request))

    @routes.get("/cameras/{name:path}", include_in_schema=False)
    def camera(request: Request, name: str) -> HTMLResponse:
        row = next((row for row in _listed(context, views, "camera") if row["id"] == name), None)
        if row is None:
            raise ModelNotFound(f"unknown camera '{name[:100]}': no image, deployment or record has it")
        changes = all_rows(context.tables.existing(TABLE))
        locations = {row["id"]: row for row in _listed(context, views, "location")}
        deployments = [row for row in _listed(context, views, "deployment") if row["camera_id"] == name]
        deployments.sort(key=lambda row: row["from_local"], reverse=True)
        of_camera = [row for row in changes if row["kind"] == "deployment" and row["camera_id"] == name]
        return page(
            request,
            "camera.html",
            camera=row,
            deployments=[_shown_to(request, row) for row in deployments],
            locations={key: _shown_to(request, row) for key, row in locations.items()},
            changes=[_shown_to(request, row) for row in of_camera[: -SHOWN_CHANGES - 1 : -1]],
            current={row["change"] for row in valid(changes).values()},
            calendar=calendar(views.days(name), deployments, date.today()),
            **_rights(request),
        )

    @routes.get("/map", include_in_schema=False)
    def location_map(request: Request) -> HTMLResponse:
        rows = [_shown_to(request, row) for row in _listed(context, views, "location")]
        rows.sort(key=lambda row: row["location"])
        rows = [row | {"n": number} for number, row in enumerate(rows, 1)]
        box = {"plane": scatter(rows), "width": WIDTH, "height": HEIGHT, "rows": rows}
        return page(request, "map.html", **box, **_rights(request))

    for plural, kind in OF_PLURAL.items():
        _add_kind(routes, context, views, plural, kind)
    return routes


def _add_kind(routes: APIRouter, context: Context, views: CameraViews, plural: str, kind: Kind) -> None:
    @routes.get(f"/v1/{plural}", name=f"list {plural}")
    def facts(request: Request, after: After = "", limit: Limit = 1000) -> dict[str, Any]:
        """Return the valid ones by id. Cameras and locations include those that only images or deployments have."""
        rows = {row["id"]: row for row in _listed(context, views, kind)}
        ids = sorted(name for name in rows if name > after)
        shown = [_shown_to(request, rows[name]) for name in ids[:limit]]
        return {plural: shown, "next": ids[limit - 1] if len(ids) > limit else ""}

    def add(request: Request, fact: Any) -> dict[str, Any]:
        """Record one, or correct the one with its id; a deployment also by its camera and start."""
        return _record(context, request, fact, None)

    def put(request: Request, fact_id: str, fact: Any) -> dict[str, Any]:
        """Record one with this id, or correct it; fields that are not sent become null."""
        return _record(context, request, fact, fact_id)

    for endpoint in (add, put):
        endpoint.__annotations__["fact"] = KINDS[kind]
    routes.post(f"/v1/{plural}", name=f"add {kind}")(add)
    routes.put(f"/v1/{plural}/{{fact_id:path}}", name=f"put {kind}")(put)

    @routes.delete(f"/v1/{plural}/{{fact_id:path}}", name=f"delete {kind}")
    def delete(request: Request, fact_id: str) -> dict[str, Any]:
        """Delete one; its rows stay. Refused for a camera or location while images or deployments refer to it."""
        remove(context.tables, kind, [fact_id], identity_of(request).name)
        return {"id": fact_id, "changed": True}


def _record(context: Context, request: Request, fact: Fact, fact_id: str | None) -> dict[str, Any]:
    if isinstance(fact, Deployment):
        own = fact.deployment_id
        fact = fact.model_copy(update={"deployment_id": fact_id or own})
    else:
        own = fact.camera_id if isinstance(fact, Camera) else fact.location
    if fact_id is not None and own not in (None, fact_id):
        raise BadRequest(f"the path has the id '{fact_id[:100]}' and the body '{own}'")
    (name,), changed = record(context.tables, {"": fact}, identity_of(request).name)
    return {"id": name, "changed": bool(changed)}


def _may(request: Request, *scopes: TokenScope) -> bool:
    """Return whether the sender has one of these scopes."""
    return bool(identity_of(request).scopes.intersection(scopes))


def _shown_to(request: Request, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with coordinates as exact as the sender may see them: places of rare animals attract hunters."""
    if _may(request, TokenScope.review, TokenScope.admin) or row.get("latitude") is None:
        return dict(row)
    rounded = {name: round(row[name], ROUNDED_DIGITS) for name in ("latitude", "longitude")}
    return {**row, **rounded}


def _listed(context: Context, views: CameraViews, kind: Kind) -> list[dict[str, Any]]:
    """Return the valid facts of a kind, each with its `id` and number of `images`."""
    found = current(context.tables)
    names = [name for name in KINDS[kind].model_fields if name != "deployment_id"]
    rows = {
        row["fact_id"]: {"id": row["fact_id"]} | {name: row[name] for name in names}
        for (of, _), row in found.items()
        if of == kind
    }
    deployments = [row for (of, _), row in found.items() if of == "deployment"]
    if kind == "camera":
        pictures = {row["camera_id"]: row for row in views.cameras() if row["camera_id"]}
        for name in {*pictures, *(row["camera_id"] for row in deployments)}:
            rows.setdefault(name, {"id": name, "camera_id": name, "notes": None})
        return [row | _of_camera(pictures.get(name)) for name, row in rows.items()]
    counts = views.deployments()
    of_deployment = {
        row["fact_id"]: {"clock_stated_by": row["clock_stated_by"], "actor": row["actor"]}
        | _pictures(counts.get(row["fact_id"]))
        for row in deployments
    }
    if kind == "deployment":
        return [row | of_deployment[name] for name, row in rows.items()]
    exact = {name for name, row in rows.items() if row["latitude"] is not None}
    for row in sorted(deployments, key=lambda row: row["from_local"]):  # the newest coordinates
        name = row["location"]
        place = rows.setdefault(name, dict.fromkeys(names) | {"id": name, "location": name})
        if row["latitude"] is not None and name not in exact:
            place.update({n: row[n] for n in ("latitude", "longitude")})
    for name, place in rows.items():
        here = [row for row in deployments if row["location"] == name]
        place["cameras"] = sorted({row["camera_id"] for row in here})
        place["images"] = sum(of_deployment[row["fact_id"]]["images"] for row in here)
    return list(rows.values())


def _pictures(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the number of images, and the first and last time as text."""
    times = {name: row[name].isoformat() if row and row[name] else None for name in TIMES}
    return {"images": row["images"] if row else 0, **times}


def _of_camera(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the columns of `CameraViews.cameras` as JSON, and `days_without` between the first and last picture."""
    if row is None:
        return _pictures(row) | dict.fromkeys(("days", "days_without", "failed", "empty", "seen"), 0)
    first, last = row["first_at"], row["last_at"]
    span = (last.date() - first.date()).days + 1 if first else 0
    return {**row, **_pictures(row), "days_without": span - row["days"]}


def _rights(request: Request) -> dict[str, bool]:
    return {
        "may_change": _may(request, TokenScope.admin),
        "is_exact": _may(request, TokenScope.review, TokenScope.admin),
    }
