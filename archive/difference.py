"""Compare the files of an archive with its rows in `media`, in a database beside the process.

listing (path, size, content tag) and known rows (path, content tag, missing or not) --SQL--> counts, the
files to read, the rows whose file is gone. Memory does not grow with the number of files (scratch.py).
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.dataset import Scanner

from archive.absences import WITHHELD, withhold
from archive.dataset import dataset
from archive.listing import ArchiveFile, Gap
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
        path varchar, content_tag varchar, missing boolean, camera varchar, by_path boolean,
        quick_digest bigint, content ubigint, catalogued_at timestamptz, doubted boolean);
    create table arrived (content ubigint)
"""
_KNOWN = """
    insert into known
    select path, content_tag, missing_since is not null, camera_id,
        camera_source is distinct from 'exif_serial', quick_digest, hash(media_sha256),
        coalesce(catalogued_at, ingested_at),
        coalesce(finished_at >= ingested_at, finished_at is not null)
    from media left join mismatched using (media_sha256) where source_root = $root
"""
_KNOWN_COLUMNS = [
    *("path", "content_tag", "missing_since", "source_root"),
    *("camera_id", "camera_source", "quick_digest", "media_sha256", "ingested_at", "catalogued_at"),
]
_NO_MISMATCHES = pa.table(
    {
        "media_sha256": pa.array([], pa.string()),
        "finished_at": pa.array([], MEDIA.field("ingested_at").type),
    }
)
_ROWS_DUE = """
    create table todo as
    select path, size_bytes, listed.content_tag as content_tag, known.path is not null as known,
        case when not known.missing and known.content_tag = listed.content_tag then known.quick_digest end
            as quick_digest
    from listed left join known using (path)
    where $verify or known.path is null or known.missing or known.doubted
        or known.content_tag is distinct from listed.content_tag
    order by 4, 1
"""
_RENAMED = """
    create or replace table renamed as
    select path, nullif(regexp_extract(path, $pattern, 1), '') as new_camera
    from known semi join listed using (path) anti join todo using (path)
    where by_path and camera is distinct from new_camera order by path
"""
_GONE = """
    create or replace table gone as
    select $root as source_root, path, $now::timestamptz as missing_since
    from known anti join listed using (path) anti join withheld using (path)
    where not missing order by path
"""
_MARKED = """
    select affected.* replace (coalesce(affected.missing_since, due.missing_since) as missing_since)
    from affected left join due
        on affected.path = due.path and affected.source_root = due.source_root
        and coalesce(affected.ingested_at <= due.missing_since, true)
"""


@dataclass(frozen=True, slots=True)
class Todo:
    """`files` are to be read; `new` of them have no row in `media`."""

    files: int
    new: int


class Due(NamedTuple):
    """A file to read. `quick_digest` is that of its row when neither size and time nor the ETag say that it changed."""

    file: ArchiveFile
    has_row: bool
    quick_digest: int | None


@contextlib.contextmanager
def difference(root_url: str) -> Iterator[Difference]:
    """For one archive at one time; on leaving, all of it is removed."""
    with scratch("ingest") as sql:
        yield Difference(sql, root_url)


