"""Compare the files of an archive with its rows in `media`, in a scratch database.

listing (path, size, content tag) and catalogued rows (path, content tag, missing or not)
--SQL--> counts, files to read, rows of files that are gone
Memory does not grow with the number of files (archive/delta/scratch_db.py).
"""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

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

from archive.catalogue.absences import WITHHELD
from archive.catalogue.exif import clean_text
from archive.catalogue.listing import VIDEO_EXTENSIONS, ArchiveFile
from archive.catalogue.media import Template
from archive.delta.replace import Replacement
from archive.delta.scratch_db import windows
from archive.delta.snapshot import dataset, scan, storage_errors
from archive.delta.tables import Tables
from archive.schemas import BY_KEY, MEDIA, TABLES
from model_store.storage import is_local

WINDOW_ROWS = 20_000
SAME_FILE = ("source_root", "path")
_TABLES = """
    create table listed (path varchar, size_bytes bigint, content_tag varchar);
    create table known (
        path varchar, content_tag varchar, missing boolean, camera varchar, by_path boolean,
        quick_digest bigint, content ubigint, catalogued_at timestamptz, doubted boolean, file varchar);
    create table arrived (content ubigint);
    create table ended (path varchar);
    create table marked (path varchar)
"""
_KNOWN = """
    insert into known
    select path, content_tag, missing_since is not null, camera_id,
        coalesce(camera_source, 'path') = 'path', quick_digest, hash(media_sha256),
        coalesce(catalogued_at, ingested_at),
        coalesce(finished_at >= ingested_at, finished_at is not null),
        if(clip_sha256 is null, path, left(path, -9))
    from media left join mismatched using (media_sha256) where source_root = $root
"""
_KNOWN_COLUMNS = [
    *("path", "content_tag", "missing_since", "source_root"),
    *("camera_id", "camera_source", "quick_digest", "media_sha256", "ingested_at", "catalogued_at", "clip_sha256"),
]
_NO_MISMATCHES = pa.table(
    {"media_sha256": pa.array([], pa.string()), "finished_at": pa.array([], MEDIA.field("ingested_at").type)}
)
_ROWS_DUE = """
    create table todo as
    with frames as (
        select file as path, list({'path': path, 'digest': quick_digest}) as frames, bool_or(doubted) as doubted
        from known where path <> file group by file)
    select path, size_bytes, listed.content_tag as content_tag, known.path is not null as known,
        case when not known.missing and known.content_tag = listed.content_tag then known.quick_digest end
            as quick_digest,
        known.camera, frames
    from listed left join known using (path) left join frames using (path)
    where $verify or known.path is null or known.missing or known.doubted or frames.doubted
        or known.content_tag is distinct from listed.content_tag
        or $clips and regexp_matches(lower(path), $is_clip)
    order by 4, 1
"""
_IS_CLIP = f"({'|'.join(map(re.escape, VIDEO_EXTENSIONS))})$"
_NAMES = "select distinct regexp_extract(file, $pattern, 1) from known where by_path"
_RENAMED = """
    create or replace table renamed as
    select path, new_camera
    from known semi join listed on known.file = listed.path anti join todo on known.file = todo.path
        join cameras on regexp_extract(file, $pattern, 1) = name
    where by_path and camera is distinct from new_camera order by path
"""
_GONE = """
    create or replace table gone as
    select $root as source_root, path, $now::timestamptz as missing_since
    from {lacking} anti join withheld using (path) anti join marked using (path)
    where not missing order by path
"""
_MOVED = """
    create or replace table gone as
    select $root as source_root, path, $now::timestamptz as missing_since
    from absent where content in (select hash(unnest($digests::varchar[]))) order by path
"""
_MARKED_ONCE = """
    delete from absent where path in (select path from gone);
    insert into marked select path from gone
"""
LACKING = """(
    from known where not exists (from listed where listed.path = known.file) or path in (select path from ended))
"""
"""Rows without a file. That of a frame is its clip, unless the clip has changed and lacks the frame."""
_MARKED = """
    select affected.* replace (coalesce(affected.missing_since, due.missing_since) as missing_since)
    from affected left join due
        on affected.path = due.path and affected.source_root = due.source_root
        and coalesce(affected.ingested_at <= due.missing_since, true)
"""
_COLUMNS = ["media_sha256", "finished_at"]


