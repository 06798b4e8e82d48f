"""What follows when the accounts of a run are closed: the first publication, what a sample tells, compaction.

None of it touches a row, and none of it decides whether the run has succeeded.
"""

from __future__ import annotations

from typing import Any

import duckdb
import structlog
from deltalake.exceptions import DeltaError

from archive.compact import compact
from archive.publications import last_event, last_sealed
from archive.tables import Tables
from archive.views import View, Views
from batch.accounting import Counts, read_back
from batch.causes import recorded
from batch.impact.compare import compared
from batch.impact.expect import extrapolate, sample_counts
from batch.impact.gates import failed_gates
from batch.impact.sides import side, side_of_view
from batch.plan import Plan
from batch.policy import read_policy
from batch.publish import publish_first
from batch.run_log import RunLog
from batch.spec import RunSpec
from model_store.errors import ResightError
from model_store.store import ModelStore
from serve.settings import Settings

COMPACTED_FROM = 64
"""Small files of a partition: a run of an hour leaves some 700."""
log = structlog.get_logger("resight.run")


def afterwards(
    spec: RunSpec, plan: Plan, tables: Tables, store: ModelStore, images_per_s: float
) -> dict[str, Any]:
    """Facts for the report: `published`, `extrapolated` and `left_undone`, where there is something to say."""
    told: dict[str, Any] = {}
    try:
        if spec.scope.sample:
            told["extrapolated"] = extrapolated(plan, tables, store, images_per_s)
        else:
            told |= publish_if_first(tables, store, spec.run_id)
        key = plan.model.info.inference_key
        for table, partition in (("results", key), ("snips", key), ("runs", None)):
            compact(tables, table, partition, COMPACTED_FROM)
    except (ResightError, DeltaError, OSError, duckdb.Error) as error:  # the run is sealed
        log.warning("afterwards", run_id=spec.run_id, error=str(error))
        told["left_undone"] = str(error)
    return told


def publish_if_first(tables: Tables, store: ModelStore, run_id: str) -> dict[str, Any]:
    """The fact that it was published, as the first of all, if all gates pass. Raises GateClosed."""

    def check(old: View | None, new: View) -> list[str]:
        return failed_gates(tables, old, new, read_policy(Settings().policy_path).gates)

    view = publish_first(tables, store, run_id, check=check)
    return {"published": f"{view.name} {view.serial}: nothing was published before"} if view else {}


def seal_what_is_there(
    spec: RunSpec, plan: Plan, tables: Tables, store: ModelStore, counts: Counts
) -> dict[str, Any]:
    """A plan with nothing to do, whose accounts are closed, where no run of its inference key is sealed: it was
    killed after its last commit. This run is, so that the results can be published. Facts, or none.
    """
    event, key = last_event(tables, spec.run_id), plan.model.info.inference_key
    if spec.scope.sample or (event["state"] == "sealed" if event else last_sealed(tables, key)):
        return {}
    run_log = RunLog(tables, spec, plan.model.info)
    try:
        run_log.begin(counts)
        final = read_back(tables, plan, spec.run_id)  # a prune may have come after the first look
    except ResightError as error:
        raise recorded(run_log, counts, error) from None
    run_log.write("sealed", final, final.line())
    return {"run_id": spec.run_id, **publish_if_first(tables, store, spec.run_id)}


def extrapolated(
    plan: Plan, tables: Tables, store: ModelStore, images_per_s: float
) -> dict[str, Any]:
    """Estimate the cost of the whole scope and what would change in the published view, from a sample of it.

    The cost includes the sample and is at its rate without its start; None where `images_per_s` is 0, because
    nothing had to be done. Changes come with 95 % intervals (`batch/impact/expect.py`).
    """
    told: dict[str, Any] = {
        "sampled": plan.requested,
        "population": plan.population,
        "seconds": round(plan.population_todo / images_per_s, 1) if images_per_s else None,
    }
    view = Views(tables.url).current()
    if view is None or view.inference_key == plan.model.info.inference_key:
        return told
    new = side(tables, store, str(plan.model.id))
    with compared(tables, side_of_view(view), new, plan.requested_ids()) as comparison:
        counts = sample_counts(comparison.sql)
    return told | extrapolate(counts, plan.requested, plan.population).model_dump(mode="json")
