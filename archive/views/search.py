"""Search images by their results in a view: newest first, one page at a time.

(tables, Wanted) -> Found(images, cursor of the next page)
A page costs one scan of `media` and one of the view's results for its rows. A status, label or score adds one scan of
all results of the view (benchmarks/uploads.py).
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError
from pydantic import ConfigDict, Field, NaiveDatetime, TypeAdapter

from archive.catalogue.local_time import LocalTime
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.query import connect, is_of_storage
from archive.views.views import NAME, PRODUCTION, View, Views
from model_store.errors import BadRequest, DeadlinePassed, StorageUnreachable
from model_store.frozen import Frozen

MOST_IMAGES = 1000
MOST_MARK = 32 * 1024
"""Maximum length of a cursor in characters: enough for a root and a path of 4,096 bytes."""
_MARK = TypeAdapter(tuple[NaiveDatetime | None, str, str], config=ConfigDict(strict=True))
MEMORY_MIB = 1024
LEAST_S = 0.1
_FILES = """
    ($camera is null or camera_id = $camera)
        and ($since is null or captured_at_corrected >= $since)
        and ($until is null or captured_at_corrected < $until)
"""
_PLACED = """
    and media_sha256 in (
        select media_sha256 from image_deployments
        where ($deployment is null or deployment_id = $deployment) and ($location is null or location = $location))
"""
_SHOWN = """
    and media_sha256 in (
        select media_sha256 from detections
        semi join (select media_sha256 from images where {files}) using (media_sha256)
        where ($label is null or label = $label) and ($min_score is null or score >= $min_score::float))
"""
_STATUS = """
    and {negation} media_sha256 in (select media_sha256 from {rows} where {status})
"""
"""Relation `seen` is cheaper than `results`, where the status depends on the shown detections."""
_AFTER = """
    and case when $moment is null then captured_at_corrected is null and (source_root, path) > ($root, $path)
        else captured_at_corrected is null or captured_at_corrected < $moment::timestamp
            or (captured_at_corrected = $moment::timestamp and (source_root, path) > ($root, $path)) end
"""
_PAGE = """
    select media_sha256, source_root, path, camera_id, captured_at_local, captured_at_corrected
    from images where {files} {conditions}
    order by captured_at_corrected desc nulls last, source_root, path
    limit $max_rows
"""
_DETAILS = """
    with counts as (select media_sha256, label, count(*) as n from detections group by all),
    labels as (
        select media_sha256, map_from_entries(list((label, n) order by n desc, label)) as labels
        from counts group by media_sha256)
    select page.*, coalesce(status, 'missing') as status, error_code, error_detail, decode_note,
        coalesce(labels, map {}) as labels
    from page left join results using (media_sha256) left join labels using (media_sha256)
    order by captured_at_corrected desc nulls last, source_root, path
