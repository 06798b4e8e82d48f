"""Add results that another writer may have added already: uploads and runs both do."""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import RESULTS


def add_results(tables: Tables, inference_key: str, rows: pa.Table) -> DeltaTable:
    """Add `rows` of `results`, of one inference key, each image once; replace only existing rows that failed.

    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    writer, failed = Writer(tables, "results", inference_key), rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal failed
        stored = _stored_results(snapshot, inference_key, wanted)
        failed = with_values(wanted, "media_sha256", stored.filter(pc.equal(stored["status"], "failed")))
        return without_values(wanted, "media_sha256", stored)

    def still_failed(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        stored = _stored_results(snapshot, inference_key, wanted)
        return with_values(wanted, "media_sha256", stored.filter(pc.equal(stored["status"], "failed")))

    table = writer.append(rows, missing)
    if not len(failed):
        return table
    return writer.append(failed, still_failed, replace=("inference_key", "media_sha256"))


def with_values(rows: pa.Table, column: str, others: pa.Table) -> pa.Table:
    """Return the rows with a value of `column` that `others` has."""
    return rows.filter(pc.is_in(rows[column], others[column].combine_chunks()))


def without_values(rows: pa.Table, column: str, others: pa.Table) -> pa.Table:
    """Return the rows with a value of `column` that `others` lacks."""
    return rows.filter(pc.invert(pc.is_in(rows[column], others[column].combine_chunks())))


def _stored_results(snapshot: DeltaTable, inference_key: str, wanted: pa.Table) -> pa.Table:
    digests = wanted["media_sha256"].combine_chunks()
    same = (pc.field("inference_key") == inference_key) & pc.field("media_sha256").isin(digests)
    return dataset(snapshot, RESULTS).to_table(columns=["media_sha256", "status"], filter=same)
