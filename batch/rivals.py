"""Rows that other writers have committed since a plan was made: what a lost race has to look at.

The plan has left out all that its own snapshot holds, so only files that came later are read, each once.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

_COLUMNS = ["media_sha256", "status", "run_id", "finished_at"]


class Rivals:
    """Of rows with one `key` (column to value, `inference_key` among them); `base` is the plan's snapshot of
    their table, `run_id` the run that asks.
    """

    def __init__(self, base: DeltaTable, key: Mapping[str, str], run_id: str) -> None:
        self._of_key = pc.field("inference_key") == key["inference_key"]
        self._same = pc.scalar(True)
        for column, value in key.items():
            if column != "inference_key":  # the partition: no file has it
                self._same = self._same & (pc.field(column) == value)
        self._read = {fragment.path for fragment in self._fragments(base)}
        self._rows: list[pa.Table] = []
        self._run_id = run_id

    def without(self, snapshot: DeltaTable, rows: pa.Table, replace: bool) -> pa.Table:
        """The rows whose image has none in the snapshot. To a writer that replaces failed rows, a failed one
        counts as none, unless it is the very row (its answer was lost).
        """
        for fragment in self._fragments(snapshot):
            if fragment.path not in self._read:
                self._read.add(fragment.path)
                self._rows.append(fragment.to_table(columns=_COLUMNS, filter=self._same))
        return self.left(rows, replace)

    def left(self, rows: pa.Table, replace: bool) -> pa.Table:
        """The same, as of the last snapshot that was looked at: rivals may have come in before these rows."""
        there = [self._done(part, rows) if replace else part for part in self._rows]
        chunks = [chunk for part in there for chunk in part["media_sha256"].chunks]
        digests = pa.chunked_array(chunks, pa.string()).combine_chunks()
        return rows.filter(pc.invert(pc.is_in(rows["media_sha256"], digests)))

    def _done(self, part: pa.Table, rows: pa.Table) -> pa.Table:
        moments = rows["finished_at"].combine_chunks()
        very = pc.and_(
            pc.equal(part["run_id"], self._run_id), pc.is_in(part["finished_at"], moments)
        )
        return part.filter(pc.or_(pc.not_equal(part["status"], "failed"), very))

    def _fragments(self, snapshot: DeltaTable) -> list[pa.dataset.Fragment]:
        return list(snapshot.to_pyarrow_dataset().get_fragments(filter=self._of_key))
