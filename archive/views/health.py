"""Summarise the state of the archive and its cameras for alerts (batch/runs/metrics.py).

(tables, published view, now) -> Health: images by result, and by camera for at most `max_cameras` cameras.
For each camera it counts images and blank images of the last 7 days, and of the 28 days before, by its corrected clock.
Scans only the needed columns, three times; Python holds one row per camera.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from archive.catalogue.images import PRESENT, images_of
from archive.defaults import MAX_CAMERAS
from archive.delta.result_columns import shows_nothing
from archive.delta.scratch_db import Scratch
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS
from archive.views.clocks import with_times
from archive.views.views import View
from model_store.errors import StorageUnreachable

RECENT_DAYS, BEFORE_DAYS = 7, 28
NO_CAMERA, OTHERS = "(none)", "(others)"
MAX_NAME_CHARS = 200
"""Maximum length of a reported camera name: an EXIF serial number can have any length."""
MEMORY_MIB = 2048


@dataclass(frozen=True, slots=True)
class Period:
    """Counts of distinct `images` in a period; `seen` have a result in the view that did not fail.

    `blank` are those of `seen` without a detection at the view's thresholds.
    """

    images: int
    seen: int
    blank: int


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """One camera, all files without a camera name, or the sum of the cameras left out.

    `newest_taken_at` ignores undated files, and doubtful clocks that no deployment corrects; a clock without an offset
    is read with that of `now`.
    """

    name: str
    files: int
    undated_files: int
    clock_fault_files: int
    newest_taken_at: datetime | None
    newest_ingested_at: datetime
    recent: Period
    before: Period


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of files that are not missing. `results` counts distinct images by ok, failed and none (no result).

    `left_out` cameras are summed in one row, OTHERS.
    """

    files: int
    results: dict[str, int]
    cameras: tuple[CameraHealth, ...]
    left_out: int

    @property
    def images(self) -> int:
        return sum(self.results.values())


def health(tables: Tables, view: View | None, now: datetime, max_cameras: int = MAX_CAMERAS) -> Health:
    """Return the health at `now`, the time zone of which applies to clocks without an offset.

    Without a view, no image counts as seen. Raises StorageUnreachable, also without a table `media`, as on an
    unmounted share.
    """
    media = tables.existing("media")
    if media is None:
        raise tables.nothing_here()
    results = tables.existing("results") if view else None
    try:
        with contextlib.closing(Scratch("health", MEMORY_MIB, in_order=False)) as database:
            sql = database.sql
            scan(sql, "media", media, MEDIA)
            scan(sql, "results", results, RESULTS, view.inference_key if view else None)
            return _health(sql, tables, view, now, max_cameras)
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(f"cannot read the tables in {tables.url}: {error}") from error


_FILES = """
    create temp view {name} as
    select media_sha256, left(coalesce(camera_id, getvariable('no_camera')), {chars}) as camera,
        ingested_at::timestamp as ingested_at, captured_at_local is null as undated,
        captured_at_corrected::timestamp - captured_at_local::timestamp as correction,
        coalesce(len(timestamp_flags), 0) > 0 and coalesce(correction = interval 0 second, true) as doubtful,
        case when undated or doubtful then null
            else coalesce(captured_at_utc::timestamp + correction,
                captured_at_corrected::timestamp - getvariable('utc_offset')) end as taken_at
    from {rows}
"""
_RESULTS = """
    with contents as (select distinct hash(media_sha256) as content from files),
        seen as (select hash(media_sha256) as content, status from results)
    select coalesce(status, 'none'), count(*) from contents left join seen using (content) group by all
"""  # 64-bit hashes of 10^8 contents: a collision, which loses one, has a probability of 1 in 4,000
_RECENT = """
    create temp table recent as
    select camera, media_sha256, taken_at > getvariable('since') as is_recent
    from images where taken_at > getvariable('before_since')
"""
_SEEN = """
    create temp table seen as
    select media_sha256, {blank} as is_blank
    from results semi join recent using (media_sha256) where status <> 'failed'
"""
_CAMERAS = """
    with whole as (
        select camera, count(*) as files, count(*) filter (undated) as undated_files,
            count(*) filter (doubtful) as doubtful_files, max(taken_at) as newest, max(ingested_at) as ingested
        from files group by camera),
    periods as (
        select camera,
            count(*) filter (is_recent) as recent,
            count(is_blank) filter (is_recent) as recent_seen,
            count(*) filter (is_recent and is_blank) as recent_blank,
            count(*) filter (not is_recent) as before,
            count(is_blank) filter (not is_recent) as before_seen,
            count(*) filter (not is_recent and is_blank) as before_blank
        from recent left join seen using (media_sha256) group by camera),
    placed as (
        from whole left join periods using (camera) select *, row_number() over (
            order by coalesce(recent + before, 0) desc, ingested desc, camera) as place)
    select if(place > $max_cameras, $others, camera) as name,
        sum(files), sum(undated_files), sum(doubtful_files), max(newest), max(ingested),
        sum(coalesce(recent, 0)), sum(coalesce(recent_seen, 0)), sum(coalesce(recent_blank, 0)),
        sum(coalesce(before, 0)), sum(coalesce(before_seen, 0)), sum(coalesce(before_blank, 0)),
        count(*) filter (place > $max_cameras)
    from placed group by name order by name
"""


def _health(
    sql: duckdb.DuckDBPyConnection, tables: Tables, view: View | None, now: datetime, max_cameras: int
) -> Health:
    utc = now.astimezone(UTC).replace(tzinfo=None)
    since = utc - timedelta(days=RECENT_DAYS)
    variables = {
        "no_camera": NO_CAMERA,
        "utc_offset": now.utcoffset(),
        "since": since,
        "before_since": since - timedelta(days=BEFORE_DAYS),
    }
    for name, value in variables.items():
        sql.execute(f"set variable {name} = $value", {"value": value})
    present = f"(from media where {PRESENT})"
    for name, source in (("files", present), ("images", images_of("media"))):
        rows = with_times(sql, tables, source)
        sql.execute(_FILES.format(name=name, chars=MAX_NAME_CHARS, rows=rows))
    sql.execute(_RECENT)
    blank = shows_nothing(view.threshold, view.label_thresholds) if view else "true"
    sql.execute(_SEEN.format(blank=blank))
    rows = sql.execute(_CAMERAS, {"max_cameras": max_cameras, "others": OTHERS}).fetchall()
    return Health(
        files=sum(int(row[1]) for row in rows),
        results={status: int(images) for status, images in sql.execute(_RESULTS).fetchall()},
        cameras=tuple(map(_camera, rows)),
        left_out=sum(int(row[12]) for row in rows),
    )


def _camera(row: tuple) -> CameraHealth:  # type: ignore[type-arg]
    counts = [int(count) for count in row[6:12]]
    return CameraHealth(
        name=row[0],
        files=int(row[1]),
        undated_files=int(row[2]),
        clock_fault_files=int(row[3]),
        newest_taken_at=row[4].replace(tzinfo=UTC) if row[4] else None,
        newest_ingested_at=row[5].replace(tzinfo=UTC),
        recent=Period(*counts[:3]),
        before=Period(*counts[3:]),
    )
