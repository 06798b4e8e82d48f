"""Add rows of new files, and collect updated rows until a commit pays; write each unless a newer one is stored.

Ingest and uploads both add files.

A commit of updates rewrites the files of `media` that contain those rows: all of them, if the updates are spread.
The next commit therefore waits until reading has taken PATIENCE times as long as the last commit. Commits take at
most a tenth of the time, and an ingest that is killed loses no more reading than that.
If two processes write the row of one file, the one that read the file last wins, even if it commits first.
"""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.catalogue.diff import SAME_FILE
from archive.delta.append import with_values, without_values
from archive.delta.replace import MANY_ROWS, Replacement
from archive.delta.snapshot import dataset
from archive.delta.writer import Writer
from archive.schemas import MEDIA

PATIENCE = 10
OBSERVED = ("ingested_at", "missing_since")
"""Times at which a row was observed to be true; the latest counts."""
_NEWER = "due.path is null or {} > {}".format(
    *(f"greatest({', '.join(f'{side}.{name}' for name in OBSERVED)})" for side in ("affected", "due"))
)
_STATE = f"""
    select affected.* replace ({", ".join(f"if({_NEWER}, affected.{n}, due.{n}) as {n}" for n in MEDIA.names)})
    from affected full join due on affected.source_root = due.source_root and affected.path = due.path
"""

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
        newer = _as_catalogued(without_older(_changed(wanted, stored), stored), stored)
        return without_values(wanted, "path", stored)

    writer.append(rows, missing)
    if len(newer):
        replace_some(writer, newer)


def replace_some(writer: Writer, rows: pa.Table) -> None:
    """Replace the rows of the writer's archive that have the same paths and are not newer.

    One commit takes a few thousand rows. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """

    def not_newer(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        return without_older(wanted, files_there(snapshot, writer.key, wanted))

    writer.append(rows, not_newer, replace=SAME_FILE)


def files_there(snapshot: DeltaTable, root_url: str, wanted: pa.Table) -> pa.Table:
    """Return path, content and times of this archive's rows that have a path of `wanted`."""
    paths = wanted["path"].combine_chunks()
    path, ends = pc.field("path"), pc.min_max(paths).as_py()
    in_range = (pc.field("source_root") == root_url) & (path >= ends["min"]) & (path <= ends["max"])
    columns = ["path", "content_tag", "media_sha256", "catalogued_at", *OBSERVED]
    return dataset(snapshot, MEDIA).to_table(columns=columns, filter=in_range & path.isin(paths))


def without_older(wanted: pa.Table, stored: pa.Table) -> pa.Table:
    """Return the rows of `wanted` for which `stored` has no newer one."""
    latest = dict(zip(stored["path"].to_pylist(), _observed(stored), strict=True))
    times = zip(_observed(wanted), wanted["path"].to_pylist(), strict=True)
    return wanted.filter(pa.array([latest.get(path, at) <= at for at, path in times], pa.bool_()))


def _observed(rows: pa.Table) -> Sequence[int]:
    """Return the time at which each row was last true, in µs since 1970; 0 for a row without a time."""
    times = (rows[name].cast(pa.int64()) for name in OBSERVED)
    return pc.fill_null(pc.max_element_wise(*times), 0).to_pylist()


def _changed(wanted: pa.Table, stored: pa.Table) -> pa.Table:
    """Return the rows of files that `stored` has with another content tag, or marked as missing."""
    same = stored.filter(pc.is_null(stored["missing_since"])).select(["path", "content_tag"])
    files = set(zip(*same.to_pydict().values(), strict=True))
    given = zip(wanted["path"].to_pylist(), wanted["content_tag"].to_pylist(), strict=True)
    changed = wanted.filter(pa.array([file not in files for file in given], pa.bool_()))
    return with_values(changed, "path", stored)


def _as_catalogued(rows: pa.Table, stored: pa.Table) -> pa.Table:
    """Return `rows` with the `catalogued_at` of stored rows that have the same path and bytes."""
    index = rows.schema.get_field_index("catalogued_at")
    times = pc.coalesce(stored["catalogued_at"], stored["ingested_at"]).to_pylist()
    first = dict(zip(_contents(stored), times, strict=True))
    kept = map(first.get, _contents(rows), rows["catalogued_at"].to_pylist())
    return rows.set_column(index, rows.field(index), pa.array(kept, rows.field(index).type))


def _contents(rows: pa.Table) -> list[tuple[str, str]]:
    columns = (rows[name].to_pylist() for name in ("path", "media_sha256"))
    return list(zip(*columns, strict=True))
