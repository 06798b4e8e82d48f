"""Query the tables with SQL: the contents of a published view, and all results.

connect(tables, view) -> DuckDB connection. `results` and `detections` have the view's inference key; `all_results` and
`all_detections` have all keys. Detections are flat: one row per detection of an image (`archive/catalogue/images.py`),
with the box also as fractions of the image.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.annotations.assertions import ANNOTATIONS, INDIVIDUALS_SQL, NO_ANNOTATIONS
from archive.annotations.layers import layer_table, layers_of
from archive.catalogue.images import dated, images_of
from archive.delta.relations import Relations
from archive.delta.scratch_db import half_of_memory_mib, scratch
from archive.delta.snapshot import dataset, is_of_storage, memory_database, scan, storage_errors
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables, table_error
from archive.schemas import TABLES
from archive.views.publications import SUN_SQL, VIEWS_SQL, Publications
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed

_THRESHOLDS = pa.schema([("label", pa.string()), ("score", pa.float32())])
LEAST_S = 0.1
"""Minimum time limit of a statement."""
_FIRST = ("media", "results", "runs")
"""Tables of which any archive in use has one; read-only commands may create the others."""
_RELATIONS_ONLY = """
set python_enable_replacements = false;
set enable_external_access = false;
set lock_configuration = true;
"""
_LISTING = re.compile(r"\bshow\b|\bdescribe\s*([;)]|$)|query|schema|pragma|duckdb_|pg_|sqlite", re.IGNORECASE)
"""Part of statements that list relations, or can use them without naming them."""


@functools.cache
def _relations(annotated: bool, deployed: bool) -> Relations:
    """Return the relations; those of an archive without annotations or deployments are cheaper."""
    files = [*ANNOTATIONS.files, INDIVIDUALS_SQL, VIEWS_SQL, SUN_SQL, *([] if annotated else [NO_ANNOTATIONS])]
    images = dated(images_of("media"), "wrong_clocks" if deployed else "")
    return Relations(*files, images=f"create or replace temp view images as from {images}")


RELATIONS = _relations(annotated=True, deployed=True)


@contextlib.contextmanager
def connect(
    tables: Tables,
    view: View | None = None,
    images: pa.ChunkedArray | None = None,
    memory_mib: int | None = None,
    statement: str = "",
    scans: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a scratch database with the relations over the newest snapshots, for one thread at a time.

    `view` defaults to production; if nothing is published, `results` and `detections` are empty. With `images` (a few
    digests), only their rows of `media`, `assertions` and the view's results are loaded, at once. Data beyond
    `memory_mib` (default: half of the machine or control group) spills to TMPDIR; with `images` and without it, all
    stays in the memory database of the process, which saves 25 ms. With a `statement`, only the
    relations that it names are guaranteed, because creating all takes 150 ms. With `scans`, DuckDB reads local files
    itself: whole tables then need less memory, and few rows more time.
    Raises StorageUnreachable, also without any table, as on an unmounted disk.
    """
    view = view or Views(tables.url).current(upto=tables.published_upto)
    names = RELATIONS.needed_by(*_used_by(statement))
    opened = _opened(tables, names)
    annotated = opened.get("assertions") is not None or (view and view.layers)
    few = images is not None and memory_mib is None
    with memory_database() if few else scratch("sql", memory_mib or half_of_memory_mib()) as sql:
        with storage_errors(tables):
            if images is not None:
                sql.register("chosen_images", pa.table({"media_sha256": images}))
            for name, table in opened.items():
                if images is not None and name in ("media", "assertions", "results"):
                    _load_chosen(sql, name, table, view)
                elif scans:
                    scan(sql, f"{name}_table", table, TABLES[name])
                else:
                    sql.register(f"{name}_table", dataset(table, TABLES[name]))
            if "views_table" in names:
                sql.register("views_table", Publications(Views(tables.url)))
            limits = view.label_thresholds if view else {}
            columns = {"label": list(limits), "score": list(limits.values())}
            sql.register("label_thresholds", pa.table(columns, schema=_THRESHOLDS))
            if "view_layers" in names:
                sql.register("view_layers", layer_table(layers_of(tables, view)))
            sql.execute("set variable inference_key = $key", {"key": view and view.inference_key})
            sql.execute("set variable threshold = $min", {"min": view.threshold if view else 0.0})
            sql.begin()  # one write to the disk for all relations
            deployed = opened.get("deployments") is not None
            _relations(bool(annotated), deployed).create(sql, *_used_by(statement))
            sql.commit()
        yield sql


def _used_by(statement: str) -> list[str]:
    """Return the relations that a statement may use; all if it may list them, or without a statement."""
    if not statement or _LISTING.search(statement):
        return list(RELATIONS.statements)
    return RELATIONS.named_in(statement)


