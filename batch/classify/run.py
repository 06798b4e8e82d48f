"""One classify run, from plan to closed accounts; everything it does is in this order.

pin the classifier and the view -> same run as before? -> plan -> record -> make sure a replica can answer
-> names of the classes -> stream and commit -> read back -> compact
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import structlog
from deltalake.exceptions import DeltaError

from archive.classes import write_classes
from archive.compact import compact
from archive.tables import Tables
from batch.accounting import Counts
from batch.afterwards import COMPACTED_FROM
from batch.causes import recorded
from batch.classify.accounting import CropCounts, count_classified, planned_counts
from batch.classify.plan import CropPlan, plan_crops, plan_facts, view_to_classify
from batch.classify.spec import SAME, ClassifySpec
from batch.classify.stage import classification_tables
from batch.commit import Committer
from batch.heartbeat import heartbeat
from batch.id_list import keep_ids
from batch.identity import begin_on, require_same_run
from batch.lease import leased
from batch.pipeline import stage_threads
from batch.plan import pinned
from batch.progress import Progress
from batch.read import require_present
from batch.run_log import RunLog
from batch.stages import Stages
from batch.stream import into_table
from model_store.deployment import read_pool
from model_store.errors import ResightError
from model_store.storage import Folder
from model_store.store import ModelStore

log = structlog.get_logger("resight.run")


@dataclass(frozen=True, slots=True)
class ClassifyReport:
    """What a finished classify run says of itself; `stages` as in `batch/stages.py`, with crops by node."""

    counts: CropCounts
    seconds: float
    detections_per_s: float
    stages: Mapping[str, Any]
    metrics: Mapping[str, Any]


def execute(spec: ClassifySpec, tables: Tables, store: ModelStore) -> ClassifyReport:
    """Do the run. Raises ResightError (recorded in `runs`) when it does not end well."""
    model = pinned(store, spec.model, "classifier")
    require_same_run(tables, spec, model, "classify", SAME)
    view = view_to_classify(tables, store, spec)
    keep_ids(tables.url, spec.scope.ids)
    run_log = RunLog(tables, spec, model.info, "classify")
    counts, stages = CropCounts(), Stages()
    progress = _progress(spec, counts)
    past = begin_on(tables, spec.run_id)
    commit_s = 0.0
    try:
        run_log.begin(counts.as_counts(), {"began_on": past.moment})
        with heartbeat(lambda: run_log.write("running", progress.counts)):
            plan = plan_crops(tables, view, model, spec, past=past)
            log.info("planned", run_id=spec.run_id, model=str(model.id), **plan_facts(plan))
            progress = _progress(spec, planned_counts(plan))
            if plan.todo:
                for root in plan.roots():
                    require_present(Folder(root))
                target = plan.target
                write_classes(
                    tables.url, target.names, target.lineage
                )  # before the first row needs them
                pool = read_pool(store, model.id.name)
                with leased(model, pool, spec.run_id):
                    commit_s = _stream(spec, plan, pool, tables, progress, stages)
            final = count_classified(tables, plan, spec.run_id)
    except BaseException as error:
        raise recorded(run_log, progress.counts, error) from None
    report = stages.report(progress.elapsed_s(), commit_s, spec.actors * stage_threads(spec))
    report["crops_by_node"] = report.pop("images_by_node")
    metrics = plan_facts(plan)
    timing = {"seconds": progress.elapsed_s(), "detections_per_s": progress.rate()}
    timing = {name: round(value, 2) for name, value in timing.items()}
    run_log.write("sealed", final.as_counts(), final.line(), report, metrics | timing)
    _tidy(spec, tables, plan)
    return ClassifyReport(final, progress.elapsed_s(), progress.rate(), report, metrics)


def _progress(spec: ClassifySpec, counts: CropCounts) -> Progress:
    return Progress(spec.run_id, counts.as_counts(), spec.commit_s, "detections")


def _stream(
    spec: ClassifySpec,
    plan: CropPlan,
    pool: str,
    tables: Tables,
    progress: Progress,
    stages: Stages,
) -> float:
    """Every row from the stage into the table; seconds that commits took."""
    key, counts = plan.target.key, planned_counts(plan)
    committer = Committer(tables, spec, "classifications", key, plan.base, "detection_id")

    def arrived(rows: pa.Table) -> Counts:
        nonlocal counts
        stages.add(rows)
        counts = counts.plus(rows)
        progress.arrived(counts.as_counts())
        return progress.counts

    progress.begin()
    rows = classification_tables(spec, plan, pool)
    into_table(rows, tables, committer, spec.stop, progress.counts, arrived)
    progress.say()
    return committer.seconds


def _tidy(spec: ClassifySpec, tables: Tables, plan: CropPlan) -> None:
    try:
        compact(tables, "classifications", plan.target.inference_key, COMPACTED_FROM)
        compact(tables, "runs", None, COMPACTED_FROM)
    except (ResightError, DeltaError, OSError) as error:  # the run is sealed
        log.warning("afterwards", run_id=spec.run_id, error=str(error))
