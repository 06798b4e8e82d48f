"""Build and update the file of an image index: images of one view in page order, as a local DuckDB database.

FOLDER/VIEW/00000007.duckdb --open_newest--> OpenIndex; each file is written once, under a temporary name, then renamed
A file describes its tables: their versions, their ids and the publication. If anything else is there, or it cannot be
read, it counts as missing. Processes that write files of one view take turns (`locked`).
"""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pydantic import ValidationError

from archive.annotations.assertions import HUMAN
from archive.delta.relations import Relations
from archive.delta.scratch_db import LARGE_MIB
from archive.delta.snapshot import added_since, commit_time, has_removed_since
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import TABLES
from archive.views.past import VIEW, PastTables
from archive.views.query import connect, is_of_storage
from archive.views.search import Deadline, view_shown
from archive.views.views import View
from model_store.errors import BadRequest, DeadlinePassed
from model_store.frozen import Frozen
from model_store.storage import absolute
from model_store.storage_errors import storage_error

FORMAT = 2
"""Number of the tables and columns of a file; a file with another number is replaced."""
READ_MIB = 512
BUILD_S = 1800.0
MOST_CHANGED = 50_000
MOST_COMMITS = 2_000
"""Changed images, and commits to one table, above which a new file is built from all rows."""
_FOLLOWED = ("media", "results", "assertions")
_ROWS = Relations(Path(__file__).with_name("image_index.sql"))
_READ = "images results detections standing image_groups"
_FILE = re.compile(r"[0-9]{8}\.duckdb")
_CREATE = """
    create table built.cells as from new_cells order by image_id;
    create table built.found as from new_found order by label, image_id
"""
_REPLACE = """
    delete from built.found where image_id in (
        select image_id from built.cells where media_sha256 in (select media_sha256 from changed));
    delete from built.cells where media_sha256 in (select media_sha256 from changed);
    insert into built.cells by name from new_cells;
    insert into built.found by name from new_found
"""


class Version(Frozen):
    """A snapshot of a table. A table that was created again has another id."""

    table_id: str
    number: int


class About(Frozen):
    """Origin of the rows of a file."""

    file_format: int = FORMAT
    tables: str
    view_name: str
    view: View | None
    versions: dict[str, Version | None]
    built_at: datetime
    images: int = 0

    @property
    def serial(self) -> int:
        """Return the serial of the publication, 0 without one."""
        return self.view.serial if self.view else 0

    @property
    def numbers(self) -> dict[str, int | None]:
        return {name: version and version.number for name, version in self.versions.items()}

    @property
    def version(self) -> str:
        """Return the versions of the tables and the serial as one text; equal texts are of equal rows."""
        numbers = [*self.numbers.values(), self.serial]
        return ".".join("-" if number is None else str(number) for number in numbers)


@dataclass(frozen=True)
class OpenIndex:
    """A file that is open for reading; cursors of `sql` may be used in several threads."""

    file: Path
    about: About
    sql: duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Source:
    """The newest publication and snapshots, as `about` describes them."""

    about: About
    snapshots: Mapping[str, DeltaTable | None]

    def at_versions(self, tables: Tables) -> PastTables:
        return PastTables(tables.url, self.about.numbers | {VIEW: self.about.serial})


def source_of(tables: Tables, view_name: str) -> Source:
    """Return the newest state. Raises BadRequest for an unknown view, StorageUnreachable."""
    view = view_shown(tables, view_name)
    snapshots = {name: tables.existing(name) for name in _FOLLOWED}
    versions = {
        name: table and Version(table_id=str(table.metadata().id), number=table.version())
        for name, table in snapshots.items()
    }
    about = About(
        tables=absolute(tables.url),
        view_name=view_name,
        view=view,
        versions=versions,
        built_at=datetime.now(UTC),
    )
    return Source(about, snapshots)


def behind_since(about: About, source: Source) -> datetime | None:
    """Return the time of the first commit or publication that the file lacks; None if it lacks none."""
    missing: list[datetime] = []
    for name, table in source.snapshots.items():
        had, has = about.versions[name], source.about.versions[name]
        if table is not None and has != had:
            missing.append(commit_time(table, had.number + 1 if had else 0) or about.built_at)
    if source.about.view != about.view:
        missing.append((source.about.view and source.about.view.published_at) or about.built_at)
    return min(missing, default=None)


