"""List the events of a view from its index of images, and rank images by what two versions disagree about.

events(index, ImageFilter(camera="north"), 50) -> EventPage(events, next), the latest first
disagreeing(index, tables, ImageFilter(), second, 500) -> digests, those with the most differing labels first
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from archive.delta.tables import Tables
from archive.views.image_filter import ImageFilter, selected
from archive.views.image_index import ImageIndex
from archive.views.image_index_file import About
from archive.views.query import connect
from archive.views.search import cursor_of, place_of, view_shown
from archive.views.views import View
from model_store.frozen import Frozen

_PAGE = """
    with page as (
        select event_id, max(moment) as latest from {rows} where event_id is not null and {conditions}
        group by event_id having {after} order by latest desc, event_id desc limit $most),
    counts as (select event_id, label, max(n) as n from found semi join page using (event_id) group by all),
    labels as (
        select event_id, map_from_entries(list((label, n) order by n desc, label)) as max_n
        from counts group by event_id)
    select event_id, min(camera_id) as camera_id, min(nullif(moment, '-infinity')) as start_local,
        max(nullif(moment, '-infinity')) as end_local, count(*) as images, count(*) filter (reviewed) as reviewed,
        coalesce(any_value(max_n), map {{}}) as max_n, nullif(latest, '-infinity') as latest
    from cells join page using (event_id) left join labels using (event_id)
    group by event_id, page.latest order by page.latest desc, event_id desc
"""
_AFTER = "(max(moment), event_id) < (coalesce($at::timestamp, '-infinity'::timestamp), $id)"
_SECOND = """
    select media_sha256, label from results left join detections using (media_sha256)
    where status <> 'failed' group by all
"""
_DISAGREEING = """
    with chosen as (
        select image_id, media_sha256, moment, status from cells
        semi join (select image_id from {rows} where {conditions}) using (image_id)),
    compared as (from chosen semi join second using (media_sha256) where status in ('ok', 'empty')),
    labels as (
        select image_id, label from found semi join compared using (image_id) union all
        select image_id, label from second join compared using (media_sha256) where label is not null),
    of_one as (select image_id from labels group by image_id, label having count(*) = 1),
    differing as (select image_id, count(*) as n from of_one group by image_id)
    select media_sha256 from chosen left join differing using (image_id)
    order by n desc nulls last, moment desc, image_id limit $most
"""


class Event(Frozen):
    """Images of one camera that a layer of events puts together, with the maximum number of boxes by label (MaxN)."""

    event_id: str
    camera_id: str | None
    start_local: datetime | None
    end_local: datetime | None
    images: int
    reviewed: int = Field(description="images about which a statement of a person is valid")
    max_n: dict[str, int]


class EventPage(Frozen):
    """Events with a matching image, the latest first; `next` is the cursor of the next page, "" at the end."""

    events: tuple[Event, ...]
    next: str


def events(index: ImageIndex, wanted: ImageFilter, limit: int, after: str = "") -> EventPage:
    """Return one page of events. Raises BadRequest for an invalid cursor, and as `ImageIndex`."""
    rows, values = selected(wanted)
    values |= {"most": limit + 1}
    if after:
        at, _, event_id = place_of(after)
        values |= {"at": at, "id": event_id}
    statement = _PAGE.format(after=_AFTER if after else "true", **rows)

    def read(sql: duckdb.DuckDBPyConnection, _: About) -> list[dict[str, Any]]:
        found = sql.sql(statement, params=values).to_arrow_table()
        return found.to_pylist(maps_as_pydicts="strict")

    found = index.read(wanted.view, read)
    fields = Event.model_fields
    page = tuple(Event(**{name: row[name] for name in fields}) for row in found[:limit])
    last = found[limit - 1] if len(found) > limit else None
    return EventPage(events=page, next=cursor_of(last["latest"], "", last["event_id"]) if last else "")


def disagreeing(index: ImageIndex, tables: Tables, wanted: ImageFilter, second: View, limit: int) -> list[str]:
    """Return the digests of matching images, ranked by the number of labels that only one version shows.

    The second version is shown with the thresholds of the filter's view. Images without a result of both come last.
    """
    first = view_shown(tables, wanted.view)
    if first:
        limits = {name: getattr(first, name) for name in ("threshold", "label_thresholds")}
        second = second.model_copy(update=limits)
    with connect(tables, second, statement=_SECOND) as sql:
        labels: pa.Table = sql.sql(_SECOND).to_arrow_table()
    rows, values = selected(wanted)
    statement = _DISAGREEING.format(**rows)

    def read(sql: duckdb.DuckDBPyConnection, _: About) -> list[str]:
        sql.register("second", labels)
        ranked = sql.sql(statement, params=values | {"most": limit}).to_arrow_table()
        return list(ranked["media_sha256"].to_pylist())

    return index.read(wanted.view, read)
