"""Search images by their results in a view: newest first, one page at a time.

(tables, ImageSearch) -> SearchPage(images, cursor of the next page)
A page costs one scan of `media` and one of the view's results for its rows; a status, label or score adds one scan of
all results of the view. `archive/views/indexed_search.py` reads them from a file.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import duckdb
import pyarrow as pa
from pydantic import ConfigDict, Field, NaiveDatetime, TypeAdapter

from archive.catalogue.known_names import require_known
from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.image_filter import Conditions, parameterised
from archive.views.publications import view_named
from archive.views.query import bounded, connect
from archive.views.views import NAME, PRODUCTION, View, Views
from model_store.errors import BadRequest
from model_store.frozen import Frozen

P = TypeVar("P", covariant=True)
Limit = Callable[[duckdb.DuckDBPyConnection], AbstractContextManager[None]]
MOST_IMAGES = 1000
MOST_MARK = 32 * 1024
"""Maximum length of a cursor in characters: enough for a root and a path of 4,096 bytes."""
_MARK = TypeAdapter(tuple[NaiveDatetime | None, str, str], config=ConfigDict(strict=True))
MEMORY_MIB = 1024
_AFTER = """
    case when $moment is null then captured_at_corrected is null and (source_root, path) > ($root, $path)
        else captured_at_corrected is null or captured_at_corrected < $moment::timestamp
            or (captured_at_corrected = $moment::timestamp and (source_root, path) > ($root, $path)) end
"""
_PAGE = """
    select media_sha256, source_root, path, camera_id, captured_at_local, captured_at_corrected
    from images where {conditions}
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

_NAMES = {
    "camera": "select camera_id from media union select camera_id from deployments order by 1",
    "deployment": "select deployment_id from deployments order by 1",
    "location": "select distinct location from deployments order by 1",
}
"""Names that the catalogue has, by condition."""


class Search(Protocol[P]):
    """A query of the tables with its parameters, which a host runs where it reads them."""

    def answer(self, tables: Tables, within_s: float) -> P:
        """Return the answer. Raises BadRequest, DeadlinePassed, StorageUnreachable."""
        ...


class ImageSearch(Conditions):
    """Conditions of a search, and the part of its images to return."""

    view: str = Field(default=PRODUCTION, json_schema_extra={"pattern": f"^{NAME.pattern}$"})
    limit: int = Field(default=100, ge=1, le=MOST_IMAGES)
    after: str = Field(default="", max_length=MOST_MARK, description="`next` of the previous page")

    def answer(self, tables: Tables, within_s: float) -> SearchPage:
        """Return the page. Raises as `find`."""
        return find(tables, self, within_s)


class SearchPage(Frozen):
    """One page of images: dicts with the columns of `_DETAILS`, where `labels` counts the shown detections by label.

    `next` is the cursor of the next page, "" at the end.
    """

    view: View | None
    images: list[dict[str, Any]]
    next: str


def find(tables: Tables, wanted: ImageSearch, within_s: float) -> SearchPage:
    """Return the first page of `wanted`, or the one after `wanted.after`.

    Raises BadRequest, also if nothing is found and the archive lacks the camera, deployment or location. Raises
    DeadlinePassed, StorageUnreachable.
    """
    view, limit = view_shown(tables, wanted.view), in_time(within_s)
    images = matching(tables, view, wanted, limit)
    if not images:
        require_names(tables, view, wanted, limit)
    return page_of(view, images, wanted.limit)


def in_time(within_s: float) -> Limit:
    """Return a time limit from now on for the statements of a search."""
    hint = "narrow it, or use resight sql"
    return partial(bounded, within_s=within_s, name="the search", hint=hint, since_s=time.monotonic())


def matching(
    tables: Tables, view: View | None, wanted: ImageSearch, limit: Limit, images: pa.ChunkedArray | None = None
) -> list[dict[str, Any]]:
    """Return the images of a page and the one after it, as `SearchPage.images`; of `images` (digests), if given."""
    statement, values = _page_query(wanted)
    how: dict[str, Any] = {"memory_mib": MEMORY_MIB, "scans": True} if images is None else {"images": images}
    with storage_errors(tables):
        used = statement if images is None else statement + _DETAILS
        with connect(tables, view, statement=used, **how) as sql, limit(sql):
            page: pa.Table = sql.sql(statement, params=values).to_arrow_table()
            if images is not None:
                return _detailed(sql, page)
        with connect(tables, view, page.column("media_sha256"), statement=_DETAILS) as sql, limit(sql):
            return _detailed(sql, page)


def _detailed(sql: duckdb.DuckDBPyConnection, page: pa.Table) -> list[dict[str, Any]]:
    sql.register("page", page)
    return sql.sql(_DETAILS).to_arrow_table().to_pylist(maps_as_pydicts="strict")


def require_names(tables: Tables, view: View | None, wanted: ImageSearch, limit: Limit) -> None:
    """Raise BadRequest if the archive lacks the camera, deployment or location of a search."""
    for kind, names in _NAMES.items():
        if name := getattr(wanted, kind):
            with (
                storage_errors(tables),
                connect(tables, view, memory_mib=MEMORY_MIB, statement=names) as sql,
                limit(sql),
            ):
                require_known(kind, name, [str(row[0]) for row in sql.execute(names).fetchall() if row[0]])


def page_of(view: View | None, images: list[dict[str, Any]], limit: int) -> SearchPage:
    """Return the first `limit` images, and a cursor if there are more."""
    more = len(images) > limit
    return SearchPage(view=view, images=images[:limit], next=cursor_of(*place_in(images[limit - 1])) if more else "")


def _page_query(wanted: ImageSearch) -> tuple[str, dict[str, Any]]:
    """Return the statement for a page and one more image, with its values. It reads results only if needed."""
    matching, values = parameterised(wanted)
    conditions = [matching or "true"]
    if wanted.after:
        moment, root, path = place_of(wanted.after)
        conditions.append(_AFTER)
        values |= {"moment": moment, "root": root, "path": path}
    statement = _PAGE.format(conditions=" and ".join(conditions))
    return statement, values | {"max_rows": wanted.limit + 1}


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