class Difference:
    """Call `list` for every part of the listing and `know` once, then the rest. `sql` has room for others."""

    def __init__(self, sql: duckdb.DuckDBPyConnection, root_url: str) -> None:
        self.sql, self._root = sql, root_url
        sql.execute(_TABLES)
        sql.execute(WITHHELD)

    def archives(self, media: DeltaTable) -> Sequence[str]:
        """Return the roots of all archives that have a file which is there."""
        scan(self.sql, "catalogue", media, MEDIA)
        found = self.sql.execute(
            "select distinct source_root from catalogue where missing_since is null"
        )
        return [root for (root,) in found.fetchall()]

    def list(self, files: pa.Table) -> None:
        """Add files of the archive, in the columns of listing.FILES."""
        self.sql.register("files", files)
        self.sql.execute("insert into listed from files")
        self.sql.unregister("files")

    def know(self, media: DeltaTable, mismatched: pa.Table = _NO_MISMATCHES) -> int:
        """Read the rows that `media` has of this archive; return their number.

        `mismatched` is that of archive/mismatches.py: files that were not read since are to be read again.
        """
        self.sql.register("mismatched", mismatched)
        if is_local(media.table_uri):
            scan(self.sql, "media", media, MEDIA)
        else:
            self.sql.register("media", _rows(media, self._root, _KNOWN_COLUMNS).to_reader())
        self.sql.execute(_KNOWN, {"root": self._root})
        return self._count("known")

    def plan(self, verify: bool) -> Todo:
        """Return the size of `todo`: all that is listed with `verify`, else what is new, changed or doubted."""
        self.sql.execute(_ROWS_DUE, {"verify": verify})
        return Todo(self._count("todo"), self._count("todo where not known"))

    def todo(self) -> Iterator[Due]:
        """Return new files first, then those with a row, each in the order of their paths."""
        for window in windows(self.sql, "todo", WINDOW_ROWS):
            columns = [column.to_pylist() for column in window.columns]
            for path, size_bytes, tag, known, digest in zip(*columns, strict=True):
                yield Due(ArchiveFile(path, size_bytes, tag), known, digest)

    def renamed_rows(self, media: DeltaTable, template: re.Pattern[str]) -> Iterator[pa.Table]:
        """Yield rows of unchanged files that the template gives another camera, with that camera."""
        self.sql.execute(_RENAMED, {"pattern": f"^(?:{template.pattern})$"})
        for window in windows(self.sql, "renamed", WINDOW_ROWS):
            rows = _rows(media, self._root, MEDIA.names, _among(window["path"])).to_table()
            cameras = window["new_camera"].take(pc.index_in(rows["path"], window["path"]))
            source = pc.if_else(pc.is_valid(cameras), "path", None)
            for name, values in (("camera_id", cameras), ("camera_source", source)):
                rows = rows.set_column(MEDIA.get_field_index(name), MEDIA.field(name), values)
            yield rows

    def arrive(self, digests: Sequence[str]) -> None:
        """Record the contents of files that are new, changed or back: files that had them were moved there."""
        self.sql.register("digests", pa.table({"digest": pa.array(digests, pa.string())}))
        self.sql.execute("insert into arrived select hash(digest) from digests")
        self.sql.unregister("digests")

    def withhold(self, gaps: Sequence[Gap], believe: bool) -> dict[str, int]:
        """Leave out of `gone` and all that follows what archive/absences.py withholds, which returns the same."""
        return withhold(self.sql, gaps, believe)

    def gone(self) -> int:
        """Return the number of known rows without a file, including those that are marked missing already."""
        return self._count("known anti join listed using (path) anti join withheld using (path)")

    def newly_gone(self, now: datetime) -> int:
        """Count rows whose file was not listed at `now`; `gone_rows` and `gone_marks` are about these."""
        self.sql.execute(_GONE, {"root": self._root, "now": now})
        return self._count("gone")

    def gone_rows(self, media: DeltaTable) -> Iterator[pa.Table]:
        """Yield rows of `media` whose file is newly gone, marked; without those that were marked or read since."""
        for window in windows(self.sql, "gone", WINDOW_ROWS):
            place = MEDIA.get_field_index("missing_since")
            now = window["missing_since"][0].cast(MEDIA.field(place).type)
            read = pc.field("ingested_at")
            as_known = pc.field("missing_since").is_null() & (read.is_null() | (read <= now))
            same = _among(window["path"]) & as_known
            found = _rows(media, self._root, MEDIA.names, same).to_table()
            yield found.set_column(place, MEDIA.field(place), pa.repeat(now, len(found)))

    def gone_marks(self) -> Replacement:
        """Return the same for any number of rows, in one commit; a row that was marked or read since stays."""
        return Replacement(self.sql, "gone", SAME_FILE, _MARKED)

    def _count(self, relation: str) -> int:
        return int(self.sql.execute(f"select count(*) from {relation}").fetchall()[0][0])


def _among(paths: pa.ChunkedArray) -> pc.Expression:
    """Return the condition of rows with one of these paths, which are sorted."""
    path = pc.field("path")
    return (path >= paths[0]) & (path <= paths[-1]) & path.isin(paths.combine_chunks())


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
