"""Report detection histories: for each camera and occasion, whether a label was detected, as occupancy models take it.

histories(tables, label, days) -> a row for each camera: 1 detected, 0 not detected, None without effort
Effort is the days of deployments, and the days with pictures. A deployment that is open, or ends after today, ends at
its camera's last picture. A camera without deployments worked from its first picture to its last. A day has no effort
if all its pictures failed or have no result in the view, and no person stated what they show: that is unknown. Days
are by the corrected clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from archive.catalogue.known_names import require_known
from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.views import View
from model_store.errors import BadRequest

MAX_OCCASIONS = 10_000
_DAYS = """
    select camera_id, taken_at::date as day,
        bool_or(media_sha256 in (select media_sha256 from detections where label = $label)) as detected,
        bool_or(coalesce(status, 'failed') <> 'failed' or media_sha256 in (select media_sha256 from standing)) as judged
    from dated join image_deployments using (media_sha256) left join results using (media_sha256)
    where camera_id is not null and taken_at is not null and {only} group by camera_id, day
"""
_PERIODS = """
    select camera_id, corrected(from_local, clock_offset_s)::date,
        if(isfinite(until_local), (corrected(until_local, clock_offset_s) - interval 1 microsecond)::date, null)
    from deployment_periods where {only}
"""
_KNOWN = """
    select {column} from deployments union
    select {column} from images left join image_deployments using (media_sha256) where {column} is not null order by 1
"""
Days = dict[str, set[date]]


def histories(
    tables: Tables,
    label: str,
    days: int = 7,
    since: date | None = None,
    until: date | None = None,
    effort: bool = False,
    view: View | None = None,
    only: Mapping[str, list[str]] | None = None,
) -> list[dict[str, Any]]:
    """Return `camera_id` and the occasions of `days` days, named by their first day, from `since` or the first effort.

    `until` is the last day. With `effort`, cells are days of effort, also 0. `only`: names by `camera_id`,
    `deployment_id` or `location`, which narrow deployments and pictures alike. Raises BadRequest for an unknown name,
    and for occasions of less than a day or more than MAX_OCCASIONS, StorageUnreachable.
    """
    if days < 1:
        raise BadRequest(f"invalid occasion of {days} days: use 1 or more")
    worked, detected = _effort(tables, label, view, only or {})
    within = {
        camera: {day for day in of if (since or day) <= day <= (until or day)} for camera, of in sorted(worked.items())
    }
    every = [day for of in within.values() for day in of]
    if not every:
        return []
    start = since or min(every)
    count = (max(every) - start).days // days + 1
    if count > MAX_OCCASIONS:
        raise BadRequest(f"{count} occasions, more than {MAX_OCCASIONS}: use longer ones (--days) or --since")
    names = [(start + timedelta(days=n * days)).isoformat() for n in range(count)]
    rows: list[dict[str, Any]] = []
    for camera, of in within.items():
        efforts = Counter((day - start).days // days for day in of)
        hits = {(day - start).days // days for day in of & detected[camera]}
        cells = (efforts[n] if effort else int(n in hits) if efforts[n] else None for n in range(count))
        rows.append({"camera_id": camera} | dict(zip(names, cells, strict=True)))
    return rows


def _effort(tables: Tables, label: str, view: View | None, only: Mapping[str, list[str]]) -> tuple[Days, Days]:
    """Return the days of effort, and the days with the label, of each camera."""
    where = " and ".join(["true", *(f"{column} in (select unnest(${column}::varchar[]))" for column in only)])
    with connect(tables, view, statement=_DAYS + _PERIODS) as sql:
        for column, names in only.items():
            known = [name for (name,) in sql.execute(_KNOWN.format(column=column)).fetchall()]
            for name in names:
                require_known(column.removesuffix("_id"), name, known)
        pictured = sql.execute(_DAYS.format(only=where), {"label": label, **only}).fetchall()
        periods = sql.execute(_PERIODS.format(only=where), dict(only)).fetchall()
    pictures, detected, unknown, worked = (defaultdict[str, set[date]](set) for _ in range(4))
    for camera, day, is_detected, is_judged in pictured:
        pictures[camera].add(day)
        detected[camera] |= {day} if is_detected else set()
        unknown[camera] |= set() if is_judged else {day}
    today = date.today()
    for camera, first, last in periods:
        end = last if last and last <= today else max(pictures[camera], default=first)
        worked[camera] |= set(_span(first, min(end, today)))
    deployed = set(worked)
    for camera, days in pictures.items():
        worked[camera] |= days if camera in deployed else set(_span(min(days), max(days)))
        worked[camera] -= unknown[camera]
    return worked, detected


def _span(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
