"""Rows of files that have a row already, held back until a commit of them pays.

A commit of changed rows writes anew the files of `media` that they are in: all of them, where the changes are
spread. So the next one waits until reading has taken PATIENCE times as long as the last one took. However
many files have changed, no more than a tenth of the time goes into commits, and no more reading than that
is lost where an ingest is killed.
"""

from __future__ import annotations

import time

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.difference import SAME_FILE
from archive.replace import MANY_ROWS, Replacement, replace_many
from archive.schemas import MEDIA
from archive.tables import Tables

PATIENCE = 10
_STATE = """
    from affected anti join due using (source_root, path) union all by name from due
"""

_KEEP_TIME = """
    update changed set ingested_at = known.ingested_at from known
    where known.path = changed.path and known.content = hash(changed.media_sha256)
        and known.ingested_at is not null
"""
"""A file that was read again with the same bytes stays the image of its content (`archive/images.py`)."""


class Changes:
    """Of one archive, in a relation `changed` of `sql`; at most one row a file between two commits."""

    def __init__(self, tables: Tables, root_url: str, sql: duckdb.DuckDBPyConnection) -> None:
        self._tables, self._root, self._sql = tables, root_url, sql
        self._rows = 0
        self._read_since_s = time.monotonic()
        self._last_took_s = 0.0
        self._clear()

    def add(self, rows: pa.Table) -> None:
        """Rows of `media`, as they shall be."""
        self._sql.register("more", rows)
        self._sql.execute("insert into changed from more")
        self._sql.unregister("more")
        self._rows += len(rows)

    def due(self) -> bool:
        """Whether to commit now."""
        reading_s = time.monotonic() - self._read_since_s
        return bool(self._rows) and reading_s >= PATIENCE * self._last_took_s

    def commit(self, base: DeltaTable) -> DeltaTable:
        """All that was added since the last commit. `base` and what is returned: as in `Tables.append`."""
        if not self._rows:
            return base
        started_s = time.monotonic()
        self._sql.execute(_KEEP_TIME)
        if self._rows > MANY_ROWS and set(MEDIA.names) <= {f.name for f in base.schema().fields}:
            what = Replacement(self._sql, "changed", SAME_FILE, _STATE)
            base = replace_many(self._tables, "media", writer_of(self._root), what)
        else:  # few, or the table is older than a column, which it gains so
            rows = self._sql.sql("from changed").to_arrow_table().cast(MEDIA)
            base = replace_some(self._tables, self._root, rows, base)
        self._clear()
        self._read_since_s = time.monotonic()
        self._last_took_s = self._read_since_s - started_s
        return base

    def _clear(self) -> None:
        self._sql.register("more", MEDIA.empty_table())
        self._sql.execute("create or replace table changed as from more")
        self._sql.unregister("more")
        self._rows = 0


def replace_some(tables: Tables, root_url: str, rows: pa.Table, base: DeltaTable) -> DeltaTable:
    """Rows of one archive in place of those with the same paths, a few thousand in a commit."""
    return tables.append(
        "media",
        rows,
        writer_of(root_url),
        lambda _, wanted: wanted,
        base,
        replace=SAME_FILE,
    )


def writer_of(root_url: str) -> str:
    """The app transaction of all who write rows of one archive."""
    return f"media:{root_url}"
