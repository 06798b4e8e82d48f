"""Add rows that may be there already: new files to `media`, results of images to `results`.

Ingest and uploads both add files; uploads and runs both add results. The second writer adds no second row, since the
writers of one archive root, and those of one inference key, share an app transaction (`archive/tables.py`).
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.changes import files_there, replace_some, without_older, writer_of
from archive.dataset import dataset
from archive.schemas import RESULTS
from archive.tables import Tables


def add_files(
    tables: Tables, root_url: str, rows: pa.Table, base: DeltaTable | None = None
) -> DeltaTable:
    """Add `rows` of `media`, of one archive root, each path once; with `base`, none of them is in that snapshot.

    A row that is there is replaced when it is older, and another or marked as missing. Raises TableConflict,
    StorageUnreachable, StorageUnsafe.
    """
    newer = rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal newer
        there = files_there(snapshot, root_url, wanted)
        newer = _as_catalogued(without_older(_other(wanted, there), there), there)
        return _without(wanted, "path", there)

    table = tables.append("media", rows, writer_of(root_url), missing, base)
    return replace_some(tables, root_url, newer, table) if len(newer) else table


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


def _other(wanted: pa.Table, there: pa.Table) -> pa.Table:
    """Return the rows of files that are in `there` with other bytes, or marked as missing."""
    same = there.filter(pc.is_null(there["missing_since"])).select(["path", "content_tag"])
    files = set(zip(*same.to_pydict().values(), strict=True))
    given = zip(wanted["path"].to_pylist(), wanted["content_tag"].to_pylist(), strict=True)
    changed = wanted.filter(pa.array([file not in files for file in given], pa.bool_()))
    return _with(changed, "path", there)


def _as_catalogued(rows: pa.Table, there: pa.Table) -> pa.Table:
    """Return `rows` with the times at which `there` had the same bytes at the same places first."""
    place = rows.schema.get_field_index("catalogued_at")
    times = pc.coalesce(there["catalogued_at"], there["ingested_at"]).to_pylist()
    first = dict(zip(_contents(there), times, strict=True))
    kept = map(first.get, _contents(rows), rows["catalogued_at"].to_pylist())
    return rows.set_column(place, rows.field(place), pa.array(kept, rows.field(place).type))


def _contents(rows: pa.Table) -> list[tuple[str, str]]:
    columns = (rows[name].to_pylist() for name in ("path", "media_sha256"))
    return list(zip(*columns, strict=True))


def _results_there(snapshot: DeltaTable, inference_key: str, wanted: pa.Table) -> pa.Table:
    asked = wanted["media_sha256"].combine_chunks()
    same = (pc.field("inference_key") == inference_key) & pc.field("media_sha256").isin(asked)
    return dataset(snapshot, RESULTS).to_table(columns=["media_sha256", "status"], filter=same)
