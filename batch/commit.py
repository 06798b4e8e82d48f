"""Result rows to the table, every few seconds, exactly once; the driver of a run is the only caller.

add(rows) -> buffered; committed when `commit_s` has passed since the last commit, and by `flush`.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.schemas import RESULTS
from archive.tables import Tables
from batch.plan import Plan
from batch.rivals import Rivals
from batch.spec import RunSpec

SAME_RESULT = ("inference_key", "media_sha256")


class ResultCommitter:
    """Rows another writer has committed first are dropped, never doubled.

    A row that `replaces` takes the place of a failed one; all others are appended. `commits` and `seconds`
    are what it has done so far.
    """

    def __init__(self, tables: Tables, spec: RunSpec, plan: Plan) -> None:
        self._tables, self._spec = tables, spec
        self._key = plan.model.info.inference_key
        self._base = plan.base
        self._rivals = Rivals(plan.base, self._key, spec.run_id)
        self._buffer: list[pa.Table] = []
        self._last_s = time.monotonic()
        self.commits = 0
        self.seconds = 0.0

    def add(self, rows: pa.Table) -> None:
        """Rows of `results` with `replaces`. Raises TableConflict when commits are refused for good."""
        self._buffer.append(rows)
        if time.monotonic() - self._last_s >= self._spec.commit_s:
            self.flush()

    def flush(self) -> None:
        if not self._buffer:
            return
        started = time.monotonic()
        rows = pa.concat_tables(self._buffer)
        results = rows.select(RESULTS.names)
        self._commit(results.filter(pc.invert(rows["replaces"])), replace=False)
        self._commit(results.filter(rows["replaces"]), replace=True)
        self._buffer.clear()
        self._last_s = time.monotonic()
        self.seconds += self._last_s - started

    def _commit(self, rows: pa.Table, replace: bool) -> None:
        if not len(rows):
            return

        def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
            return self._rivals.without(snapshot, wanted, replace)

        self._base = self._tables.append(
            "results",
            rows,
            writer=f"results:{self._key}",
            missing=missing,
            base=self._base,
            replace=SAME_RESULT if replace else (),
        )
        self.commits += 1
