"""Accounts of snips: images wanted = done + failed + reused, counted from the table.

Progress is counted from rows handed over; what a run claims at its end is what is there.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from archive.scan import scan
from archive.schemas import SNIPS
from archive.tables import Tables
from batch.accounting import Counts
from batch.snips.plan import SnipPlan
from model_store.errors import AccountingOpen, NothingWorked

_COUNT = """
    select count(*), count(distinct id),
        count(*) filter (run_id = $run and status = 'ok'),
        count(*) filter (run_id = $run and status = 'failed'),
        coalesce(sum(len(names)) filter (run_id = $run), 0)::bigint,
        coalesce(sum(bytes) filter (run_id = $run), 0)::bigint
    from (select md5_number(media_sha256) as id, run_id, status, names, bytes from snips_now
        where settings_key = $settings_key)
    where id in (select id from snips_wanted)
"""


@dataclass(frozen=True, slots=True)
class SnipCounts:
    """Images, but `files` and `bytes`: the snips of those done in this run."""

    wanted: int = 0
    done: int = 0
    failed: int = 0
    reused: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def closed(self) -> bool:
        return self.wanted == self.done + self.failed + self.reused

    def plus(self, rows: pa.Table) -> SnipCounts:
        """With the rows of one more chunk."""
        failed = int(pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0)
        files = int(pc.sum(pc.list_value_length(rows["names"])).as_py() or 0)
        return SnipCounts(
            self.wanted,
            self.done + len(rows) - failed,
            self.failed + failed,
            self.reused,
            self.files + files,
            self.bytes + int(pc.sum(rows["bytes"]).as_py() or 0),
        )

    def line(self) -> str:
        """The accounting line."""
        sign = "=" if self.closed else "!="
        return (
            f"snips of {self.wanted} images {sign} done {self.done} + failed {self.failed} "
            f"+ reused {self.reused}: {self.files} files, {self.bytes} bytes"
        )

    def as_images(self) -> Counts:
        """What patience asks of a run."""
        return Counts(self.wanted, ok=self.done, failed=self.failed, reused=self.reused)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count_snips(tables: Tables, plan: SnipPlan, run_id: str) -> SnipCounts:
    """Final counts from the table.

    Raises AccountingOpen on a missing or doubled row, NothingWorked when every image that this run has
    tried failed.
    """
    key = plan.model.info.inference_key
    sql = plan.scratch.sql
    scan(sql, "snips_now", tables.existing("snips"), SNIPS, key)
    found = sql.execute(_COUNT, {"run": run_id, "settings_key": plan.cut.key}).fetchall()[0]
    rows, images, done, failed, files, size_bytes = (int(value) for value in found)
    if rows != images:
        raise AccountingOpen(f"{rows - images} images have more than one row in snips")
    counts = SnipCounts(plan.wanted, done, failed, images - done - failed, files, size_bytes)
    if not counts.closed:
        raise AccountingOpen(
            f"{counts.line()}: {plan.wanted - images} images have no row in snips; run again to do them"
        )
    if failed and not done:
        raise NothingWorked(
            f"the snips of every one of {failed} images this run has tried failed; see: resight sql "
            "\"select error_code, error_detail, count(*) from snips where status = 'failed' group by all\""
        )
    return counts
