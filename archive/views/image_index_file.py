"""Build and update the file of an image index: images of one view in page order, as a local DuckDB database.

FOLDER/VIEW/NUMBER.duckdb --open_newest--> OpenIndex; each file is written once, under a temporary name, then renamed.
A file describes its tables: their versions, their ids and the publication. If anything else is there, or it cannot be
read, it counts as missing. Processes that write files of one view take turns (`locked`).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.dataset import Dataset

from archive.annotations.assertions import HUMAN
from archive.delta.relations import Relations
from archive.delta.scratch_db import MEMORY_MIB, create_lists, windows
from archive.delta.snapshot import added_since, commit_time, dataset, has_removed_since, is_of_storage
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import TABLES
from archive.views.past import VIEW, PastTables
from archive.views.query import bounded, connect
from archive.views.search import view_shown
from archive.views.views import View
from model_store.errors import StorageUnreachable
from model_store.frozen import Frozen
from model_store.storage import absolute
from model_store.storage_errors import storage_error

FORMAT = 8
"""Number of the tables and columns of a file; a file with another number is replaced."""
READ_MIB = 512
WAITING_MIB = 128
"""Memory of the database that has the digests in page order while rows are written."""
BUILD_S = 1800.0
"""Time limit for the rows of `MOST_AT_ONCE` images."""
MOST_AT_ONCE = 1_000_000
"""Images of which rows are written at once: lists and joins of more need more than `MEMORY_MIB`."""
_HINT = "try again when the machine has less other work"
MOST_CHANGED, MOST_COMMITS = 50_000, 2_000
"""Changed images, and commits to one table, above which a new file is built from all rows."""
_FOLLOWED = ("media", "results", "assertions", "deployments")
_ROWS = Relations(Path(__file__).with_name("image_index.sql"))
READ = (
    "images media seen is_shown resolved_detections added standing flags assertion_rows image_groups image_deployments"
)
_CELLS = """
    create table if not exists built.cells (
        image_id bigint not null, media_sha256 varchar using compression uncompressed, moment timestamp,
        captured_at_local timestamp, deployment_id varchar, location varchar,
        source_root varchar, path varchar using compression uncompressed, camera_id varchar,
        width_px integer, height_px integer, status varchar, reviewed boolean, flagged boolean, n_boxes integer,
        top_label varchar, top_score float, uncertain_score float, event_id varchar using compression uncompressed,
        boxes struct(label varchar, x1 float, y1 float, x2 float, y2 float, is_human boolean)[]
            using compression uncompressed)
