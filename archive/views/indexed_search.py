"""Search images as `archive/views/search.py`, but read what an index has from its file: milliseconds, not seconds.

The file of the page (`archive/views/image_index_file.py`) may be behind the tables. Images with newer rows are left out
of its part, and searched for in the tables alone; the page is the first of both. Without a file, or if too many images
changed since it was written, the tables have the whole page.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.image_index import beside
from archive.views.image_index_file import changed_images, open_newest, source_of
from archive.views.search import ImageSearch, SearchPage, find, in_time, matching, page_of, place_of, require_names

MOST_COMMITS = 100
"""Newer commits to a table above which the tables are searched: each costs two files to read, on S3 two requests."""
_PAGE = """
    with matching as (
        select image_id from {rows} where {conditions} order by moment desc, source_root, path limit $most),
    page as (
        select cells.* from cells join matching using (image_id) anti join changed using (media_sha256)
        order by moment desc, source_root, path limit $max_rows),
    counts as (
        select image_id, label, count(*) as n from boxes semi join page using (image_id) where is_shown group by all),
    labels as (
        select image_id, map_from_entries(list((label, n) order by n desc, label)) as labels
        from counts group by image_id)
    select media_sha256, source_root, path, camera_id, captured_at_local,
        nullif(moment, '-infinity') as captured_at_corrected, status, error_code, error_detail, decode_note,
        coalesce(labels, map {{}}) as labels
    from page join details using (image_id) left join labels using (image_id)
"""


class IndexedSearch(ImageSearch):
    """A search that reads the newest file of the view in `folder`, if there is one."""

    folder: str

    def answer(self, tables: Tables, within_s: float) -> SearchPage:
        """Return the page that `find` returns. Raises as `find`."""
        limit, source = in_time(within_s), source_of(tables, self.view)
        opened = open_newest(Path(self.folder) / self.view, tables, self.view)
        changed = changed_images(opened.about, source, MOST_COMMITS) if opened else None
        if opened is None or changed is None:
            return find(tables, self, within_s)
        try:
            with opened.sql as sql, limit(sql):
                images = _in_file(sql, self, changed)
        except duckdb.Error:  # the file is damaged
            return find(tables, self, within_s)
        if len(changed):
            images += matching(tables, source.about.view, self, limit, changed)
        if not images:
            require_names(tables, source.about.view, self, limit)
        images.sort(key=lambda image: (image["source_root"], image["path"]))
        images.sort(key=_moment, reverse=True)
        return page_of(source.about.view, images[: self.limit + 1], self.limit)


def _in_file(sql: duckdb.DuckDBPyConnection, wanted: ImageSearch, changed: pa.ChunkedArray) -> list[dict[str, Any]]:
    """Return the images of the page and the one after it that the file has, except `changed` ones."""
    rows, values = beside(wanted, place_of(wanted.after) if wanted.after else None, back=False)
    values |= {"max_rows": wanted.limit + 1, "most": wanted.limit + 1 + len(changed)}
    sql.register("changed", pa.table({"media_sha256": changed}))
    return sql.sql(_PAGE.format(**rows), params=values).to_arrow_table().to_pylist(maps_as_pydicts="strict")


def _moment(image: dict[str, Any]) -> tuple[bool, datetime]:
    moment: datetime | None = image["captured_at_corrected"]
    return moment is not None, moment or datetime.min
