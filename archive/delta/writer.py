"""Write the rows of one key to a table: all writers of the key share an app transaction, so no row is added twice.

Writer(tables, "results", inference key).append(rows, missing)
add_results(tables, inference key, rows): add results of uploads, which a run may have added already
Other keys: the root of an archive (`media`), the id of a run (`runs`) or of a layer (`assertions`), an inference key
(`decisions`), none (`layers`, `exports`).
"""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.replace import Replacement, replace_many
from archive.delta.snapshot import dataset
from archive.delta.tables import Missing, Tables
from archive.schemas import RESULTS


@dataclass
class Writer:
    """One of the processes that write the rows of a key.

    `base` is a snapshot without the rows that will be appended, so that the first attempt does not check; None to
    check. Each method sets it to the snapshot of its commit, and raises the errors of `Tables.append`.
    """

    tables: Tables
    table: str
    key: str = ""
    base: DeltaTable | None = None

    @property
    def transaction(self) -> str:
        """Name of the app transaction. That of `runs` is older than this class, and logs of tables have it."""
        name = "run" if self.table == "runs" else self.table
        return f"{name}:{self.key}" if self.key else name

    def newest(self) -> DeltaTable:
        return self.base or self.tables.snapshot(self.table)

    def append(self, rows: pa.Table, missing: Missing, replace: Sequence[str] = ()) -> DeltaTable:
        """Commit the rows that are still missing, as in `Tables.append`; return the snapshot that has all of them."""
        base, self.base = self.base, None  # if this fails, the next attempt checks
        self.base = self.tables.append(self.table, rows, self.transaction, missing, base, replace)
        return self.base

    def append_new(self, rows: pa.Table, missing: Missing) -> int:
        """Append, and return the number of rows that were missing."""
        counts: list[int] = []

        def counted(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
            todo = missing(snapshot, wanted)
            counts.append(len(todo))
            return todo

        self.append(rows, counted)
        return max(counts, default=len(rows))  # after a lost acknowledgement, the second look finds none missing

    def replace(self, replacement: Replacement) -> None:
        """Replace many rows in one commit (`archive/delta/replace.py`)."""
        self.base = replace_many(self.tables, self.table, self.transaction, replacement)


def add_results(tables: Tables, inference_key: str, rows: pa.Table) -> None:
    """Add `rows` of `results`, of one inference key, each image once; replace only existing rows that failed.

    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    writer, failed = Writer(tables, "results", inference_key), rows.slice(0, 0)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        nonlocal failed
        stored = _stored_results(snapshot, inference_key, wanted)
        failed = _failed(wanted, stored)
        return without_values(wanted, "media_sha256", stored)

    def still_failed(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        return _failed(wanted, _stored_results(snapshot, inference_key, wanted))

    writer.append(rows, missing)
    if len(failed):
        writer.append(failed, still_failed, replace=("inference_key", "media_sha256"))


def without_values(rows: pa.Table, column: str, others: pa.Table) -> pa.Table:
    """Return the rows with a value of `column` that `others` lacks."""
    return rows.filter(pc.invert(pc.is_in(rows[column], others[column].combine_chunks())))


def _failed(wanted: pa.Table, stored: pa.Table) -> pa.Table:
    digests = stored.filter(pc.equal(stored["status"], "failed"))["media_sha256"]
    return wanted.filter(pc.is_in(wanted["media_sha256"], digests.combine_chunks()))


def _stored_results(snapshot: DeltaTable, inference_key: str, wanted: pa.Table) -> pa.Table:
    digests = wanted["media_sha256"].combine_chunks()
    same = (pc.field("inference_key") == inference_key) & pc.field("media_sha256").isin(digests)
    return dataset(snapshot, RESULTS).to_table(columns=["media_sha256", "status"], filter=same)
