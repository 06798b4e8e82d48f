"""Summarise cameras by the images of the production view, at corrected times, and deployments by their cameras' clocks.

CameraViews(tables).cameras() -> one row for each camera, and one for images without a camera
.activity() -> a part of that, without results, in a fifth of the time; .days(camera) -> images by day
.deployments() -> images, first and last picture by deployment
share(failed, seen) -> the part that pages show and compare
Doubtful times (`timestamp_flags`) count in no day, and in a deployment apart, unless it corrects its clock.
The last answers are kept until one of the tables changes.
"""

from __future__ import annotations

import threading
from datetime import date
from typing import Any

from archive.delta.tables import Tables
from archive.views.past import moment_of
from archive.views.query import connect

_CAMERAS = """
    select camera_id, count(*) as images, min(taken_at) as first_at, max(taken_at) as last_at,
        count(distinct taken_at::date) as days, count(*) filter (status = 'failed') as failed,
        count(*) filter (status = 'empty') as empty, count(status) as seen
    from dated left join results using (media_sha256) group by camera_id order by camera_id nulls last
"""
_BY_DAY = """
    with dated as (
        select camera_id, captured_at_local as taken_at, captured_at_local::date as day,
            coalesce(len(timestamp_flags), 0) > 0 as doubtful from images),
    edges as (
        select distinct camera_id, edge::date as day
        from (select camera_id, unnest([from_local, until_local]) as edge from deployments) where edge > edge::date),
    by_day as (
        select camera_id, day, doubtful, min(taken_at) as first_at, max(taken_at) as last_at, count(*) as images
        from dated left join edges using (camera_id, day)
        group by camera_id, day, doubtful, if(edges.day is null, null, taken_at))
"""
"""Images by camera and day. A day in which a deployment begins or ends is split by time; no other row is in two."""
_DEPLOYMENTS = f"""
    {_BY_DAY}, begun as (
        select b.*, if(first_at >= d.until_local, null, d.deployment_id) as deployment_id,
            doubtful and d.clock_offset_s is null as apart
        from by_day b asof join deployments d on b.camera_id = d.camera_id and b.first_at >= d.from_local)
    select deployment_id, coalesce(sum(images) filter (not apart), 0)::bigint as images,
        coalesce(sum(images) filter (apart), 0)::bigint as doubtful,
        coalesce(min(first_at) filter (not apart), min(first_at)) as first_at,
        coalesce(max(last_at) filter (not apart), max(last_at)) as last_at
    from begun where deployment_id is not null group by deployment_id
"""
_ACTIVITY = """
    with by_day as (
        select camera_id, taken_at::date as day, min(taken_at) as first_at, max(taken_at) as last_at,
            count(*) as images, count(*) filter (doubtful) as doubtful
        from dated group by camera_id, day)
    select camera_id, sum(images)::bigint as images, sum(doubtful)::bigint as doubtful, min(first_at) as first_at,
        max(last_at) as last_at, count(day) as days
    from by_day where camera_id is not null group by camera_id order by camera_id
"""
_DAYS = """
    select taken_at::date as day, count(*) as images from dated
    where camera_id = $camera and taken_at is not null group by day
"""
MEMORY_MIB = 1024
KEPT = 64
"""Answers that are kept."""


def share(count: int, seen: int) -> float:
    """Return `count` as a part of the images with a result, `seen`, in steps of 0.1 %; 0 without any."""
    return round(count / seen, 3) if seen else 0.0


class CameraViews:
    """Use one per process; its methods may run in threads. They raise StorageUnreachable."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[object, list[dict[str, Any]]]] = {}

    def cameras(self) -> list[dict[str, Any]]:
        return self._rows(_CAMERAS)

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Return the images of each deployment, and its first and last time as its camera took them."""
        return {row["deployment_id"]: row for row in self._rows(_DEPLOYMENTS)}

    def activity(self) -> list[dict[str, Any]]:
        """Return the images of each camera, those with doubtful times, its first and last, and its days with images."""
        return self._rows(_ACTIVITY)

    def days(self, camera: str) -> dict[date, int]:
        return {row["day"]: row["images"] for row in self._rows(_DAYS, camera)}

    def _rows(self, statement: str, camera: str = "") -> list[dict[str, Any]]:
        if self._tables.existing("media") is None:
            return []
        moment = moment_of(self._tables)
        with self._lock:  # the same question at the same time is answered once
            kept = self._kept.get((statement, camera))
            if kept is None or kept[0] != moment:
                values = {"camera": camera} if camera else None
                with connect(self._tables, memory_mib=MEMORY_MIB, statement=statement) as sql:
                    kept = moment, sql.sql(statement, params=values).to_arrow_table().to_pylist()
                self._kept = dict(list(self._kept.items())[-KEPT:]) | {(statement, camera): kept}
            return kept[1]