"""
"""Values that differ in most rows are not compressed: reading some rows would decode many others."""
_FIRST_ID = "(select coalesce(max(image_id), 0) from built.cells)"
_PARTS = ("details", "boxes", "statements", "files")
"""Tables of a file except `cells` and `found`."""
_CREATE = [f"create table if not exists built.{n} as from new_{n} limit 0" for n in ("found", *_PARTS)]
_OF_CHOSEN = "from built.cells where media_sha256 in (select media_sha256 from chosen_images)"
_DELETE = [f"delete from built.{n} where image_id in (select image_id {_OF_CHOSEN})" for n in ("found", *_PARTS)]
_DELETE += [f"delete {_OF_CHOSEN}"]
_INSERT = [f"insert into built.{n} by name from new_{n} order by image_id" for n in ("cells", *_PARTS)]
_INSERT += ["insert into built.found by name from new_found order by label, image_id"]
_PAGE_ORDER = "coalesce(captured_at_corrected, '-infinity'::timestamp) desc, source_root, path"
"""Order of relation `numbered`, which numbers the images of one part."""


class About(Frozen):
    """Origin of the rows of a file. `versions` has the lineage and the version of each table.

    A table that was created again, or continued from a restored backup, has another lineage.
    """

    file_format: int = FORMAT
    tables: str
    view_name: str
    view: View | None
    versions: dict[str, tuple[str, int] | None]
    built_at: datetime
    images: int = 0

    @property
    def serial(self) -> int:
        return self.view.serial if self.view else 0

    @property
    def numbers(self) -> dict[str, int | None]:
        return {name: version and version[1] for name, version in self.versions.items()}

    @property
    def index_version(self) -> str:
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
    """The newest publication and snapshots, and a description of them."""

    about: About
    snapshots: Mapping[str, DeltaTable | None]


def source_of(tables: Tables, view_name: str) -> Source:
    """Return the newest state. Raises BadRequest for an unknown view, StorageUnreachable."""
    view, now = view_shown(tables, view_name), datetime.now(UTC)
    snapshots = {name: tables.existing(name) for name in _FOLLOWED}
    versions = {name: table and _lineage(table, table.version()) for name, table in snapshots.items()}
    url, fields = absolute(tables.url), {"view_name": view_name, "view": view, "built_at": now}
    return Source(About.model_validate({"tables": url, "versions": versions, **fields}), snapshots)


def _lineage(table: DeltaTable, version: int) -> tuple[str, int]:
    """Return the id of the table with the time at which it had a version, and that version."""
    return f"{table.metadata().id} {commit_time(table, version)}", version


def behind_since(about: About, source: Source) -> datetime | None:
    """Return the time of the first commit or publication that the file lacks; None if it lacks none."""
    missing: list[datetime] = []
    for name, table in source.snapshots.items():
        had = about.versions[name]
        if table is not None and source.about.versions[name] != had:
            missing.append(commit_time(table, had[1] + 1 if had else 0) or about.built_at)
    if source.about.view != about.view:
        missing.append((source.about.view and source.about.view.published_at) or about.built_at)
    return min(missing, default=None)


def changed_images(about: About, source: Source, most_commits: int = MOST_COMMITS) -> pa.ChunkedArray | None:
    """Return the digests of images with rows that may differ from the file, or None if it must be built again.

    Also returns None if a table has more than `most_commits` newer commits. Other images are the same, because each row
    depends on rows with its digest only, in all relations.
    """
    old, new = about.view, source.about.view
    if (old is None) != (new is None) or (old and new and not new.shows_the_same_as(old)):
        return None
    digests, layers = (pa.chunked_array([], pa.string()), pa.array(new.layers if new else (), pa.string()))
    is_used = (pc.field("method") == HUMAN) | pc.field("layer_id").isin(layers)
    for name, table in source.snapshots.items():
        if source.about.versions[name] == about.versions[name]:
            continue
        had = about.versions[name]
        version = had[1] if had else -1
        if table is None or (had and _lineage(table, version) != had):
            return None
        if not version < table.version() <= version + most_commits:
            return None
        key = (new.inference_key if new else "") if name == "results" else None
        try:
            if has_removed_since(table, key, version):
                return None
            rows = added_since(table, TABLES[name], key, version)
            if name == "deployments":
                found = _images_of(rows, source.snapshots)
            else:
                used = is_used if name == "assertions" else None
                found = rows.to_table(["media_sha256"], filter=used)
        except (OSError, DeltaError, pa.ArrowException):  # a log or file that is no longer kept
            return None
        digests = pa.chunked_array([*digests.chunks, *found["media_sha256"].chunks], pa.string())
    changed = pa.chunked_array([digests.unique()])
    return changed if len(changed) <= MOST_CHANGED else None


def _images_of(added: Dataset, snapshots: Mapping[str, DeltaTable | None]) -> pa.Table:
    """Return the digests of the images of all cameras that the changed deployments ever had."""
    facts = added.to_table(["fact_id"], filter=pc.field("kind") == "deployment")["fact_id"]
    rows = dataset(snapshots["deployments"], TABLES["deployments"])
    cameras = rows.to_table(["camera_id"], filter=pc.field("fact_id").isin(facts.unique()))
    of_cameras = pc.field("camera_id").isin(cameras["camera_id"].unique())
    return dataset(snapshots["media"], TABLES["media"]).to_table(["media_sha256"], filter=of_cameras)


def updated(
    tables: Tables,
    source: Source,
    folder: Path,
    old: OpenIndex | None,
    on_step: Callable[[int, int], None] = lambda step, of_all: None,
) -> OpenIndex:
    """Return `old` if it has the rows of `source`, else write a file and open it. Call it only within `locked`.

    Only images that newer commits added rows of are computed again, if the logs of the tables list them all. `on_step`
    gets the number of each step, and how many there are at most.
    Raises DeadlinePassed, StorageFull, StorageUnreachable.
    """
    images = changed_images(old.about, source) if old else None
    if old and images is not None and not len(images):
        return replace(old, about=source.about.model_copy(update={"images": old.about.images}))
    number = max(time.time_ns() // 10**6, *(int(path.stem) + 1 for path in _files(folder)), 0)
    temporary = folder / "new.tmp"
    try:
        _write(source, tables, temporary, images, old if images is not None else None, on_step)
    except (duckdb.Error, StorageUnreachable):
        if images is None:
            raise
        _write(source, tables, temporary, None, None, on_step)  # the old file may be damaged
    temporary.rename(folder / f"{number:016}.duckdb")
    for path in _files(folder)[:-1]:
        path.unlink(missing_ok=True)
    opened = open_newest(folder, tables, source.about.view_name)
    assert opened, "it was just written"
    return opened


def _write(
    source: Source,
    tables: Tables,
    file: Path,
    images: pa.ChunkedArray | None,
    old: OpenIndex | None,
    on_step: Callable[[int, int], None],
) -> None:
    """Write the rows of all images, or those of `images` to a copy of the `old` file."""
    about, name = source.about, f"the index of view {source.about.view_name}"
    past = PastTables(tables.url, about.numbers | {VIEW: about.serial})
    media = source.snapshots["media"]
    statements = [_CELLS, *row_statements(_FIRST_ID), *_CREATE, *(_DELETE if old else []), *_INSERT]
    steps = itertools.count(1)
    try:
        n_rows = media.count() if media and images is None else 0
        n_steps = (1 + n_rows // MOST_AT_ONCE) * len(statements)
        for left in file.parent.glob(f"{file.name}*"):
            left.unlink()
        if old:
            shutil.copyfile(old.file, file)
        parts = _in_page_order(past, about.view, name) if n_rows > MOST_AT_ONCE else iter([images])
        for part in itertools.chain([next(parts, None)], parts):  # also if no file is present
            with (
                connect(past, about.view, part, MEMORY_MIB, READ, scans=part is None) as sql,
                bounded(sql, BUILD_S, name, _HINT),
            ):
                sql.execute(f"attach {literal(str(file))} as built")
                for statement in statements:
                    on_step(next(steps), n_steps)
                    _execute(sql, statement)
                ((count,),) = sql.execute("select count(*) from built.cells").fetchall()
                text = about.model_copy(update={"images": count}).model_dump_json()
                sql.execute("create or replace table built.about as select $1 as text", [text])
                sql.execute("detach built")
    except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) or is_of_storage(error):
            raise storage_error(f"build {name} from {tables.url}", error) from error
        raise


def _execute(sql: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Execute a statement; that of `outlined` for some boxes at a time."""
    name, _, query = statement.partition(" as\n")
    if name.endswith(" outlined"):
        create_lists(sql, "outlined", "box_rows", query)
    else:
        sql.execute(statement)


