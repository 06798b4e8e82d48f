"""Images of the archive by what a view says of them: the newest first, a page at a time.

(tables, Wanted) -> Found(images, the mark from which the next page goes on)
A page costs what its conditions leave: a camera or a time leaves few; a label alone is looked for in all detections.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from archive.publications import view_named
from archive.query import connect, is_of_storage
from archive.tables import Tables
from archive.views import NAME, PRODUCTION, View, Views
from model_store.errors import BadRequest, DeadlinePassed, StorageUnreachable

MOST_IMAGES = 1000
MEMORY_MIB = 1024
_MOMENT = "%Y-%m-%dT%H:%M:%S.%f"
_SHOWN = """
    media_sha256 in (
        select media_sha256 from detections
        where ($label is null or label = $label) and score >= coalesce($min_score, 0)::float)
"""
_AFTER = """
    case when $moment is null then captured_at_local is null and (source_root, path) > ($root, $path)
        else captured_at_local is null or captured_at_local < $moment::timestamp
            or (captured_at_local = $moment::timestamp and (source_root, path) > ($root, $path)) end
"""
_PAGE = """
    create temp table page as
    select media_sha256, source_root, path, camera_id, captured_at_local,
        coalesce(status, 'missing') as status, error_code, error_detail
    from media left join (select media_sha256, status, error_code, error_detail from results) using (media_sha256)
    where missing_since is null
        and ($camera is null or camera_id = $camera)
        and ($since is null or captured_at_local >= $since)
        and ($until is null or captured_at_local < $until)
        and ($status is null or coalesce(status, 'missing') = $status)
        and {shown} and {after}
    order by captured_at_local desc nulls last, source_root, path
    limit $most
"""
_LABELS = """
    with boxes as (
        select distinct media_sha256, rank, label from detections
        where media_sha256 in (select media_sha256 from page)),
    counts as (select media_sha256, label, count(*) as n from boxes group by all),
    labels as (
        select media_sha256, map_from_entries(list((label, n) order by n desc, label)) as labels
        from counts group by media_sha256)
    select page.*, coalesce(labels, map {{}}) as labels from page left join labels using (media_sha256)
    order by captured_at_local desc nulls last, source_root, path
"""


LocalTime = Annotated[
    datetime,
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$"}),
]
"""Without an offset, which `date-time` of JSON Schema asks for."""


class Wanted(BaseModel):
    """All conditions hold at once. `status` is that of the results which the view shows: `missing` has none.

    `since` and `until` (exclusive) are by the cameras' own clocks, so without an offset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["ok", "empty", "failed", "missing"] | None = Field(
        default=None, description="of the result that the view shows; missing: it has none"
    )
    camera: str | None = None
    label: str | None = Field(default=None, description="of a detection that is shown")
    min_score: float | None = Field(default=None, ge=0, le=1, description="of that detection")
    since: LocalTime | None = Field(default=None, description="by the camera's own clock")
    until: LocalTime | None = Field(default=None, description="likewise, exclusive")
    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    limit: int = Field(default=100, ge=1, le=MOST_IMAGES)
    after: str = Field(default="", description="`next` of the page before")


class Found(BaseModel):
    """`images` are dicts of `page` and `labels` (label to number of detections shown). `next` is "" at the end."""

    model_config = ConfigDict(frozen=True)

    view: View | None
    images: list[dict[str, Any]]
    next: str


def find(tables: Tables, wanted: Wanted, within_s: float) -> Found:
    """Raises BadRequest, DeadlinePassed, StorageUnreachable."""
    view = _view(tables, wanted.view)
    values = {
        "camera": wanted.camera,
        "since": _local(wanted.since),
        "until": _local(wanted.until),
        "status": wanted.status,
        "most": wanted.limit + 1,
    }
    shown = after = "true"
    if wanted.label is not None or wanted.min_score is not None:
        shown, values = _SHOWN, values | {"label": wanted.label, "min_score": wanted.min_score}
    if wanted.after:
        moment, root, path = _marked(wanted.after)
        after, values = _AFTER, values | {"moment": moment, "root": root, "path": path}
    try:
        with _interrupted(connect(tables, view), within_s) as sql:
            sql.execute(f"set threads = 1; set memory_limit = '{MEMORY_MIB}MiB'")
            sql.execute(_PAGE.format(shown=shown, after=after), values)
            found = sql.sql(_LABELS.format()).to_arrow_table().to_pylist(maps_as_pydicts="strict")
    except duckdb.InterruptException:
        raise DeadlinePassed(
            f"the images were not found within {within_s:g} s: ask for a camera or a time besides"
        ) from None
    except duckdb.Error as error:
        if is_of_storage(error):
            raise StorageUnreachable(f"cannot read from {tables.url}: {error}") from error
        raise
    more = len(found) > wanted.limit
    images = found[: wanted.limit]
    return Found(view=view, images=images, next=_mark(images[-1]) if more else "")


def _view(tables: Tables, name: str) -> View | None:
    """Nothing need be published as production; another name must be there."""
    return Views(tables.url).current() if name == PRODUCTION else view_named(tables, name)


def _local(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is not None:
        raise BadRequest(
            f"{moment.isoformat()} has an offset: times are those of the cameras' own clocks, write them without"
        )
    return moment


def _mark(image: dict[str, Any]) -> str:
    moment: datetime | None = image["captured_at_local"]
    parts = [moment and moment.strftime(_MOMENT), image["source_root"], image["path"]]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _marked(mark: str) -> tuple[str | None, str, str]:
    """Raises BadRequest for what is no mark of ours."""
    try:
        moment, root, path = json.loads(base64.urlsafe_b64decode(mark))
        if moment is not None:
            datetime.strptime(moment, _MOMENT)
        return moment, str(root), str(path)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadRequest("after: this is no `next` of an answer") from error


@contextmanager
def _interrupted(
    sql: duckdb.DuckDBPyConnection, within_s: float
) -> Iterator[duckdb.DuckDBPyConnection]:
    timer = threading.Timer(within_s, sql.interrupt)
    timer.start()
    try:
        with sql:
            yield sql
    finally:
        timer.cancel()
