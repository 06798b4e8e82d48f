"""/ui/: what is published, what waits for people, what runs, which cameras need attention, and activity.

A camera is silent if its newest picture is SILENT_DAYS older than the newest of all cameras, unless its last deployment
has ended by then. The server's clock does not matter, as cards are collected months later. Doubtful times are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from archive.catalogue.deployments import current
from archive.views.cameras import CameraViews, share
from archive.views.image_filter import ImageFilter
from archive.views.views import Views
from batch.jobs.control import ended_here
from batch.runs.listing import page as runs
from batch.runs.listing import rows_of
from pages.context import Context
from pages.html import page, translator_of
from pages.trap_nights import corrected, deployed_days

NEWEST, BARS, MAX_RUNNING = 8, 30, 5
"""Number of newest images, of bars for labels and cameras, and of running runs."""
MAX_DATES = 100
"""Maximum number of bars for days or months."""
SILENT_DAYS = 7
MIN_FAILED = 0.05
"""Minimum `share` of failed images of a camera that is listed."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attention:
    """Cameras: silent since a day, with a number of doubtful times, with a share of failed images; the worst first."""

    newest: date | None
    silent: tuple[tuple[str, str], ...]
    clocks: tuple[tuple[str, int], ...]
    failing: tuple[tuple[str, float], ...]
    nights: int
    deployments: int


def router(context: Context, cameras: CameraViews) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def overview(request: Request) -> HTMLResponse:
        if context.tables.existing("media") is None:
            return page(request, "start.html")
        t, index = translator_of(request), context.index
        behind_s = ceil(index.state().behind_s)
        counted = [
            (t("images"), {}, ""),
            (t("with detections"), {"status": "ok"}, ""),
            (t("failed"), {"status": "failed"}, "bad"),
            (t("without result"), {"status": "missing"}, "waits"),
            (t("to review"), {"status": "ok", "reviewed": "false"}, "waits"),
        ]
        numbers = [
            (name, index.count(ImageFilter.model_validate(wanted)), wanted, kind) for name, wanted, kind in counted
        ]

        everything, found = ImageFilter(), ImageFilter(status="ok")
        images = index.histogram(everything, "camera")
        failed, missing = (dict(index.histogram(ImageFilter(status=of), "camera")) for of in ("failed", "missing"))
        shares = {name: share(failed.get(name, 0), n - missing.get(name, 0)) for name, n in images if name}
        deployments = [row for (of, _), row in current(context.tables).items() if of == "deployment"]
        seen = cameras.activity()
        ended = ended_here(context.settings, context.tables)
        running = rows_of(context.tables, runs(context.tables, MAX_RUNNING, state="running", ended=ended))
        return page(
            request,
            "overview.html",
            view=Views(context.tables.url).current(),
            numbers=numbers,
            behind_s=behind_s,
            running=running,
            attention=attention(seen, shares, deployments, date.today()),
            newest=index.page(everything, NEWEST).rows,
            hours=({f"{hour:02}": 0 for hour in range(24)} | dict(index.histogram(found, "hour"))).items(),
            dates=by_date(index.histogram(everything, "day"), seen),
            labels=index.histogram(found, "label")[:BARS],
            cameras=[bar for bar in images if bar[0]][:BARS],
        )

    return routes


def by_date(days: Sequence[tuple[str, int]], activity: Sequence[Row] = ()) -> list[tuple[str, int, str]]:
    """Return the images of each day, month or year from the first to the last, also 0, with its last day.

    If `activity` has doubtful times, the days before and after all others are left out.
    """
    known = [str(row[end])[:10] for row in activity for end in ("first_at", "last_at") if row[end]]
    if known and any(row["doubtful"] for row in activity):
        days = [bar for bar in days if min(known) <= bar[0] <= max(known)]
    dated = [date.fromisoformat(day) for day, _ in days if day]
    number = (max(dated) - min(dated)).days + 1 if dated else 0
    every = [str(min(dated) + timedelta(days=n)) for n in range(number)]
    sums, ends = Counter[str](), dict[str, str]()
    for length in (len("2026-05-01"), len("2026-05"), len("2026")):
        ends = {day[:length]: day for day in every}
        if len(ends) <= MAX_DATES:
            break
    for day, n in days:
        sums[day[:length]] += n
    return [(name, sums[name], end) for name, end in ends.items()]


def attention(
    activity: Sequence[Row], failed: Mapping[str, float], deployments: Sequence[Row], today: date
) -> Attention:
    """Return what needs attention. `activity` is of CameraViews, `failed` has shares, `deployments` are valid rows."""
    by_camera: dict[str, list[Row]] = {}
    for row in deployments:
        by_camera.setdefault(row["camera_id"], []).append(row)
    last: dict[str, datetime | None] = {row["camera_id"]: row["last_at"] for row in activity}
    days = {camera: at.date() for camera, at in last.items() if at}
    newest = max((at for at in last.values() if at), default=None)
    return Attention(
        newest=newest and newest.date(),
        silent=tuple(sorted(_silent(last, by_camera, newest), key=lambda found: found[1])),
        clocks=_worst((row["camera_id"], row["doubtful"]) for row in activity if row["doubtful"]),
        failing=_worst(found for found in failed.items() if found[1] >= MIN_FAILED),
        nights=sum(len(deployed_days(rows, days.get(name), today)) for name, rows in by_camera.items()),
        deployments=len(deployments),
    )


def _silent(
    last: Mapping[str, datetime | None], deployments: Mapping[str, Sequence[Row]], newest: datetime | None
) -> Iterable[tuple[str, str]]:
    """Yield each silent camera with the day since which it is silent."""
    if newest is None:
        return

    def at(row: Row, end: str) -> datetime | None:
        return row[end] and corrected(datetime.fromisoformat(row[end]), row["clock_offset_s"])

    for camera in {*last, *deployments}:
        rows = deployments.get(camera, ())
        standing = [row for row in rows if (at(row, "until_local") or datetime.max) > newest]
        if rows and not standing:
            continue
        times = [time for time in (last.get(camera), *(at(row, "from_local") for row in standing)) if time]
        if times and newest - max(times) > timedelta(days=SILENT_DAYS):
            yield camera, str(max(times).date())


def _worst(found: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))
