"""Images of the archive by what a view says of them: the newest first, a page at a time.

(tables, Wanted) -> Found(images, the mark from which the next page goes on)
A page costs a look at `media` and one at the results of the view, whose rows it takes; a status, a label or a score one
more at all of these (benchmarks/uploads.py).
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError
from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, TypeAdapter

from archive.local_time import LocalTime
from archive.publications import view_named
from archive.query import connect, is_of_storage
from archive.tables import Tables
from archive.views import NAME, PRODUCTION, View, Views
from model_store.errors import BadRequest, DeadlinePassed, StorageUnreachable

MOST_IMAGES = 1000
MOST_MARK = 32 * 1024
"""Characters of a mark: a root and a path of 4,096 bytes fit in."""
_MARK = TypeAdapter(tuple[NaiveDatetime | None, str, str], config=ConfigDict(strict=True))
MEMORY_MIB = 1024
LEAST_S = 0.1
_FILES = """
    ($camera is null or camera_id = $camera)
        and ($since is null or captured_at_local >= $since)
        and ($until is null or captured_at_local < $until)
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
"""Rows of `seen` are cheaper than those of `results`, whose status depends on what is shown."""
_AFTER = """
    and case when $moment is null then captured_at_local is null and (source_root, path) > ($root, $path)
        else captured_at_local is null or captured_at_local < $moment::timestamp
            or (captured_at_local = $moment::timestamp and (source_root, path) > ($root, $path)) end
"""
_PAGE = """
    select media_sha256, source_root, path, camera_id, captured_at_local
    from images where {files} {conditions}
    order by captured_at_local desc nulls last, source_root, path
    limit $most
"""
_TOLD = """
    with counts as (select media_sha256, label, count(*) as n from detections group by all),
    labels as (
        select media_sha256, map_from_entries(list((label, n) order by n desc, label)) as labels
        from counts group by media_sha256)
    select page.*, coalesce(status, 'missing') as status, error_code, error_detail, coalesce(labels, map {}) as labels
    from page left join results using (media_sha256) left join labels using (media_sha256)
    order by captured_at_local desc nulls last, source_root, path
"""


class Wanted(BaseModel):
    """All conditions hold at once. `status` is that of relation `results`; `missing` has no row in it.

    `since` and `until` (exclusive) are by the cameras' own clocks, so without an offset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["ok", "empty", "failed", "missing"] | None = Field(
        default=None,
        description="ok: the view shows a detection; empty: none; missing: it has no result",
    )
    camera: str | None = None
    label: str | None = Field(default=None, description="of a detection that is shown")
    min_score: float | None = Field(default=None, ge=0, le=1, description="of that detection")
    since: LocalTime | None = Field(default=None, description="by the camera's own clock")
    until: LocalTime | None = Field(default=None, description="likewise, exclusive")
    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    limit: int = Field(default=100, ge=1, le=MOST_IMAGES)
    after: str = Field(default="", max_length=MOST_MARK, description="`next` of the page before")


class Found(BaseModel):
    """`images` are dicts with the columns of _TOLD; `labels` says how many detections of each label are shown. `next`
    is "" at the end.
    """

    model_config = ConfigDict(frozen=True)

    view: View | None
    images: list[dict[str, Any]]
    next: str


def find(tables: Tables, wanted: Wanted, within_s: float) -> Found:
    """Raises BadRequest, DeadlinePassed, StorageUnreachable."""
    view, clock = _view(tables, wanted.view), _Clock(within_s)
    question, values = _question(wanted)
    try:
        with (
            connect(tables, view, memory_mib=MEMORY_MIB, statement=question) as sql,
            clock.ends(sql),
        ):
            found: pa.Table = sql.sql(question, params=values).to_arrow_table()
        few = found.column("media_sha256")
        with connect(tables, view, few, MEMORY_MIB, _TOLD) as sql, clock.ends(sql):
            sql.register("page", found)
            images = sql.sql(_TOLD).to_arrow_table().to_pylist(maps_as_pydicts="strict")
    except duckdb.InterruptException:
        raise DeadlinePassed(
            f"the images were not found within {within_s:g} s: ask for less, or use resight sql"
        ) from None
    except duckdb.OutOfMemoryException as error:
        raise BadRequest(
            f"this question takes more than {MEMORY_MIB} MiB: ask for less, or use resight sql"
        ) from error
    except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) or is_of_storage(error):
            raise StorageUnreachable(f"cannot read from {tables.url}: {error}") from error
        raise
    more = len(images) > wanted.limit
    images = images[: wanted.limit]
    return Found(view=view, images=images, next=_mark(images[-1]) if more else "")


def _question(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """The statement for a page, and one more image, with its values. Results are read only where they decide."""
    values: dict[str, Any] = {
        "camera": wanted.camera,
        "since": wanted.since,
        "until": wanted.until,
        "most": wanted.limit + 1,
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
    if wanted.after:
        moment, root, path = _marked(wanted.after)
        conditions += _AFTER
        values |= {"moment": moment, "root": root, "path": path}
    return _PAGE.format(files=_FILES, conditions=conditions), values


def _view(tables: Tables, name: str) -> View | None:
    """Nothing need be published as production; another name must be there."""
    return Views(tables.url).current() if name == PRODUCTION else view_named(tables, name)


def _mark(image: dict[str, Any]) -> str:
    moment: datetime | None = image["captured_at_local"]
    return base64.urlsafe_b64encode(
        _MARK.dump_json((moment, image["source_root"], image["path"]))
    ).decode()


def _marked(mark: str) -> tuple[datetime | None, str, str]:
    """Return time, root and path of the last image of a page. Raises BadRequest for an invalid mark."""
    try:
        return _MARK.validate_json(base64.b64decode(mark, b"-_", validate=True))
    except ValueError as error:  # also of base64 and of pydantic
        raise BadRequest("after: this is not the `next` of an answer") from error


class _Clock:
    """Time for all statements of a question together."""

    def __init__(self, within_s: float) -> None:
        self._ends_s = time.monotonic() + within_s

    @contextmanager
    def ends(self, sql: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """The statement in it ends with InterruptException when the time is over."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise duckdb.InterruptException("before it began")
        timer = threading.Timer(max(left_s, LEAST_S), sql.interrupt)  # not before it has begun
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
