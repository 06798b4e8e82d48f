"""Rows of files that have a row already: held back until a commit pays, and written if none is newer.

A commit of changed rows writes anew the files of `media` that they are in: all of them, where the changes are
spread. So the next one waits until reading has taken PATIENCE times as long as the last one took. However
many files have changed, no more than a tenth of the time goes into commits, and no more reading than that
is lost where an ingest is killed.
Of two processes that write the row of one file, the one that read the file last wins, even if it commits first.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.dataset import dataset
from archive.difference import SAME_FILE
from archive.replace import MANY_ROWS, Replacement, replace_many
from archive.schemas import MEDIA
from archive.tables import Tables

PATIENCE = 10
OBSERVED = ("ingested_at", "missing_since")
"""When a row was true: at the last of these times."""
_NEWER = "due.path is null or {} > {}".format(
    *(
        f"greatest({', '.join(f'{side}.{name}' for name in OBSERVED)})"
        for side in ("affected", "due")
    )
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
        self._sql.execute(_KEEP_FIRST)
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
    """Put rows of one archive in place of those with the same paths that are not newer; base: `Tables.append`.

    One commit takes a few thousand. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """

    def not_newer(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        return without_older(wanted, files_there(snapshot, root_url, wanted))

    return tables.append("media", rows, writer_of(root_url), not_newer, base, replace=SAME_FILE)


def files_there(snapshot: DeltaTable, root_url: str, wanted: pa.Table) -> pa.Table:
    """Return path, content and times of the rows that have a path of `wanted` in this archive."""
    paths = wanted["path"].combine_chunks()
    path, ends = pc.field("path"), pc.min_max(paths).as_py()
    near = (pc.field("source_root") == root_url) & (path >= ends["min"]) & (path <= ends["max"])
    columns = ["path", "content_tag", "media_sha256", "catalogued_at", *OBSERVED]
    return dataset(snapshot, MEDIA).to_table(columns=columns, filter=near & path.isin(paths))


def without_older(wanted: pa.Table, there: pa.Table) -> pa.Table:
    """Return the rows of `wanted` without those of which `there` has a newer one."""
    latest = dict(zip(there["path"].to_pylist(), _observed(there), strict=True))
    times = zip(_observed(wanted), wanted["path"].to_pylist(), strict=True)
    return wanted.filter(pa.array([latest.get(path, at) <= at for at, path in times], pa.bool_()))


def _observed(rows: pa.Table) -> Sequence[int]:
    """Return when each row was true, in µs since 1970; 0 for a row without a time."""
    times = (rows[name].cast(pa.int64()) for name in OBSERVED)
    return pc.fill_null(pc.max_element_wise(*times), 0).to_pylist()


def writer_of(root_url: str) -> str:
    """Return the app transaction of all that write rows of one archive."""
    return f"media:{root_url}"
