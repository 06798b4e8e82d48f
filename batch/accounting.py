"""Loss accounting: requested = ok + empty + failed + reused, or the run has not succeeded.

Progress is counted from rows handed over; the final counts are read back from the table, so that what
is claimed is what is there. An image is `ok` if it shows a detection at the model's thresholds, else `empty`.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archive.scan import scan
from archive.schemas import RESULTS
from archive.seen import shows_nothing
from archive.tables import Tables
from batch.plan import TRIED_AGAIN, Plan
from model_store.detections import FloatArray
from model_store.errors import AccountingOpen, NothingWorked


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of a run; `detections` is a sum over those inferred in it, and
    `bytes` the size of the files it has to read, known from the plan."""

    requested: int = 0
    ok: int = 0
    empty: int = 0
    failed: int = 0
    reused: int = 0
    detections: int = 0
    bytes: int = 0

    @property
    def inferred(self) -> int:
        return self.ok + self.empty + self.failed

    @property
    def closed(self) -> bool:
        return self.requested == self.inferred + self.reused

    def plus(self, rows: pa.Table, least: FloatArray) -> Counts:
        """Add the rows of one more chunk; `least` as in `model_store/shown.py`."""
        found = rows["detections"].combine_chunks()
        scores, class_ids = (found.flatten().field(name) for name in ("score", "class_id"))
        shown = scores.to_numpy(zero_copy_only=False) >= least[class_ids.to_numpy()]
        ok = len(np.unique(pc.list_parent_indices(found).to_numpy()[shown]))
        failed = pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0
        return Counts(
            self.requested,
            self.ok + ok,
            self.empty + len(rows) - ok - failed,
            self.failed + failed,
            self.reused,
            self.detections + int(pc.sum(rows["n_detections"]).as_py() or 0),
            self.bytes,
        )

    def line(self) -> str:
        """The accounting line."""
        sign = "=" if self.closed else "!="
        return (
            f"requested {self.requested} {sign} ok {self.ok} + empty {self.empty} "
            f"+ failed {self.failed} + reused {self.reused}"
        )


_COUNT = """
    select count(*) as n_rows, count(distinct id) as images,
        count(*) filter (run_id = $run and status = 'ok' and not blank) as ok,
        count(*) filter (run_id = $run and status = 'ok' and blank) as empty,
        count(*) filter (run_id = $run and status = 'failed') as failed,
        coalesce(sum(n_detections) filter (run_id = $run), 0)::bigint as detections,
        count(*) filter (status = 'failed') as failed_ever,
        count(*) filter (run_id = $run and status = 'failed'
            and (error_code is null or error_code in (select unnest($tried_again)))) as not_their_fault
    from (select md5_number(media_sha256) as id, run_id, status, error_code, n_detections, {blank} as blank
            from results_now)
        semi join wanted using (id)
"""


def read_back(tables: Tables, plan: Plan, run_id: str) -> Counts:
    """Final counts from the table.

    Raises AccountingOpen on a missing or doubled row; NothingWorked when every image of the scope has failed, now
    or before, or every image that this run has tried, unless the images alone are to blame: the one new image of an
    hour (scope status, missing) may be a damaged one.
    """
    sql = plan.scratch.sql
    scan(sql, "results_now", tables.existing("results"), RESULTS, plan.model.info.inference_key)
    shown = plan.model.detector_config.thresholds
    count = _COUNT.format(blank=shows_nothing(shown.default, shown.per_label))
    found = sql.execute(count, {"run": run_id, "tried_again": list(TRIED_AGAIN)}).fetchall()[0]
    rows, images, ok, empty, failed, detections, failed_ever, not_their_fault = map(int, found)
    requested = plan.requested
    if rows != images:
        raise AccountingOpen(f"{rows - images} images have more than one row for this model")
    counts = Counts(
        requested=requested,
        ok=ok,
        empty=empty,
        failed=failed,
        reused=images - ok - empty - failed,
        detections=detections,
        bytes=plan.todo_bytes,
    )
    if not counts.closed:
        raise AccountingOpen(
            f"{counts.line()}: {requested - images} images have no row; run again to do them"
        )
    if requested and failed_ever == requested and plan.scope.status != "missing":
        raise _nothing_worked(failed_ever, "of this scope has failed")
    if not_their_fault and failed == counts.inferred:
        raise _nothing_worked(failed, "this run has tried failed")
    return counts


def _nothing_worked(images: int, what: str) -> NothingWorked:
    return NothingWorked(
        f'every one of {images} images {what}; see: resight sql "select error_code, '
        "error_detail, count(*) from all_results where status = 'failed' group by all\""
    )
