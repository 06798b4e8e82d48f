"""What lies in an archive against what `media` knows of it, in a database beside the process.

listing (path, size, content tag) and known rows (path, content tag, missing or not) --SQL--> counts, the
files to read, the rows whose file is gone. Memory does not grow with the number of files (scratch.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.dataset import Scanner

from archive.dataset import dataset
from archive.listing import ArchiveFile
from archive.replace import Replacement
from archive.scan import scan
from archive.schemas import MEDIA
from archive.scratch import scratch, windows
from model_store.storage import is_local

WINDOW_ROWS = 20_000
SAME_FILE = ("source_root", "path")
_TABLES = """
    create table listed (path varchar, size_bytes bigint, content_tag varchar);
    create table known (
        path varchar, content_tag varchar, missing boolean, content ubigint, ingested_at timestamptz)
"""
_KNOWN = """
    insert into known select path, content_tag, missing_since is not null, hash(media_sha256), ingested_at
    from media where source_root = $root
"""
_ROWS_DUE = """
    create table todo as
    select path, size_bytes, listed.content_tag as content_tag, known.path is not null as known
    from listed left join known using (path)
    where $verify or known.path is null or known.missing
        or known.content_tag is distinct from listed.content_tag
    order by 4, 1
"""
_GONE = """
    create or replace table gone as
    select $root as source_root, path, $now::timestamptz as missing_since
    from known anti join listed using (path) where not missing order by path
"""
_MARKED = """
    select affected.* replace (coalesce(affected.missing_since, due.missing_since) as missing_since)
    from affected left join due
        on affected.path = due.path and affected.source_root = due.source_root
"""


@dataclass(frozen=True, slots=True)
class Todo:
    """`files` are to be read; `new` of them have no row in `media`."""

    files: int
    new: int


@contextlib.contextmanager
def difference(root_url: str) -> Iterator[Difference]:
    """For one archive at one time; on leaving, all of it is removed."""
    with scratch("ingest") as sql:
        yield Difference(sql, root_url)


class Difference:
    """Call `list` for every part of the listing and `know` once, then ask. `sql` has room for others."""

    def __init__(self, sql: duckdb.DuckDBPyConnection, root_url: str) -> None:
        self.sql, self._root = sql, root_url
        sql.execute(_TABLES)

    def list(self, files: pa.Table) -> None:
        """Add files of the archive, in the columns of listing.FILES."""
        self.sql.register("files", files)
        self.sql.execute("insert into listed from files")
        self.sql.unregister("files")

    def know(self, media: DeltaTable) -> int:
        """Read what `media` has of this archive; how many rows."""
        if is_local(media.table_uri):
            scan(self.sql, "media", media, MEDIA)
        else:
            columns = [*SAME_FILE, "content_tag", "missing_since", "media_sha256", "ingested_at"]
            self.sql.register("media", _rows(media, self._root, columns).to_reader())
        self.sql.execute(_KNOWN, {"root": self._root})
        return self._count("known")

    def plan(self, verify: bool) -> Todo:
        """What `todo` will give: all that is listed with `verify`, else what is new or changed."""
        self.sql.execute(_ROWS_DUE, {"verify": verify})
        return Todo(self._count("todo"), self._count("todo where not known"))

    def todo(self) -> Iterator[tuple[ArchiveFile, bool]]:
        """New files first, then those with a row (True), each in the order of their paths."""
        for window in windows(self.sql, "todo", WINDOW_ROWS):
            columns = [column.to_pylist() for column in window.columns]
            for path, size_bytes, tag, known in zip(*columns, strict=True):
                yield ArchiveFile(path, size_bytes, tag), known

    def gone(self) -> int:
        """Known rows without a file, those that are marked missing already included."""
        return self._count("known anti join listed using (path)")

    def newly_gone(self, now: datetime) -> int:
        """Rows whose file is gone since the last time; `gone_rows` and `gone_marks` are about these."""
        self.sql.execute(_GONE, {"root": self._root, "now": now})
        return self._count("gone")

    def gone_rows(self, media: DeltaTable) -> Iterator[pa.Table]:
        """Rows of `media` whose file is newly gone, marked."""
        for window in windows(self.sql, "gone", WINDOW_ROWS):
            paths, path = window["path"].combine_chunks(), pc.field("path")
            near = (path >= paths[0]) & (path <= paths[-1])
            found = _rows(media, self._root, MEDIA.names, near & path.isin(paths)).to_table()
            marks = pa.repeat(window["missing_since"][0], len(found))
            place = MEDIA.get_field_index("missing_since")
            yield found.set_column(place, MEDIA.field(place), marks.cast(MEDIA.field(place).type))

    def gone_marks(self) -> Replacement:
        """The same for any number of rows, in one commit; those that are marked by then keep their mark."""
        return Replacement(self.sql, "gone", SAME_FILE, _MARKED)

    def _count(self, relation: str) -> int:
        return int(self.sql.execute(f"select count(*) from {relation}").fetchall()[0][0])


def _rows(
    media: DeltaTable, root_url: str, columns: list[str], more: pc.Expression | None = None
) -> Scanner:
    """Rows of one archive; reads little ahead, where pyarrow would read several files at a time."""
    wanted = pc.field("source_root") == root_url
    return dataset(media, MEDIA).scanner(
        columns=columns,
        filter=wanted if more is None else wanted & more,
        batch_size=32_768,
        batch_readahead=2,
        fragment_readahead=1,
    )