def _opened(tables: Tables, names: Collection[str]) -> dict[str, DeltaTable | None]:
    """Return the tables of these relations. Raises StorageUnreachable if no archive is here."""
    used = [name for name in TABLES if f"{name}_table" in names]
    with ThreadPoolExecutor(len(TABLES)) as opening:
        opened = dict(zip(used, opening.map(tables.existing, used), strict=True))
    if all(opened.get(name) is None and tables.existing(name) is None for name in _FIRST):
        raise tables.nothing_here()
    return opened


def _load_chosen(sql: duckdb.DuckDBPyConnection, name: str, table: DeltaTable | None, view: View | None) -> None:
    """Create the table `<name>_table` with the rows of `chosen_images`; of `results`, those of the view."""
    # reads other columns only where a digest matches, which Arrow does not
    scan(sql, f"stored_{name}", table, TABLES[name])
    of_view = f"where inference_key = {literal(view.inference_key if view else '')}" if name == "results" else ""
    rows = f"select {', '.join(TABLES[name].names)} from stored_{name} semi join chosen_images using (media_sha256)"
    sql.execute(f"create temp table {name}_table as {rows} {of_view}")


def query(
    tables: Tables, statement: str, view: View | None = None, allow_files: bool = False, memory_mib: int | None = None
) -> pa.Table:
    """Return the rows of one statement. Without `allow_files`, it can only access the relations.

    Raises StorageUnreachable, and BadRequest with DuckDB's message for an invalid statement or too little memory.
    """
    try:
        try:
            rows = _rows_of(tables, statement, view, allow_files, memory_mib, statement)
        except duckdb.CatalogException:  # its message suggests relations, so all must exist
            rows = _rows_of(tables, statement, view, allow_files, memory_mib, "")
    except duckdb.PermissionException as error:
        raise BadRequest(
            f"{error}. Statements can only read the relations: use 'resight sql --allow-files' for files"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise out_of_memory(error) from error
    except duckdb.Error as error:
        is_own_file = allow_files and " stream " not in str(error)  # tables are registered streams
        if is_of_storage(error) and not is_own_file:
            raise table_error(f"read from {tables.url}", error) from error
        raise BadRequest(str(error)) from error
    return rows.rename_columns(_distinct(rows.column_names))


def _rows_of(
    tables: Tables, statement: str, view: View | None, allow_files: bool, memory_mib: int | None, relations_for: str
) -> pa.Table:
    with connect(tables, view, memory_mib=memory_mib, statement=relations_for) as sql:
        if not allow_files:
            sql.execute(_RELATIONS_ONLY)
        rows = sql.sql(statement)
        if rows is None:
            raise BadRequest("the statement returns no rows: use for example select * from media")
        return rows.to_arrow_table()


def archives(tables: Tables) -> dict[str, int]:
    """Return the number of files that are not missing, by root of each archive; frames of clips are not files."""
    if tables.existing("media") is None:
        return {}
    rows = query(
        tables,
        "select source_root, count(*) filter (missing_since is null and clip_sha256 is null) as files from media "
        "group by all order by all",
    )
    return {row["source_root"]: row["files"] for row in rows.to_pylist()}


def out_of_memory(error: duckdb.OutOfMemoryException) -> BadRequest:
    """Return the error for a query that fits neither into its memory nor into TMPDIR."""
    reason = str(error).splitlines()[0]
    return BadRequest(
        f"{reason}. The query needs more memory, or more room in TMPDIR ({tempfile.gettempdir()}): select fewer "
        "rows or columns, set --memory-mib of 'resight sql' or 'resight export', or set TMPDIR to a larger disk"
    )


@contextlib.contextmanager
def bounded(
    sql: duckdb.DuckDBPyConnection, within_s: float, name: str, hint: str, since_s: float | None = None
) -> Iterator[None]:
    """Interrupt the statements of the block `within_s` after `since_s` of the monotonic clock (default: now).

    Raises DeadlinePassed, BadRequest if memory is too small.
    """
    left_s = within_s if since_s is None else since_s + within_s - time.monotonic()
    late = DeadlinePassed(f"{name} took more than {within_s:g} s: {hint}")
    if left_s <= 0:
        raise late
    timer = threading.Timer(max(left_s, LEAST_S), sql.interrupt)  # never before it has begun
    timer.start()
    try:
        yield
    except duckdb.InterruptException:
        raise late from None
    except duckdb.OutOfMemoryException as error:
        reason = str(error).splitlines()[0]
        raise BadRequest(f"{name} needs more memory, or more room in TMPDIR ({reason}): {hint}") from error
    finally:
        timer.cancel()


def _distinct(names: list[str]) -> list[str]:
    """Return unique column names: the second `path` of a join becomes `path_1`, so that no column is lost."""
    taken: list[str] = []
    for name in names:
        suffix = itertools.count(1)
        unique = name
        while unique in taken:
            unique = f"{name}_{next(suffix)}"
        taken.append(unique)
    return taken
