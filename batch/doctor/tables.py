"""Check the tables: files of the current versions, rows that exist twice, and rows that refer to missing ones.

Writers commit what a row refers to before the row. A rule therefore reads the table with the references first, and
finds nothing in commits of other processes. DuckDB evaluates it on disk, so memory does not grow with the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem
from pyarrow.parquet import ParquetFile

from archive.delta.scratch_db import LARGE_MIB, scratch
from archive.delta.snapshot import data_files, read_only_files, scan, storage_errors
from archive.delta.tables import Tables
from archive.schemas import BY_KEY, TABLES
from batch.doctor.finding import RESTORE, Finding
from model_store.errors import StorageError, error_text
from model_store.storage import Folder
from model_store.storage_errors import storage_error

_SAME_BACKUP = "restore all tables from one backup"
_EMPTIED = f"{RESTORE}; without one, write a line break into each file, and ingest and run again what is missing"
_NEWER = """
    > (select coalesce(max(greatest(ingested_at, catalogued_at, missing_since)), 'epoch'::timestamptz) from media)
        + interval 1 hour
"""
"""Condition on a time that no row of `media` explains: a changed file replaces its row, so older results lack one."""


@dataclass(frozen=True)
class Rule:
    """SQL over `reads`, in the order in which they are opened, that selects `id` of each wrong row of the first one."""

    reads: tuple[str, ...]
    sql: str
    problem: str
    action: str


def _doubled(name: str, ids: str, condition: str = "true") -> Rule:
    sql = f"select concat_ws(' ', {ids}) as id from {name} where {condition} group by {ids} having count(*) > 1"
    return Rule((name,), sql, f"{{n}} rows exist more than once ({ids})", "restore the table from the backup")


def _without_result(name: str) -> Rule:
    sql = f"select media_sha256 as id from {name} anti join results using (inference_key, media_sha256)"
    action = f"'resight runs prune' if their results were pruned; else {_SAME_BACKUP}"
    return Rule((name, "results"), sql, "{n} rows without the result that they belong to", action)


def _of_unknown_run(name: str) -> Rule:
    sql = (
        f"with used as (select distinct run_id from {name}) select run_id as id from used anti join runs using (run_id)"
    )
    if name == "results":
        sql += " where run_id <> 'upload'"
    return Rule((name, "runs"), sql, "rows of {n} runs that the table runs lacks", _SAME_BACKUP)


RULES = (
    _doubled("media", "source_root, path"),
    _doubled("results", "inference_key, media_sha256"),
    _doubled("snips", "inference_key, settings_key, media_sha256"),
    _doubled("classifications", "inference_key, classifier_key, detection_id"),
    _doubled("embeddings", "inference_key, embedder_key, detection_id"),
    _doubled("runs", "run_id, event"),
    _doubled("layers", "layer_id"),
    _doubled("assertions", "assertion_id", "method = 'human'"),
    Rule(
        ("results", "media"),
        "select media_sha256 as id from results anti join media using (media_sha256) "
        f"where error_code is distinct from 'changed' and finished_at {_NEWER}",
        "{n} results of images that are not in media, which is older",
        f"'resight ingest' with each archive catalogues the images again; after a restore, {_SAME_BACKUP}",
    ),
    *map(_without_result, BY_KEY[1:]),
    *map(_of_unknown_run, BY_KEY),
    Rule(
        ("assertions", "media"),
        "select media_sha256 as id from assertions anti join media using (media_sha256) "
        f"where method = 'human' group by media_sha256 having min(asserted_at) {_NEWER}",
        "human statements about {n} images that are not in media, which is older",
        f"'resight ingest' with each archive catalogues the images again; after a restore, {_SAME_BACKUP}",
    ),
    Rule(
        ("assertions", "results"),
        "select assertion_id as id from assertions anti join results using (inference_key, media_sha256) "
        "where method = 'human' and inference_key is not null",
        "{n} human statements about results that do not exist",
        f"process the images with that model version again, or {_SAME_BACKUP}",
    ),
    Rule(
        ("assertions",),
        "select a.assertion_id as id from assertions a anti join assertions b on a.withdraws = b.assertion_id "
        "where a.withdraws is not null",
        "{n} statements withdraw statements that do not exist",
        RESTORE,
    ),
    Rule(
        ("assertions", "layers"),
        "with used as (select distinct layer_id from assertions where method = 'machine') "
        "select layer_id as id from used anti join layers using (layer_id)",
        "statements of {n} layers that the table layers lacks",
        _SAME_BACKUP,
    ),
    # Later runs replace failed rows, and a prune removes all older rows of a key. A run that was sealed and started
    # again counted only the images of then, so it may have more rows.
    Rule(
        ("runs", "results", "classifications", "embeddings"),
        """
        with last as (from runs qualify row_number() over (partition by run_id order by event desc) = 1),
        sealed as (
            select run_id, inference_key, event_at, kind, counts.ok + counts.empty as ok
            from last where state = 'sealed' and counts.ok + counts.empty > 0),
        rows as (
            select run_id, status from results union all select run_id, status from classifications
            union all select run_id, status from embeddings),
        stored as (select run_id, count(*) filter (status = 'ok') as ok from rows group by run_id),
        keys as (select inference_key, min(finished_at) as since from results group by inference_key)
        select s.run_id as id from sealed s left join stored t using (run_id) left join keys using (inference_key)
        where t.ok < s.ok
            or (t.run_id is null and coalesce(s.kind, 'detect') = 'detect' and since < s.event_at)
        """,
        "{n} sealed runs that do not have the rows that they counted",
        _SAME_BACKUP,
    ),
)


def check_tables(tables: Tables, digests: bool = False) -> Iterator[Finding]:
    """Check the files of all tables. Without a finding, check their rows."""
    damaged = list(check_files(tables, digests))
    yield from damaged or check_rows(tables)


def check_files(tables: Tables, digests: bool = False) -> Iterator[Finding]:
    """Find tables that cannot be opened, empty commits, and files of current versions that are missing or cut.

    With `digests`, also read every file, and find those that cannot be read. Raises StorageUnreachable.
    """
    Folder(tables.url).names()  # delta-rs reports a folder of another user as a missing table
    for name in TABLES:
        try:
            with storage_errors(tables):
                table = tables.existing(name)
                listed = data_files(table) if table else []
                store = read_only_files(table.table_uri) if table else None
                found = store.get_file_info([file.path for file in listed]) if store else []
                commits = store.get_file_info(FileSelector("_delta_log")) if store else []
        except StorageError as error:
            cause = error.__cause__  # without the advice to start the doctor
            problem = storage_error(f"open {tables.url}/{name}", cause) if isinstance(cause, Exception) else error
            yield Finding("tables", name, str(problem), RESTORE)
            continue
        if table is None and name == "media":
            yield Finding("tables", name, str(tables.nothing_here()), "mount its disk, or ingest an archive")
        if empty := [info.path for info in commits if info.path.endswith(".json") and not info.size]:
            problem = f"{len(empty)} commits are empty files, so their rows are lost, such as {empty[0]}"
            yield Finding("tables", name, problem, _EMPTIED)
        wrong = [file.path for file, info in zip(listed, found, strict=True) if info.size != file.bytes]
        if wrong:
            problem = f"{len(wrong)} of {len(listed)} files are missing or have another size, such as {wrong[0]}"
            yield Finding("tables", name, problem, RESTORE)
        elif store and digests:
            faults = [f"{file.path}: {why}" for file in listed if (why := _fault(store, file.path))]
            if faults:
                problem = f"{len(faults)} of {len(listed)} files cannot be read, such as {faults[0]}"
                yield Finding("tables", name, problem, RESTORE)


def _fault(store: FileSystem, path: str) -> str:
    """Read all rows of a file, some at a time; return why they cannot be read, or an empty text."""
    try:
        with store.open_input_file(path) as file:
            for _ in ParquetFile(file, page_checksum_verification=True).iter_batches():
                pass
    except (OSError, ValueError, pa.ArrowException) as error:
        return error_text(error)
    return ""


def check_rows(tables: Tables) -> Iterator[Finding]:
    """Evaluate RULES, each on new snapshots. A table that is missing has no rows."""
    scanned = dict[str, int | None]()
    with storage_errors(tables), scratch("doctor", LARGE_MIB) as sql:
        for rule in RULES:
            count, example = _evaluated(sql, tables, rule, scanned)
            if count:
                problem = f"{rule.problem.format(n=count)}, such as {example}"
                yield Finding("rows", rule.reads[0], problem, rule.action)


def _evaluated(
    sql: duckdb.DuckDBPyConnection, tables: Tables, rule: Rule, scanned: dict[str, int | None]
) -> tuple[int, str]:
    """Return the number of wrong rows and an id. `scanned` has the versions of the relations in the database."""
    opened = {name: tables.existing(name) for name in rule.reads}
    if opened[rule.reads[0]] is None:
        return 0, ""
    for name, table in opened.items():
        version = table.version() if table else None
        if scanned.get(name, -1) != version:
            scan(sql, name, table, TABLES[name])
            scanned[name] = version
    count, example = sql.execute(f"select count(*), min(id) from ({rule.sql})").fetchall()[0]
    return count, str(example)
