"""Commit the rows of a run to their table every few seconds, exactly once; only the run's driver does this.

add(rows) -> buffered; committed when `commit_s` has passed since the last commit, and by `flush`.

A commit that has lost a race leaves out the rows that others have committed since the plan. The plan has left out all
rows of its snapshot, so only rows of later commits are read, each once.

`flush` commits new rows first, then those that replace failed ones. A crash in between leaves the failed rows, and
the repeated run retries them.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import time
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.snapshot import added_since
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import RESULTS, TABLES
from batch.planning.plan import Plan
from batch.runs.spec import PassSpec
from model_store.free_space import require_free_space

_COLUMNS = ["status", "run_id", "finished_at"]
_SCHEMA = pa.schema(
    [RESULTS.field(name) for name in ("inference_key", "media_sha256", *_COLUMNS)]
    + [(name, pa.string()) for name in ("settings_key", "classifier_key", "embedder_key", "detection_id")]
)
"""Columns of the tables that runs write: `results`, `snips` with its settings, `classifications`, `embeddings`."""


class ConcurrentRows:
    """Rows of other writers with one `key` (column to value, including `inference_key`), identified by column `row`.

    `base` is the plan's snapshot of their table; `run_id` is the run that commits.
    """

    def __init__(self, base: DeltaTable, key: Mapping[str, str], run_id: str, row: str = "media_sha256") -> None:
        self._row = row
        self._key = key["inference_key"]
        self._same = pc.field("inference_key") == self._key
        for column, value in key.items():
            self._same = self._same & (pc.field(column) == value)
        self._version = base.version()
        self._rows: list[pa.Table] = []
        self._run_id = run_id

    def skip_to(self, snapshot: DeltaTable) -> None:
        """Skip the rows up to `snapshot`, a commit of this run: those since the last look are its own."""
        self._version = snapshot.version()

    def without(self, snapshot: DeltaTable, rows: pa.Table, replace: bool) -> pa.Table:
        """Return the rows that are not in the snapshot yet.

        If they replace failed rows, a failed one there does not count, unless it is the same row: then the commit
        succeeded, and its acknowledgement was lost.
        """
        if snapshot.version() > self._version:
            others = added_since(snapshot, _SCHEMA, self._key, self._version)
            added = others.to_table(columns=[self._row, *_COLUMNS], filter=self._same)
            self._rows += [added] if len(added) else []
            self._version = snapshot.version()
        wanted = rows[self._row].combine_chunks()  # few; other writers may have added very many
        committed = [part.filter(pc.is_in(part[self._row], wanted)) for part in self._rows]
        if replace:
            committed = [self._done(part, rows) for part in committed]
        chunks = [chunk for part in committed for chunk in part[self._row].chunks]
        return rows.filter(pc.invert(pc.is_in(wanted, pa.chunked_array(chunks, pa.string()))))

    def _done(self, part: pa.Table, rows: pa.Table) -> pa.Table:
        moments = rows["finished_at"].combine_chunks()
        own = pc.and_(pc.equal(part["run_id"], self._run_id), pc.is_in(part["finished_at"], moments))
        return part.filter(pc.or_(pc.not_equal(part["status"], "failed"), own))


class Committer:
    """Commit buffered rows, without those that another writer has committed first.

    A row with `replaces` takes the place of a failed one; all others are appended. `commits` and `seconds` are
    the number of commits so far and the time they took.
    """

    def __init__(self, tables: Tables, spec: PassSpec, plan: Plan) -> None:
        """`plan.base` has none of the rows that are added, except failed ones to replace."""
        work = plan.work
        self.table, self.inference_key = work.table, work.key["inference_key"]
        self._spec, self._folders = spec, work.written(tables)
        self._writer = Writer(tables, self.table, self.inference_key, plan.base)
        self._key = (*work.key, work.row)
        self._concurrent = ConcurrentRows(plan.base, work.key, spec.run_id, work.row)
        self._buffer: list[pa.Table] = []
        self._last_s = float("-inf")  # the first rows are committed at once
        self.commits = 0
        self.seconds = 0.0

    def add(self, rows: pa.Table) -> None:
        """Buffer rows of the table with the column `replaces`, and commit as `tick`.

        Raises TableConflict if all retries of a commit fail.
        """
        self._buffer.append(rows)
        self.tick()

    def tick(self) -> None:
        """Commit what is buffered if it is due; to be called also while nothing arrives. Raises as `require_space`."""
        if time.monotonic() - self._last_s >= self._spec.commit_s:
            self.require_space()
            self.flush()

    def require_space(self) -> None:
        """Raise StorageFull if a disk has less free space than the run leaves; a `flush` after it still has space."""
        for url in self._folders:
            require_free_space(url, self._spec.stop.free_mib, url, "--free-mib; finished results are kept")

    def flush(self) -> None:
        if not self._buffer:
            return
        started = time.monotonic()
        rows = pa.concat_tables(self._buffer)
        own = rows.select(TABLES[self.table].names)
        self._commit(own.filter(pc.invert(rows["replaces"])), False, [rows.filter(rows["replaces"])])
        self._commit(own.filter(rows["replaces"]), True, [])
        self._last_s = time.monotonic()
        self.seconds += self._last_s - started

    def _commit(self, rows: pa.Table, replace: bool, rest: list[pa.Table]) -> None:
        """Commit rows, and leave `rest` in the buffer.

        SIGTERM may arrive at any point in here. The next flush then either finds the rows in the table, or no longer
        has them in the buffer.
        """
        if not len(rows):
            self._buffer = rest
            return

        def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
            return self._concurrent.without(snapshot, wanted, replace)

        committed = self._writer.append(rows, missing, self._key if replace else ())
        self._buffer = rest
        self._concurrent.skip_to(committed)
        self.commits += 1
