"""Rows that may be there already, added where they are not: new files to `media`, what was seen to `results`.

Ingest and uploads both add files; uploads and runs both add results. Whoever comes second adds nothing, for the
writers of one archive root, and those of one inference key, share an app transaction (`archive/tables.py`).
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.changes import replace_some, writer_of
from archive.dataset import dataset
from archive.schemas import MEDIA, RESULTS
from archive.tables import Tables


def add_files(
    tables: Tables, root_url: str, rows: pa.Table, base: DeltaTable | None = None
) -> DeltaTable:
    """`rows` of `media`, of one archive root, each path once; with `base`, none of them is in that snapshot.

    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        return _without(wanted, "path", _files_there(snapshot, root_url, wanted))

    return tables.append("media", rows, writer_of(root_url), missing, base)


def add_uploads(tables: Tables, root_url: str, rows: pa.Table) -> DeltaTable:
    """As `add_files`, of files that are known to be there now: rows that say they are missing are replaced."""
    gone = rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal gone
        there = _files_there(snapshot, root_url, wanted)
        gone = _with(wanted, "path", there.filter(pc.is_valid(there["missing_since"])))
        return _without(wanted, "path", there)

    table = tables.append("media", rows, writer_of(root_url), missing)
    return replace_some(tables, root_url, gone, table) if len(gone) else table


def add_results(tables: Tables, inference_key: str, rows: pa.Table) -> DeltaTable:
    """`rows` of `results`, of one inference key, each image once; in place of a row that is there only where that one
    failed. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    writer, failed = writer_of_key("results", inference_key), rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal failed
        there = _results_there(snapshot, inference_key, wanted)
        failed = _with(wanted, "media_sha256", there.filter(pc.equal(there["status"], "failed")))
        return _without(wanted, "media_sha256", there)

    def still_failed(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        there = _results_there(snapshot, inference_key, wanted)
        return _with(wanted, "media_sha256", there.filter(pc.equal(there["status"], "failed")))

    table = tables.append("results", rows, writer, missing)
    if not len(failed):
        return table
    key = ("inference_key", "media_sha256")
    return tables.append("results", failed, writer, still_failed, table, replace=key)


def writer_of_key(table: str, inference_key: str) -> str:
    """The name under which rows of an inference key are committed, whoever does it."""
    return f"{table}:{inference_key}"


def _with(wanted: pa.Table, column: str, there: pa.Table) -> pa.Table:
    return wanted.filter(pc.is_in(wanted[column], there[column].combine_chunks()))


def _without(wanted: pa.Table, column: str, there: pa.Table) -> pa.Table:
    return wanted.filter(pc.invert(pc.is_in(wanted[column], there[column].combine_chunks())))


def _files_there(snapshot: DeltaTable, root_url: str, wanted: pa.Table) -> pa.Table:
    """Of this archive, between the first and the last path of those wanted."""
    ends = pc.min_max(wanted["path"]).as_py()
    path = pc.field("path")
    near = (pc.field("source_root") == root_url) & (path >= ends["min"]) & (path <= ends["max"])
    return dataset(snapshot, MEDIA).to_table(columns=["path", "missing_since"], filter=near)


def _results_there(snapshot: DeltaTable, inference_key: str, wanted: pa.Table) -> pa.Table:
    asked = wanted["media_sha256"].combine_chunks()
    same = (pc.field("inference_key") == inference_key) & pc.field("media_sha256").isin(asked)
    return dataset(snapshot, RESULTS).to_table(columns=["media_sha256", "status"], filter=same)
