"""Summarise cameras and deployments by the images of the production view; times are by the cameras' own clocks.

CameraViews(tables).cameras() -> one row for each camera, and one for images without a camera
.deployments() -> images, first and last picture by deployment; .days(camera) -> images by day
Doubtful times (`timestamp_flags`) count in no day. The last answers are kept until one of the tables changes.
"""

from __future__ import annotations

import threading
from datetime import date
from typing import Any

from archive.delta.tables import Tables
from archive.views.past import moment_of
from archive.views.query import connect

_CAMERAS = """
    with dated as (
        select *, if(coalesce(len(timestamp_flags), 0) = 0, captured_at_local, null) as taken_at from images)
    select camera_id, count(*) as images, min(taken_at) as first_at, max(taken_at) as last_at,
        count(distinct taken_at::date) as days, count(*) filter (status = 'failed') as failed,
        count(*) filter (status = 'empty') as empty, count(status) as seen
    from dated left join results using (media_sha256) group by camera_id order by camera_id nulls last
"""
_DEPLOYMENTS = """
    select deployment_id, count(*) as images, min(captured_at_local) as first_at, max(captured_at_local) as last_at
    from image_deployments join images using (media_sha256) where deployment_id is not null group by deployment_id
"""
_DAYS = """
    select captured_at_local::date as day, count(*) as images from images
    where camera_id = $camera and captured_at_local is not null and coalesce(len(timestamp_flags), 0) = 0
    group by day
"""
MEMORY_MIB = 1024
KEPT = 64
"""Answers that are kept."""


class CameraViews:
    """Use one per process; its methods may run in threads. They raise StorageUnreachable."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[object, list[dict[str, Any]]]] = {}

    def cameras(self) -> list[dict[str, Any]]:
        return self._rows(_CAMERAS)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {row["deployment_id"]: row for row in self._rows(_DEPLOYMENTS)}

    def days(self, camera: str) -> dict[date, int]:
        return {row["day"]: row["images"] for row in self._rows(_DAYS, camera)}

    def _rows(self, statement: str, camera: str = "") -> list[dict[str, Any]]:
        if self._tables.existing("media") is None:
            return []
        table = self._tables.existing("deployments")
        moment = (moment_of(self._tables), table.version() if table else None)
        with self._lock:  # the same question at the same time is answered once
            kept = self._kept.get((statement, camera))
            if kept is None or kept[0] != moment:
                self._kept = dict(list(self._kept.items())[-KEPT:])
                kept = moment, self._query(statement, camera)
                self._kept[statement, camera] = kept
            return kept[1]

    def _query(self, statement: str, camera: str) -> list[dict[str, Any]]:
        values = {"camera": camera} if camera else None
        with connect(self._tables, memory_mib=MEMORY_MIB, statement=statement) as sql:
            return sql.sql(statement, params=values).to_arrow_table().to_pylist()