@dataclass(frozen=True, slots=True)
class Todo:
    """Number of `files` to read; `new` of them have no row in `media`."""

    files: int
    new: int


class FileToRead(NamedTuple):
    """A file to read, and the camera of its row. `quick_digest` is that of a row with the same tag, if not missing."""

    file: ArchiveFile
    has_row: bool
    quick_digest: int | None
    camera: str | None = None
    frames: Sequence[tuple[str, int]] = ()
    """Paths of the catalogued frames of a clip, with the quick digest of the clip that they are of."""


class Difference:
    """Comparison of a listing with `media`: call `list` for each part of the listing and `know` once, then the rest.

    Callers may add their own tables to `sql`, and to `withheld` files that are not gone (absences.py).
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, root_url: str) -> None:
        self.sql, self._root = sql, root_url
        sql.execute(_TABLES)
        sql.execute(WITHHELD)

    def archives(self, media: DeltaTable) -> Sequence[str]:
        """Return the roots of all archives with at least one file that is not missing."""
        scan(self.sql, "catalogue", media, MEDIA)
        rows = self.sql.execute("select distinct source_root from catalogue where missing_since is null")
        return [root for (root,) in rows.fetchall()]

    def list(self, files: pa.Table) -> None:
        """Add files of the archive, in the columns of listing.FILES."""
        self.sql.register("files", files)
        self.sql.execute("insert into listed from files")
        self.sql.unregister("files")

    def load_known(self, media: DeltaTable, mismatched: pa.Table = _NO_MISMATCHES) -> int:
        """Load the rows of this archive from `media`; return their number.

        `mismatched` comes from `mismatches`: files that were not read since then are read again.
        """
        self.sql.register("mismatched", mismatched)
        if is_local(media.table_uri):
            scan(self.sql, "media", media, MEDIA)
        else:
            self.sql.register("media", _rows(media, self._root, _KNOWN_COLUMNS).to_reader())
        self.sql.execute(_KNOWN, {"root": self._root})
        return self._count("known")

    def leave_out_clips(self) -> int:
        """Record all clips and their frames as gone; return the number of their rows."""
        clips = "insert into arrived select content from known where regexp_matches(lower(file), $is_clip)"
        self.sql.execute(clips, {"is_clip": _IS_CLIP})
        return self._count("arrived")

    def plan(self, verify: bool, clips: bool = False) -> Todo:
        """Plan the files to read: new, changed and mismatched ones; all with `verify`, all clips with `clips`."""
        self.sql.execute(_ROWS_DUE, {"verify": verify, "clips": clips, "is_clip": _IS_CLIP})
        return Todo(self._count("todo"), self._count("todo where not known"))

    def todo(self) -> Iterator[FileToRead]:
        """Yield new files first, then those with a row, each in the order of their paths."""
        for window in windows(self.sql, "todo", WINDOW_ROWS):
            columns = [column.to_pylist() for column in window.columns]
            for path, size_bytes, tag, has_row, digest, camera, frames in zip(*columns, strict=True):
                known = tuple((frame["path"], frame["digest"]) for frame in frames or ())
                yield FileToRead(ArchiveFile(path, size_bytes, tag), has_row, digest, camera, known)

    def renamed_rows(self, media: DeltaTable, template: Template) -> Iterator[pa.Table]:
        """Yield rows of unchanged files for which the template gives another camera, with that camera."""
        pattern = {"pattern": f"^(?:{template.pattern.pattern})$"}
        names = [name for (name,) in self.sql.execute(_NAMES, pattern).fetchall()]
        cameras = pa.array([clean_text(template.camera or name) for name in names], pa.string())
        self.sql.register("cameras", pa.table({"name": pa.array(names, pa.string()), "new_camera": cameras}))
        self.sql.execute(_RENAMED, pattern)
        for window in windows(self.sql, "renamed", WINDOW_ROWS):
            rows = _rows(media, self._root, MEDIA.names, _among(window["path"])).to_table()
            cameras = window["new_camera"].take(pc.index_in(rows["path"], window["path"]))
            source = pc.if_else(pc.is_valid(cameras), "path", None)
            for name, values in (("camera_id", cameras), ("camera_source", source)):
                rows = rows.set_column(MEDIA.get_field_index(name), MEDIA.field(name), values)
            yield rows

    def unread_rows(self, media: DeltaTable, paths: Sequence[str]) -> pa.Table:
        """Return the rows of these sorted paths without content tag, so that the next ingest reads the files again."""
        rows = _rows(media, self._root, MEDIA.names, _among(pa.chunked_array([paths], pa.string()))).to_table()
        index = MEDIA.get_field_index("content_tag")
        return rows.set_column(index, MEDIA.field(index), pa.nulls(len(rows), pa.string()))

    def arrive(self, digests: Sequence[str]) -> None:
        """Record the contents of new, changed and restored files: gone files with the same content were moved."""
        self.sql.execute("insert into arrived select hash(unnest($digests::varchar[]))", {"digests": digests})

    def moved_rows(self, media: DeltaTable, digests: Sequence[str], now: datetime) -> Iterator[pa.Table]:
        """Yield the rows of table `absent` (absences.py) with these contents, each once, marked as missing at `now`."""
        self.sql.execute(_MOVED, {"root": self._root, "now": now, "digests": digests})
        if self._count("gone"):
            self.sql.execute(_MARKED_ONCE)
            yield from self.gone_rows(media)

    def end(self, frames: Sequence[str]) -> None:
        """Record paths of catalogued frames that a changed clip lacks: they are gone."""
        self.sql.execute("insert into ended select unnest($paths::varchar[])", {"paths": list(frames)})

    def gone(self) -> int:
        """Return the number of rows without a listed file, including those that are already marked as missing."""
        return self._count(f"{LACKING} anti join withheld using (path)")

    def newly_gone(self, now: datetime) -> int:
        """Select the rows to mark as missing at `now`, for `gone_rows` and `gone_marks`; return their number."""
        self.sql.execute(_GONE.format(lacking=LACKING), {"root": self._root, "now": now})
        return self._count("gone")

    def gone_rows(self, media: DeltaTable) -> Iterator[pa.Table]:
        """Yield the selected rows, marked as missing, except those that were marked or read since."""
        for window in windows(self.sql, "gone", WINDOW_ROWS):
            index = MEDIA.get_field_index("missing_since")
            now = window["missing_since"][0].cast(MEDIA.field(index).type)
            read = pc.field("ingested_at")
            unchanged = pc.field("missing_since").is_null() & (read.is_null() | (read <= now))
            condition = _among(window["path"]) & unchanged
            rows = _rows(media, self._root, MEDIA.names, condition).to_table()
            yield rows.set_column(index, MEDIA.field(index), pa.repeat(now, len(rows)))

    def gone_marks(self) -> Replacement:
        """Return the same change as one commit, for any number of rows."""
        return Replacement(self.sql, "gone", SAME_FILE, _MARKED)

    def _count(self, relation: str) -> int:
        return int(self.sql.execute(f"select count(*) from {relation}").fetchall()[0][0])


def _among(paths: pa.ChunkedArray) -> pc.Expression:
    """Return the condition for rows with one of these sorted paths."""
    path = pc.field("path")
    return (path >= paths[0]) & (path <= paths[-1]) & path.isin(paths.combine_chunks())


def _rows(media: DeltaTable, root_url: str, columns: list[str], more: pc.Expression | None = None) -> Scanner:
    """Return a scanner of one archive's rows that reads one file ahead; pyarrow's default is several."""
    of_archive = pc.field("source_root") == root_url
    return dataset(media, MEDIA).scanner(
        columns=columns,
        filter=of_archive if more is None else of_archive & more,
        batch_size=32_768,
        batch_readahead=2,
        fragment_readahead=1,
    )


def mismatches(tables: Tables) -> pa.Table:
    """Return the images for which a run read other bytes than the catalogue has, one row per image.

    The rows have `media_sha256` and the latest `finished_at` of rows with error `changed` in any table of results. A
    changed file can keep its size and time (`cp -p`, damage on the disk), so a listing cannot detect it.
    Raises StorageUnreachable.
    """
    schema = TABLES["results"]
    parts = [pa.schema([schema.field(name) for name in _COLUMNS]).empty_table()]
    changed = pc.field("error_code") == "changed"
    for name in BY_KEY:
        table = tables.existing(name)
        if table is not None:
            with storage_errors(tables):
                scanner = dataset(table, TABLES[name]).scanner(
                    columns=_COLUMNS, filter=changed, batch_readahead=2, fragment_readahead=1
                )
                parts.append(scanner.to_table())
    latest = pa.concat_tables(parts).group_by("media_sha256").aggregate([("finished_at", "max")])
    return latest.rename_columns(_COLUMNS)
