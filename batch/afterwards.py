"""What follows when the accounts of a run are closed: the first publication, what a sample tells, compaction.

None of it touches a row, and none of it decides whether the run has succeeded.
"""

from __future__ import annotations

from typing import Any

import structlog

from archive.compact import compact
from archive.tables import Tables
from archive.views import Views
from batch.accounting import Counts
from batch.impact.compare import compare
from batch.impact.expect import extrapolate
from batch.impact.sides import side, side_of_view
from batch.plan import Plan
from batch.publish import publish_first
from batch.spec import RunSpec
from model_store.errors import ResightError
from model_store.store import ModelStore

COMPACTED_FROM = 64
"""Small files of a partition: a run of an hour leaves some 700."""
log = structlog.get_logger("resight.run")


def afterwards(
    spec: RunSpec, plan: Plan, tables: Tables, store: ModelStore, final: Counts, seconds: float
) -> dict[str, Any]:
    """Facts for the report: `published` and `extrapolated`, where there is something to say."""
    told: dict[str, Any] = {}
    try:
        if spec.scope.sample:
            told["extrapolated"] = extrapolated(plan, tables, store, final, seconds)
        elif view := publish_first(tables, store, spec.run_id):
            told["published"] = f"{view.name} {view.serial}: nothing was published before"
        for table in ("results", "snips") if spec.snips else ("results",):
            compact(tables, table, plan.model.info.inference_key, COMPACTED_FROM)
    except ResightError as error:  # the run is sealed; say what is left to do
        log.warning("afterwards", run_id=spec.run_id, error=str(error))
        told["left_undone"] = str(error)
    return told


def extrapolated(
    plan: Plan, tables: Tables, store: ModelStore, final: Counts, seconds: float
) -> dict[str, Any]:
    """What the whole scope would cost, at the rate of this sample, and what would change in the published view
    (`batch/impact/expect.py`: with 95 % intervals).
    """
    each_s = seconds / final.inferred if final.inferred else None
    told: dict[str, Any] = {
        "sampled": plan.requested,
        "population": plan.population,
        "seconds": None if each_s is None else round(each_s * plan.population, 1),
    }
    view = Views(tables.url).current()
    if view is None or view.inference_key == plan.model.info.inference_key:
        return told
    new = side(tables, store, str(plan.model.id))
    impact = compare(tables, side_of_view(view), new, plan.requested_ids())
    return told | extrapolate(impact, plan.requested, plan.population).model_dump(mode="json")