def _in_page_order(tables: PastTables, view: View | None, name: str) -> Iterator[pa.ChunkedArray]:
    """Yield the digests of all images in page order, `MOST_AT_ONCE` at a time; `name` is that of the index."""
    with connect(tables, view, None, MEMORY_MIB, "images", scans=True) as sql:
        with bounded(sql, BUILD_S, name, _HINT):
            sql.execute(f"create temp table in_order as select media_sha256 from images order by {_PAGE_ORDER}")
        sql.execute(f"set memory_limit = '{WAITING_MIB}MiB'")
        for rows in windows(sql, "in_order", MOST_AT_ONCE):
            yield rows["media_sha256"]


def row_statements(first_id: str = "0") -> list[str]:
    """Return the statements for `new_cells`, `new_details` …, with numbers above `first_id`, from relations `READ`."""
    names = _ROWS.needed_by(*(f"new_{name}" for name in ("cells", "found", *_PARTS)))
    variables = f"set variable first_id = {first_id}; set variable parts = 1; set variable part = 0"
    return [variables, *(_ROWS.statements[n] for n in names if n in _ROWS.statements)]


def open_newest(folder: Path, tables: Tables, view_name: str, mine: OpenIndex | None = None) -> OpenIndex | None:
    """Return the newest file of these tables and this view, `mine` if it is that one; None if it is invalid."""
    file = next(reversed(_files(folder)), None)
    if file is None or (mine and mine.file == file):
        return mine if file else None
    try:
        sql = duckdb.connect(file, read_only=True)
        sql.execute(f"set memory_limit = '{READ_MIB}MiB'; set enable_external_access = false")
        ((text,),) = sql.execute("select text from about").fetchall()
        about = About.model_validate_json(text)
    except (duckdb.Error, ValueError):  # also of pydantic
        return None
    same = (about.file_format, about.tables, about.view_name)
    return OpenIndex(file, about, sql) if same == (FORMAT, absolute(tables.url), view_name) else None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.duckdb"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock out other processes that write files of this folder, until the block or this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise storage_error(f"write an index to {folder}", error) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
