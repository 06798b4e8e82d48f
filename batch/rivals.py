"""Rows that other writers have committed since a plan was made, for a commit that has lost a race.

The plan has left out all that its own snapshot holds, so only rows of later commits are read, each once. A compaction,
by this run or any other process, adds no rows, so it brings none of this run's own back.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.dataset import added_since
from archive.schemas import RESULTS

_COLUMNS = ["status", "run_id", "finished_at"]
_SCHEMA = pa.schema(
    [RESULTS.field(name) for name in ("inference_key", "media_sha256", *_COLUMNS)]
    + [(name, pa.string()) for name in ("settings_key", "classifier_key", "detection_id")]
)
"""Of the tables that runs write: `results`, `snips` with its settings, and `classifications`."""


class Rivals:
    """Of rows with one `key` (column to value, `inference_key` among them), each known by its column `row`; `base`
    is the plan's snapshot of their table, `run_id` the run that asks.
    """

    def __init__(
        self, base: DeltaTable, key: Mapping[str, str], run_id: str, row: str = "media_sha256"
    ) -> None:
        self._row = row
        self._key = key["inference_key"]
        self._same = pc.field("inference_key") == self._key
        for column, value in key.items():
            self._same = self._same & (pc.field(column) == value)
        self._version = base.version()
        self._rows: list[pa.Table] = []
        self._run_id = run_id

    def know(self, snapshot: DeltaTable) -> None:
        """After a commit of this run: rows that came since the last look are its own."""
        self._version = snapshot.version()

    @property
    def held(self) -> int:
        """Rows in memory."""
        return sum(map(len, self._rows))

    def without(self, snapshot: DeltaTable, rows: pa.Table, replace: bool) -> pa.Table:
        """Return the rows that have none of their name in the snapshot. To a writer that replaces failed rows, a
        failed one counts as none, unless it is the very row (its answer was lost).
        """
        if snapshot.version() > self._version:
            others = added_since(snapshot, _SCHEMA, self._key, self._version)
            found = others.to_table(columns=[self._row, *_COLUMNS], filter=self._same)
            self._rows += [found] if len(found) else []
            self._version = snapshot.version()
        asked = rows[self._row].combine_chunks()  # few: those that are there may be very many
        there = [part.filter(pc.is_in(part[self._row], asked)) for part in self._rows]
        if replace:
            there = [self._done(part, rows) for part in there]
        chunks = [chunk for part in there for chunk in part[self._row].chunks]
        return rows.filter(pc.invert(pc.is_in(asked, pa.chunked_array(chunks, pa.string()))))

    def _done(self, part: pa.Table, rows: pa.Table) -> pa.Table:
        moments = rows["finished_at"].combine_chunks()
        very = pc.and_(
            pc.equal(part["run_id"], self._run_id), pc.is_in(part["finished_at"], moments)
        )
        return part.filter(pc.or_(pc.not_equal(part["status"], "failed"), very))
