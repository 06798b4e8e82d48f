"""Accounts of a classify run: detections wanted = ok + failed + reused, counted from the table.

Progress is counted from rows handed over; what a run claims at its end is what is there.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from archive.scan import scan
from archive.schemas import CLASSIFICATIONS
from archive.tables import Tables
from batch.accounting import Counts
from batch.classify.plan import CropPlan
from model_store.errors import AccountingOpen, NothingWorked

_COUNT = """
    with rows as (
        select md5_number(media_sha256) as id, rank, status, run_id = $run as own from classified_now
        where classifier_key = $classifier),
    each as (
        select id, rank, count(*) as n, bool_or(own and status = 'ok') as ok,
            bool_or(own and status = 'failed') as failed
        from rows semi join boxes_wanted using (id, rank) group by id, rank)
    select coalesce(sum(n), 0)::bigint, count(*), count(*) filter (ok), count(*) filter (failed) from each
"""


@dataclass(frozen=True, slots=True)
class CropCounts:
    """Detections, but `images` and `bytes`: those that had to be read."""

    requested: int = 0
    ok: int = 0
    failed: int = 0
    reused: int = 0
    images: int = 0
    bytes: int = 0

    @property
    def closed(self) -> bool:
        return self.requested == self.ok + self.failed + self.reused

    def plus(self, rows: pa.Table) -> CropCounts:
        """With the rows of one more chunk."""
        failed = int(pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0)
        return CropCounts(
            self.requested,
            self.ok + len(rows) - failed,
            self.failed + failed,
            self.reused,
            self.images,
            self.bytes,
        )

    def line(self) -> str:
        """The accounting line."""
        sign = "=" if self.closed else "!="
        return (
            f"requested {self.requested} {sign} ok {self.ok} + failed {self.failed} "
            f"+ reused {self.reused} detections"
        )

    def as_counts(self) -> Counts:
        """In the words of `runs`."""
        done = {"ok": self.ok, "failed": self.failed, "reused": self.reused}
        return Counts(self.requested, **done, detections=self.ok, bytes=self.bytes)


def planned_counts(plan: CropPlan) -> CropCounts:
    """Before anything is done."""
    return CropCounts(plan.requested, 0, 0, plan.reused, plan.images, plan.todo_bytes)


def count_classified(tables: Tables, plan: CropPlan, run_id: str) -> CropCounts:
    """Final counts from the table.

    Raises AccountingOpen on a missing or doubled row, NothingWorked when every detection that this run has
    tried failed.
    """
    sql, target = plan.scratch.sql, plan.target
    now = tables.existing("classifications")
    scan(sql, "classified_now", now, CLASSIFICATIONS, target.inference_key)
    asked = {"run": run_id, "classifier": target.classifier_key}
    rows, found, ok, failed = (int(n) for n in sql.execute(_COUNT, asked).fetchall()[0])
    if rows != found:
        raise AccountingOpen(f"{rows - found} detections have more than one row in classifications")
    reused = found - ok - failed
    counts = CropCounts(plan.requested, ok, failed, reused, plan.images, plan.todo_bytes)
    if not counts.closed:
        raise AccountingOpen(
            f"{counts.line()}: {plan.requested - found} have no row in classifications; run again to do them"
        )
    if failed and not ok:
        raise NothingWorked(
            f'every one of {failed} detections this run has tried failed; see: resight sql "select error_code, '
            "error_detail, count(*) from classifications where status = 'failed' group by all\""
        )
    return counts
