"""/ui/cameras, /ui/cameras/{id}, /ui/map: cameras, their deployments and clocks, and where they are.

Forms are plain HTML. A form that is wrong is shown again, with each error at its field.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from archive.catalogue.deployments import (
    TABLE,
    Camera,
    Deployment,
    Row,
    all_rows,
    record,
    remove,
    revert,
    valid,
)
from archive.catalogue.local_time import parse_local_time
from archive.views.cameras import CameraViews
from model_store.errors import BadRequest, Conflict, ModelNotFound
from pages.context import Context
from pages.html import page, prefix
from pages.location_map import HEIGHT, WIDTH, scatter
from pages.routes.deployments import actor_of, listed, may, shown_to
from pages.trap_nights import calendar
from serve.api.bodies import SmallBodyRoute
from serve.auth.scopes import TokenScope

SHOWN_CHANGES = 50
MAX_FIELDS = 30
FIELDS = tuple(Deployment.model_fields)
CLOCKS = ("camera_clock", "right_time")
Values = dict[str, str]
F = TypeVar("F", Camera, Deployment)


class Wrong(Exception):
    """A form with errors by field; "" is the whole form."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(errors)
        self.errors = dict(errors)


def router(context: Context, views: CameraViews) -> APIRouter:
    routes = APIRouter(route_class=SmallBodyRoute, include_in_schema=False)

    def cameras_page(request: Request, form: Values, errors: Mapping[str, str]) -> HTMLResponse:
        rows = sorted(listed(context, views, "camera"), key=lambda row: row["camera_id"])
        unnamed = next((row for row in views.cameras() if row["camera_id"] is None), None)
        values = {"rows": rows, "unnamed": unnamed, "form": form, "errors": errors}
        return page(request, "cameras.html", 400 if errors else 200, **values, **_rights(request))

    @routes.get("/cameras")
    def cameras(request: Request) -> HTMLResponse:
        return cameras_page(request, {}, {})

    @routes.post("/cameras")
    async def add_camera(request: Request) -> Response:
        form = await _form(request)

        def add() -> Response:
            try:
                camera = _checked(Camera, form)
            except Wrong as wrong:
                return cameras_page(request, form, wrong.errors)
            record(context.tables, {"": camera}, actor_of(request))
            return _to_camera(request, camera.camera_id)

        return await asyncio.to_thread(add)

    @routes.get("/cameras/{camera:path}")
    def camera(request: Request, camera: str) -> HTMLResponse:
        return _camera_page(context, views, request, camera)

    @routes.post("/cameras/{camera:path}")
    async def change(request: Request, camera: str) -> Response:
        form = await _form(request)

        def apply() -> Response:
            try:
                example = _apply(context, request, camera, form)
            except Wrong as wrong:
                return _camera_page(context, views, request, camera, form, wrong.errors)
            if example is not None:
                return _camera_page(context, views, request, camera, form, {}, example)
            return _to_camera(request, "" if form.get("action") == "delete" else camera)

        return await asyncio.to_thread(apply)

    @routes.get("/map")
    def location_map(request: Request) -> HTMLResponse:
        rows = [shown_to(request, row) for row in listed(context, views, "location")]
        rows.sort(key=lambda row: row["location"])
        rows = [row | {"n": number} for number, row in enumerate(rows, 1)]
        box = {"plane": scatter(rows), "width": WIDTH, "height": HEIGHT, "rows": rows}
        return page(request, "map.html", **box, **_rights(request))

    return routes


def _apply(context: Context, request: Request, camera: str, form: Values) -> int | None:
    """Carry out the button of a form. Return a clock offset if only an example of it is wanted."""
    tables, actor, action = context.tables, actor_of(request), form.get("action", "save")
    try:
        match action:
            case "remove":
                remove(tables, "deployment", [form.get("deployment_id", "")], actor)
            case "delete":
                remove(tables, "camera", [camera], actor)
            case "revert":
                if not re.fullmatch("[0-9]{1,18}", form.get("change", "")):
                    raise BadRequest("name the change to restore")
                revert(tables, int(form["change"]), actor)
            case "notes":
                record(tables, {"": _checked(Camera, form | {"camera_id": camera})}, actor)
            case "save" | "check":
                form |= _offset(form)
                deployment = _checked(Deployment, form | {"camera_id": camera})
                if action == "check":
                    return deployment.clock_offset_s or 0
                record(tables, {"": deployment}, actor)
            case _:
                raise BadRequest(f"unknown action '{action[:100]}'")
    except Conflict as error:
        raise Wrong({"from_local" if action == "save" else "": str(error)}) from error
    return None


