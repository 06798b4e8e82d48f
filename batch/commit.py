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

from archive.tables import Tables
from batch.plan import Plan
from batch.spec import RunSpec

SAME_RESULT = ("inference_key", "media_sha256")


class ResultCommitter:
    """Rows another writer has committed first are dropped, never doubled.

    An image that has a failed row already gets it replaced; all others are appended.
    """

    def __init__(self, tables: Tables, spec: RunSpec, plan: Plan) -> None:
        self._tables, self._spec = tables, spec
        self._key = plan.model.info.inference_key
        self._again = plan.again
        self._base = plan.base
        self._buffer: list[pa.Table] = []
        self._last_s = time.monotonic()
        self.commits = 0

    def add(self, rows: pa.Table) -> None:
        """Raises TableConflict when commits are refused for good."""
        self._buffer.append(rows)
        if time.monotonic() - self._last_s >= self._spec.commit_s:
            self.flush()

    def flush(self) -> None:
        if not self._buffer:
            return
        rows = pa.concat_tables(self._buffer)
        again = pc.is_in(rows["media_sha256"], self._again)
        self._commit(rows.filter(pc.invert(again)), replace=False)
        self._commit(rows.filter(again), replace=True)
        self._buffer.clear()
        self._last_s = time.monotonic()

    def _commit(self, rows: pa.Table, replace: bool) -> None:
        if not len(rows):
            return
        done = pc.field("inference_key") == self._key
        if replace:  # a failed row counts as absent, unless it is this run's own
            done &= (pc.field("status") != "failed") | (pc.field("run_id") == self._spec.run_id)

        def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
            dataset = snapshot.to_pyarrow_dataset()
            there = dataset.to_table(columns=["media_sha256"], filter=done)["media_sha256"]
            return wanted.filter(
                pc.invert(pc.is_in(wanted["media_sha256"], there.combine_chunks()))
            )

        self._base = self._tables.append(
            "results",
            rows,
            writer=f"results:{self._key}",
            missing=missing,
            base=self._base,
            replace=SAME_RESULT if replace else (),
        )
        self.commits += 1
