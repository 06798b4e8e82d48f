"""Write the rows of one key to a table: all writers of the key share an app transaction, so no row is added twice.

Writer(tables, "results", inference key).append(rows, missing)
Other keys: the root of an archive (`media`), the id of a run (`runs`) or of a layer (`assertions`), an inference key
(`decisions`), none (`layers`, `exports`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable

from archive.delta.replace import Replacement, replace_many
from archive.delta.tables import Missing, Tables


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
        """Return `base`, or without one the newest snapshot."""
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