def changed_images(about: About, source: Source) -> pa.ChunkedArray | None:
    """Return the digests of images with rows that may differ from the file, or None if it must be built again.

    Other images are the same, because each row depends on rows with its digest only, in all relations.
    """
    old, new = about.view, source.about.view
    if (old is None) != (new is None) or (old and new and not new.shows_the_same_as(old)):
        return None
    key, layers = (new.inference_key, new.layers) if new else ("", ())
    digests: list[pa.ChunkedArray] = []
    for name, table in source.snapshots.items():
        had, has = about.versions[name], source.about.versions[name]
        if had == has:
            continue
        if table is None or has is None or (had and had.table_id != has.table_id):
            return None
        since, of_key = had.number if had else -1, key if name == "results" else None
        if not 0 < has.number - since <= MOST_COMMITS:
            return None
        try:
            if has_removed_since(table, of_key, since):
                return None
            rows = added_since(table, TABLES[name], of_key, since)
            wanted = None
            if name == "assertions":
                wanted = (pc.field("method") == HUMAN) | pc.field("layer_id").isin(list(layers))
            digests.append(rows.to_table(["media_sha256"], filter=wanted)["media_sha256"])
        except (OSError, DeltaError, pa.ArrowException):  # a log or file that is no longer kept
            return None
        if sum(map(len, digests)) > 2 * MOST_CHANGED:
            return None
    none = pa.chunked_array([pa.array([], pa.string())])
    changed = pa.chunked_array([*none.chunks, *(c for d in digests for c in d.chunks)]).unique()
    return pa.chunked_array([changed]) if len(changed) <= MOST_CHANGED else None


def updated(tables: Tables, source: Source, folder: Path, old: OpenIndex | None) -> OpenIndex:
    """Return `old` if it has the rows of `source`, else write a file and open it. Call it only within `locked`.

    Only images that newer commits added rows of are computed again, if the logs of the tables list them all.
    Raises DeadlinePassed, StorageFull, StorageUnreachable.
    """
    images = changed_images(old.about, source) if old else None
    if old and images is not None and not len(images):
        return replace(old, about=source.about.model_copy(update={"images": old.about.images}))
    numbers = [int(path.stem) for path in _files(folder)]
    file, temporary = folder / f"{max(numbers, default=0) + 1:08}.duckdb", folder / "new.tmp"
    for left in folder.glob("new.tmp*"):
        left.unlink()
    if old and images is not None:
        shutil.copyfile(old.file, temporary)
    _write(source, source.at_versions(tables), temporary, images)
    temporary.rename(file)
    for path in _files(folder)[:-1]:
        path.unlink(missing_ok=True)
    opened = open_newest(folder, tables, source.about.view_name)
    assert opened, f"{file} was just written"
    return opened


def _write(source: Source, tables: Tables, file: Path, images: pa.ChunkedArray | None) -> None:
    deadline = Deadline(BUILD_S)
    try:
        with (
            connect(tables, source.about.view, images, LARGE_MIB, _READ) as sql,
            deadline.applied_to(sql),
        ):
            sql.execute(f"attach {literal(str(file))} as built")
            first_id = 0
            if images is not None:
                sql.register("changed", pa.table({"media_sha256": images}))
                last = "select coalesce(max(image_id), 0) from built.cells"
                first_id = int(sql.sql(last).fetchall()[0][0])
            sql.execute("set variable first_id = $first", {"first": first_id})
            _ROWS.create(sql, "new_cells", "new_found")
            sql.execute(_CREATE if images is None else _REPLACE)
            count = int(sql.sql("select count(*) from built.cells").fetchall()[0][0])
            text = source.about.model_copy(update={"images": count}).model_dump_json()
            sql.execute(
                "create or replace table built.about as select $text as text", {"text": text}
            )
            sql.execute("detach built")
    except duckdb.InterruptException:
        raise DeadlinePassed(
            f"the index of view {source.about.view_name} was not built within {BUILD_S:g} s: "
            "try again when the machine has less other work"
        ) from None
    except duckdb.OutOfMemoryException as error:
        raise BadRequest(
            f"the index of view {source.about.view_name} needs more memory or room in TMPDIR: {error}"
        ) from error
    except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) or is_of_storage(error):
            raise storage_error(f"build {file.parent} from {tables.url}", error) from error
        raise


def newest_file(folder: Path) -> Path | None:
    return next(reversed(_files(folder)), None)


def open_newest(folder: Path, tables: Tables, view_name: str) -> OpenIndex | None:
    """Return the newest file of these tables and this view; None if there is none, or it is damaged."""
    file = newest_file(folder)
    return _open(file, tables, view_name) if file else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.duckdb") if _FILE.fullmatch(path.name))


def _open(file: Path, tables: Tables, view_name: str) -> OpenIndex | None:
    try:
        sql = duckdb.connect(file, read_only=True)
        sql.execute(f"set memory_limit = '{READ_MIB}MiB'; set enable_external_access = false")
        (text,) = sql.execute("select text from about").fetchall()[0]
        about = About.model_validate_json(text)
    except (duckdb.Error, ValidationError, ValueError, LookupError, TypeError):
        return None
    same = (about.file_format, about.tables, about.view_name)
    if same != (FORMAT, absolute(tables.url), view_name):
        return None
    return OpenIndex(file, about, sql)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock out other processes that write files of this folder, until the block or this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
