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

from archive.changes import writer_of
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
        return _without(wanted, "path", _paths_there(snapshot, root_url, wanted))

    return tables.append("media", rows, writer_of(root_url), missing, base)


def add_results(tables: Tables, inference_key: str, rows: pa.Table) -> DeltaTable:
    """`rows` of `results`, of one inference key, each image once. A failed row that is there stays: to replace it
    is for a run. Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        there = _images_there(snapshot, inference_key, wanted)
        return _without(wanted, "media_sha256", there)

    return tables.append("results", rows, writer_of_key("results", inference_key), missing)


def writer_of_key(table: str, inference_key: str) -> str:
    """The name under which rows of an inference key are committed, whoever does it."""
    return f"{table}:{inference_key}"


def _without(wanted: pa.Table, column: str, there: pa.Array) -> pa.Table:
    return wanted.filter(pc.invert(pc.is_in(wanted[column], there)))


def _paths_there(snapshot: DeltaTable, root_url: str, wanted: pa.Table) -> pa.Array:
    """Paths of this archive that have a row, between the first and the last of those wanted."""
    ends = pc.min_max(wanted["path"]).as_py()
    path = pc.field("path")
    near = (pc.field("source_root") == root_url) & (path >= ends["min"]) & (path <= ends["max"])
    found = dataset(snapshot, MEDIA).to_table(columns=["path"], filter=near)
    return found["path"].combine_chunks()


def _images_there(snapshot: DeltaTable, inference_key: str, wanted: pa.Table) -> pa.Array:
    asked = wanted["media_sha256"].combine_chunks()
    same = (pc.field("inference_key") == inference_key) & pc.field("media_sha256").isin(asked)
    found = dataset(snapshot, RESULTS).to_table(columns=["media_sha256"], filter=same)
    return found["media_sha256"].combine_chunks()