"""


class Wanted(Frozen):
    """Conditions of a search; all must hold. `status` is that of relation `results`, or `missing` without a row.

    `since` and `until` (exclusive) are local camera times after corrections of clocks, without an offset.
    """

    status: Literal["ok", "empty", "failed", "missing"] | None = Field(
        default=None,
        description="ok: the view shows a detection; empty: it shows none; missing: the image has no result",
    )
    camera: str | None = None
    deployment: str | None = Field(default=None, description="id of the image's deployment")
    location: str | None = Field(default=None, description="location of that deployment")
    label: str | None = Field(default=None, description="label of a shown detection")
    min_score: float | None = Field(default=None, ge=0, le=1, description="minimum score of that detection")
    since: LocalTime | None = Field(default=None, description="earliest time taken, by the camera's corrected clock")
    until: LocalTime | None = Field(
        default=None, description="end of the times taken (exclusive), by the camera's corrected clock"
    )
    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    limit: int = Field(default=100, ge=1, le=MOST_IMAGES)
    after: str = Field(default="", max_length=MOST_MARK, description="`next` of the previous page")


class Found(Frozen):
    """One page of images: dicts with the columns of `_DETAILS`, where `labels` counts the shown detections by label.

    `next` is the cursor of the next page, "" at the end.
    """

    view: View | None
    images: list[dict[str, Any]]
    next: str


def find(tables: Tables, wanted: Wanted, within_s: float) -> Found:
    """Return the first page of `wanted`, or the one after `wanted.after`.

    Raises BadRequest, DeadlinePassed, StorageUnreachable.
    """
    view, deadline = view_shown(tables, wanted.view), Deadline(within_s)
    statement, values = _page_query(wanted)
    try:
        with connect(tables, view, memory_mib=MEMORY_MIB, statement=statement) as sql, deadline.applied_to(sql):
            page: pa.Table = sql.sql(statement, params=values).to_arrow_table()
        digests = page.column("media_sha256")
        with connect(tables, view, digests, MEMORY_MIB, _DETAILS) as sql, deadline.applied_to(sql):
            sql.register("page", page)
            images = sql.sql(_DETAILS).to_arrow_table().to_pylist(maps_as_pydicts="strict")
    except duckdb.InterruptException:
        raise DeadlinePassed(f"the search took more than {within_s:g} s: narrow it, or use resight sql") from None
    except duckdb.OutOfMemoryException as error:
        raise BadRequest(f"the search needs more than {MEMORY_MIB} MiB: narrow it, or use resight sql") from error
    except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) or is_of_storage(error):
            raise StorageUnreachable(f"cannot read from {tables.url}: {error}") from error
        raise
    more = len(images) > wanted.limit
    images = images[: wanted.limit]
    return Found(view=view, images=images, next=cursor_of(*place_in(images[-1])) if more else "")


def _page_query(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """Return the statement for a page and one more image, with its values. It reads results only if needed."""
    values: dict[str, Any] = {
        "camera": wanted.camera,
        "since": wanted.since,
        "until": wanted.until,
        "max_rows": wanted.limit + 1,
    }
    conditions = ""
    if wanted.status == "missing":
        conditions += _STATUS.format(negation="not", rows="seen", status="true")
    elif wanted.status is not None:
        rows = "seen" if wanted.status == "failed" else "results"
        conditions += _STATUS.format(negation="", rows=rows, status="status = $status")
        values["status"] = wanted.status
    if wanted.label is not None or wanted.min_score is not None:
        conditions += _SHOWN.format(files=_FILES)
        values |= {"label": wanted.label, "min_score": wanted.min_score}
    if wanted.deployment is not None or wanted.location is not None:
        conditions += _PLACED
        values |= {"deployment": wanted.deployment, "location": wanted.location}
    if wanted.after:
        moment, root, path = place_of(wanted.after)
        conditions += _AFTER
        values |= {"moment": moment, "root": root, "path": path}
    return _PAGE.format(files=_FILES, conditions=conditions), values


def view_shown(tables: Tables, name: str) -> View | None:
    """Return the published view. Raises BadRequest for an unknown name, but returns None without a production view."""
    return Views(tables.url).current() if name == PRODUCTION else view_named(tables, name)


def cursor_of(moment: datetime | None, source_root: str, path: str) -> str:
    """Return the opaque cursor of the place of an image in page order; of other lists, by their time and name."""
    return base64.urlsafe_b64encode(_MARK.dump_json((moment, source_root, path))).decode()


def place_in(image: Mapping[str, Any]) -> tuple[datetime | None, str, str]:
    """Return time, root and path of an image: its place in page order."""
    return image["captured_at_corrected"], image["source_root"], image["path"]


def place_of(cursor: str) -> tuple[datetime | None, str, str]:
    """Return time, root and path of the last image of a page. Raises BadRequest for an invalid cursor."""
    try:
        return _MARK.validate_json(base64.b64decode(cursor, b"-_", validate=True))
    except ValueError as error:  # also of base64 and of pydantic
        raise BadRequest("invalid cursor in `after` or `before`: use the one of another page of this list") from error


class Deadline:
    """Common time limit of several statements."""

    def __init__(self, within_s: float) -> None:
        self._ends_s = time.monotonic() + within_s

    @contextmanager
    def applied_to(self, sql: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt the statements of the block at the deadline, with InterruptException."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise duckdb.InterruptException("the deadline has passed")
        timer = threading.Timer(max(left_s, LEAST_S), sql.interrupt)  # never before it has begun
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
