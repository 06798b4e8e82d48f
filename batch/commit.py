"""Rows of a run to their table, every few seconds, exactly once; the driver of the run is the only caller.

add(rows) -> buffered; committed when `commit_s` has passed since the last commit, and by `flush`.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.new_rows import writer_of_key
from archive.schemas import TABLES
from archive.tables import Tables
from batch.plan import Plan
from batch.rivals import Rivals
from batch.spec import PassSpec


class Committer:
    """Rows another writer has committed first are dropped, never doubled.

    A row that `replaces` takes the place of a failed one; all others are appended. `commits` and `seconds`
    are what it has done so far.
    """

    def __init__(
        self,
        tables: Tables,
        spec: PassSpec,
        table: str,
        key: Mapping[str, str],
        base: DeltaTable,
        row: str = "media_sha256",
    ) -> None:
        """`key`: the columns, `inference_key` first, that have one value in all rows of this run and with the
        column `row` name one. No row is in the snapshot `base`, but failed ones that are replaced.
        """
        self._row = row
        self.table, self.inference_key = table, key["inference_key"]
        self._tables, self._spec, self._key = tables, spec, key
        self._base: DeltaTable | None = base
        self._rivals = Rivals(base, key, spec.run_id, row)
        self._buffer: list[pa.Table] = []
        self._last_s = time.monotonic()
        self.commits = 0
        self.seconds = 0.0

    def add(self, rows: pa.Table) -> None:
        """Rows of the table with `replaces`. Raises TableConflict when commits are refused for good."""
        self._buffer.append(rows)
        if time.monotonic() - self._last_s >= self._spec.commit_s:
            self.flush()

    def tick(self) -> None:
        """While nothing arrives, what has arrived is not kept waiting."""
        if time.monotonic() - self._last_s >= self._spec.commit_s:
            self.flush()

    def flush(self) -> None:
        if not self._buffer:
            return
        started = time.monotonic()
        rows = pa.concat_tables(self._buffer)
        own = rows.select(TABLES[self.table].names)
        self._commit(
            own.filter(pc.invert(rows["replaces"])), False, [rows.filter(rows["replaces"])]
        )
        self._commit(own.filter(rows["replaces"]), True, [])
        self._last_s = time.monotonic()
        self.seconds += self._last_s - started

    def _commit(self, rows: pa.Table, replace: bool, rest: list[pa.Table]) -> None:
        """`rest` is what the buffer still holds afterwards. SIGTERM may come at any moment in here: who then
        flushes again looks, finds the rows of a commit that was made, or has them no more.
        """
        if not len(rows):
            self._buffer = rest
            return
        base, self._base = self._base, None

        def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
            return self._rivals.without(snapshot, wanted, replace)

        committed = self._tables.append(
            self.table,
            rows,
            writer=writer_of_key(self.table, self.inference_key),
            missing=missing,
            base=base,
            replace=(*self._key, self._row) if replace else (),
        )
        self._buffer = rest
        self._rivals.know(committed)
        self._base = committed
        self.commits += 1


class ResultCommitter(Committer):
    """Of result rows."""

    def __init__(self, tables: Tables, spec: PassSpec, plan: Plan) -> None:
        key = {"inference_key": plan.model.info.inference_key}
        super().__init__(tables, spec, "results", key, plan.base)
