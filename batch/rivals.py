"""Rows that other writers have committed since a plan was made: what a lost race has to look at.

The plan has left out all that its own snapshot holds, so only files that came later are read, each once.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable


class Rivals:
    """Of one inference key; `base` is the plan's snapshot of `results`, `run_id` the run that asks."""

    def __init__(self, base: DeltaTable, inference_key: str, run_id: str) -> None:
        self._of_key = pc.field("inference_key") == inference_key
        self._read = {fragment.path for fragment in self._fragments(base)}
        self._rows: list[pa.Table] = []
        self._run_id = run_id

    def without(self, snapshot: DeltaTable, rows: pa.Table, replace: bool) -> pa.Table:
        """The rows whose image has none in the snapshot. To a writer that replaces failed rows, a failed one
        counts as none, unless it is this run's own.
        """
        for fragment in self._fragments(snapshot):
            if fragment.path not in self._read:
                self._read.add(fragment.path)
                columns = ["media_sha256", "status", "run_id"]
                self._rows.append(fragment.to_table(columns=columns))
        there = [self._done(part) if replace else part for part in self._rows]
        chunks = [chunk for part in there for chunk in part["media_sha256"].chunks]
        digests = pa.chunked_array(chunks, pa.string()).combine_chunks()
        return rows.filter(pc.invert(pc.is_in(rows["media_sha256"], digests)))

    def _done(self, part: pa.Table) -> pa.Table:
        own = pc.equal(part["run_id"], self._run_id)
        return part.filter(pc.or_(pc.not_equal(part["status"], "failed"), own))

    def _fragments(self, snapshot: DeltaTable) -> list[pa.dataset.Fragment]:
        return list(snapshot.to_pyarrow_dataset().get_fragments(filter=self._of_key))
