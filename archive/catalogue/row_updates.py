"""Add rows of new files, and collect updated rows until a commit pays; write each unless a newer one is stored.

A commit of updates rewrites the files of `media` that contain those rows: all of them, if the updates are spread.
The next commit therefore waits until reading has taken PATIENCE times as long as the last commit. Commits take at
most a tenth of the time, and an ingest that is killed loses no more reading than that.
If two processes write the row of one file, the one that read the file last wins, even if it commits first.
"""

from __future__ import annotations

import time

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.catalogue.diff import SAME_FILE
from archive.delta.replace import MANY_ROWS, Replacement
from archive.delta.snapshot import dataset, memory_database
from archive.delta.writer import Writer, without_values
from archive.schemas import MEDIA

PATIENCE = 10
OBSERVED = ("ingested_at", "missing_since")
"""Times at which a row was observed to be true; the latest counts."""


def _is_newer(one: str, other: str) -> str:
    """Return the SQL condition that a row was observed after another one of its file."""
    times = (f"greatest({', '.join(f'{row}.{name}' for name in OBSERVED)})" for row in (one, other))
    return "coalesce({} > coalesce({}, 'epoch'), false)".format(*times)


_KEEPS = f"due.path is null or {_is_newer('affected', 'due')}"
_STATE = f"""
    select affected.* replace ({", ".join(f"if({_KEEPS}, affected.{n}, due.{n}) as {n}" for n in MEDIA.names)})
    from affected full join due on affected.source_root = due.source_root and affected.path = due.path
"""
_NOT_OLDER = f"select wanted.* from wanted left join stored using (path) where not {_is_newer('stored', 'wanted')}"
_CHANGED = f"""
    select wanted.* replace (if(wanted.media_sha256 = stored.media_sha256,
        coalesce(stored.catalogued_at, stored.ingested_at), wanted.catalogued_at) as catalogued_at)
    from wanted join stored using (path)
    where (stored.missing_since is not null or stored.content_tag is distinct from wanted.content_tag)
        and not {_is_newer("stored", "wanted")}
"""
"""Rows of files that are stored with another content tag, or as missing. One with the same bytes keeps its place."""
_KEEP_FIRST = """
    update changed set catalogued_at = known.catalogued_at from known
    where known.path = changed.path and known.content = hash(changed.media_sha256)
        and known.catalogued_at is not null
"""
"""A file that was read again with the same bytes remains the image of its content (`archive/catalogue/images.py`)."""


class Changes:
    """Pending updates of one archive, in relation `changed` of `sql`; at most one row per file between two commits."""

    def __init__(self, writer: Writer, sql: duckdb.DuckDBPyConnection) -> None:
        self._writer, self._sql = writer, sql
        self._rows = 0
        self._read_since_s = time.monotonic()
        self._last_took_s = 0.0
        self._clear()

    def add(self, rows: pa.Table) -> None:
        """Add rows of `media` in their new state."""
        self._sql.register("more", rows)
        self._sql.execute("insert into changed from more")
        self._sql.unregister("more")
        self._rows += len(rows)

    def due(self) -> bool:
        """Return whether a commit pays now."""
        reading_s = time.monotonic() - self._read_since_s
        return bool(self._rows) and reading_s >= PATIENCE * self._last_took_s

    def commit(self) -> None:
        """Commit the rows added since the last commit."""
        if not self._rows:
            return
        started_s = time.monotonic()
        self._sql.execute(_KEEP_FIRST)
        if self._rows > MANY_ROWS and self._has_all_columns():
            self._writer.replace(Replacement(self._sql, "changed", SAME_FILE, _STATE))
        else:  # few rows, or a table that lacks a column, which this adds
            replace_some(self._writer, self._sql.sql("from changed").to_arrow_table().cast(MEDIA))
        self._clear()
        self._read_since_s = time.monotonic()
        self._last_took_s = self._read_since_s - started_s

    def _has_all_columns(self) -> bool:
        return set(MEDIA.names) <= {field.name for field in self._writer.newest().schema().fields}

    def _clear(self) -> None:
        self._sql.register("more", MEDIA.empty_table())
        self._sql.execute("create or replace table changed as from more")
        self._sql.unregister("more")
        self._rows = 0


def add_files(writer: Writer, rows: pa.Table) -> None:
    """Add `rows` of `media`, of the archive root of the writer, each path once.

    An existing row is replaced if it is older, and either has another content tag or is marked as missing.
    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    newer = rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal newer
        stored = files_there(snapshot, writer.key, wanted)
        newer = _rows_of(_CHANGED, wanted, stored)
        return without_values(wanted, "path", stored)

    writer.append(rows, missing)
    if len(newer):
        replace_some(writer, newer)


def replace_some(writer: Writer, rows: pa.Table) -> None:
    """Replace the rows of the writer's archive that have the same paths and are not newer.

    One commit takes a few thousand rows. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """

    def not_newer(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        return _rows_of(_NOT_OLDER, wanted, files_there(snapshot, writer.key, wanted))

    writer.append(rows, not_newer, replace=SAME_FILE)


def files_there(snapshot: DeltaTable, root_url: str, wanted: pa.Table) -> pa.Table:
    """Return path, content and times of this archive's rows that have a path of `wanted`."""
    paths = wanted["path"].combine_chunks()
    path, ends = pc.field("path"), pc.min_max(paths).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    in_range = (pc.field("source_root") == root_url) & (path >= ends["min"]) & (path <= ends["max"])
    columns = ["path", "content_tag", "media_sha256", "catalogued_at", *OBSERVED]
    return dataset(snapshot, MEDIA).to_table(columns=columns, filter=in_range & path.isin(paths))


def _rows_of(query: str, wanted: pa.Table, stored: pa.Table) -> pa.Table:
    with memory_database() as sql:
        sql.register("wanted", wanted)
        sql.register("stored", stored)
        return sql.sql(query).to_arrow_table().cast(wanted.schema)