def _camera_page(
    context: Context,
    views: CameraViews,
    request: Request,
    camera: str,
    form: Values | None = None,
    errors: Mapping[str, str] | None = None,
    example: int | None = None,
) -> HTMLResponse:
    form, errors = form or {}, errors or {}
    rows = all_rows(context.tables.existing(TABLE))
    facts = valid(rows)
    found = next((row for row in listed(context, views, "camera") if row["id"] == camera), None)
    if found is None:
        raise ModelNotFound(
            f"unknown camera '{camera[:100]}': no image, deployment or record has it"
        )
    of_camera = [
        row
        for (kind, _), row in facts.items()
        if kind == "deployment" and row["camera_id"] == camera
    ]
    of_camera.sort(key=lambda row: row["from_local"], reverse=True)
    pictures = views.deployments()
    places = {row["location"]: row for (kind, _), row in facts.items() if kind == "location"}
    sent = form if form.get("action") in ("save", "check") else None
    wrong = None if sent is None else sent.get("deployment_id", "")
    forms = [
        {
            "id": row["fact_id"],
            "row": shown_to(request, _placed(row, places)),
            "texts": sent if wrong == row["fact_id"] else _texts(row),
            "errors": errors if wrong == row["fact_id"] else {},
            "is_open": wrong == row["fact_id"],
            "images": pictures.get(row["fact_id"], {}).get("images", 0),
            "example": _example(
                row, pictures.get(row["fact_id"]), example if wrong == row["fact_id"] else None
            ),
        }
        for row in of_camera
    ]
    is_new = wrong == ""
    new = {
        "id": "new",
        "texts": sent if is_new else {},
        "errors": errors if is_new else {},
        "is_open": is_new,
        "example": _example(sent or {}, None, example) if is_new and example is not None else {},
    }
    history = [row for row in rows if row["kind"] == "deployment" and row["camera_id"] == camera]
    values = {
        "camera": found,
        "forms": forms,
        "new": new,
        "errors": errors if wrong is None else {},
        "locations": sorted({row["location"] for row in facts.values() if row["location"]}),
        "history": [shown_to(request, row) for row in history[: -SHOWN_CHANGES - 1 : -1]],
        "current": {row["change"] for row in of_camera},
        "calendar": calendar(views.days(camera), of_camera, datetime.now(UTC).date()),
    }
    return page(request, "camera.html", 400 if errors else 200, **values, **_rights(request))


def _placed(row: Row, places: Mapping[str, Row]) -> Row:
    """Return a deployment with the coordinates of its location if it has none."""
    place = places.get(row["location"])
    if row["latitude"] is not None or place is None:
        return row
    return row | {name: place[name] for name in ("latitude", "longitude")}


def _example(
    deployment: Mapping[str, Any], pictures: Mapping[str, Any] | None, offset_s: int | None
) -> dict[str, str]:
    """Return the first and last time of a deployment, as the camera showed them, and corrected."""
    offset_s = deployment.get("clock_offset_s") if offset_s is None else offset_s
    if offset_s is None:
        return {}
    start = datetime.fromisoformat(deployment["from_local"])
    times = [pictures["first_at"], pictures["last_at"]] if pictures else [start]
    try:
        return {_words(time): _words(time + timedelta(seconds=offset_s)) for time in times}
    except OverflowError:  # a damaged time of an image, near the year 9999
        return {}


def _offset(form: Values) -> Values:
    """Return the clock offset of a form that states what the camera showed, and the right time then."""
    shown = {name: form[name] for name in CLOCKS if form.get(name)}
    if not shown:
        return {}
    times: dict[str, datetime] = {}
    for name in CLOCKS:
        try:
            times[name] = parse_local_time(shown[name])
        except (KeyError, ValueError) as error:
            words = "give both times" if isinstance(error, KeyError) else str(error)
            raise Wrong({name: words}) from None
    return {
        "clock_offset_s": str(round((times["right_time"] - times["camera_clock"]).total_seconds()))
    }


def _checked(model: type[F], form: Values) -> F:
    """Return the fact of a form. Raises Wrong."""
    given = {name: value for name, value in form.items() if name in model.model_fields and value}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        errors = {
            str(e["loc"][0]) if e["loc"] else "": e["msg"].removeprefix("Value error, ")
            for e in error.errors()
        }
        if "" in errors:  # of two fields together
            words = errors.pop("")
            errors["until_local" if "until" in words else "latitude"] = words
        raise Wrong(errors) from None


def _texts(row: Row) -> Values:
    """Return the values of the form's fields."""
    values = {name: row.get(name) for name in FIELDS} | {"deployment_id": row["fact_id"]}
    return {name: str(value) for name, value in values.items() if value is not None}


async def _form(request: Request) -> Values:
    """Return the fields of a form, without spaces around them. Raises BadRequest."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadRequest(f"invalid form: {error}") from error
    return {name: value.strip() for name, value in fields}


def _to_camera(request: Request, camera: str) -> RedirectResponse:
    """Return to the page of a camera, "" to the list."""
    path = f"/cameras/{quote(camera, safe='')}".rstrip("/")
    return RedirectResponse(prefix(request) + path, 303)


def _words(time: datetime) -> str:
    return time.isoformat(" ", "seconds")


def _rights(request: Request) -> dict[str, bool]:
    return {
        "may_change": may(request, TokenScope.admin),
        "is_exact": may(request, TokenScope.review, TokenScope.admin),
    }
