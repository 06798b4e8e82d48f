"""The pass over snips of one run, after its images have been seen: plan, stream and commit, count.

It may also be all that a run does: where everything was seen before, only snips are made.
"""

from __future__ import annotations

import time

import pyarrow as pa
import structlog

from archive.tables import Tables
from batch.accounting import Counts
from batch.commit import Committer
from batch.plan import Plan
from batch.read import require_present
from batch.snips.accounting import SnipCounts, count_snips
from batch.snips.plan import SnipPlan, plan_snips
from batch.snips.stage import snip_tables
from batch.spec import RunSpec
from batch.stream import into_table
from model_store.storage import Folder, require_create

log = structlog.get_logger("resight.run")


def make_snips(spec: RunSpec, plan: Plan, url: str, tables: Tables) -> SnipCounts:
    """Make the snips that are missing in the folder at `url`; return the counts of all then.

    Raises ResightError; rows until then are kept.
    """
    todo = plan_snips(tables, plan, spec)
    log.info("snips_planned", run_id=spec.run_id, wanted=todo.wanted, todo=todo.todo)
    if todo.todo:
        require_create(url)
        for root in todo.roots():
            require_present(Folder(root))
        _stream(spec, todo, url, tables)
    return count_snips(tables, todo, spec.run_id)


def _stream(spec: RunSpec, plan: SnipPlan, url: str, tables: Tables) -> None:
    """Every row from the stage into the table."""
    committer = Committer(tables, spec, "snips", plan.key, plan.base)
    counts = SnipCounts(plan.wanted, reused=plan.wanted - plan.todo)
    said_s = time.monotonic()

    def arrived(rows: pa.Table) -> Counts:
        nonlocal counts, said_s
        counts = counts.plus(rows)
        now_s = time.monotonic()
        if now_s - said_s > spec.commit_s:
            log.info("snips_progress", run_id=spec.run_id, **counts.as_dict())
            said_s = now_s
        return counts.as_images()

    rows = snip_tables(spec, plan, url)
    into_table(rows, tables, committer, spec.stop, counts.as_images(), arrived)
    log.info("snips_progress", run_id=spec.run_id, **counts.as_dict())
