"""One run, from plan to closed accounts; everything it does is in this order.

pin the model -> same run as before? -> plan -> record -> make sure a replica can answer -> stream and commit
-> read back -> snips, if asked for -> publish, where nothing is published yet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import structlog

from archive.stores import remember_store
from archive.tables import Tables
from batch.accounting import Counts, read_back
from batch.afterwards import afterwards
from batch.causes import recorded
from batch.commit import ResultCommitter
from batch.heartbeat import heartbeat
from batch.id_list import keep_ids
from batch.identity import begin_on, require_same_run
from batch.lease import leased
from batch.pipeline import result_tables, stage_threads
from batch.plan import Plan, make_plan, pinned
from batch.progress import Progress
from batch.read import require_present
from batch.run_log import RunLog
from batch.snips.run import make_snips
from batch.spec import RunSpec
from batch.stages import Stages
from batch.stream import into_table
from model_store.deployment import read_pool
from model_store.shown import least_scores
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.settings import Settings

log = structlog.get_logger("resight.run")


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a finished run says of itself; `stages` as in `batch/stages.py`, `more` for what only some have.

    `seconds` are of all of the run; `images_per_s` as in `batch/progress.py`.
    """

    counts: Counts
    seconds: float
    images_per_s: float
    steady_images_per_s: float | None
    stages: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


def execute(spec: RunSpec, tables: Tables, store: ModelStore) -> RunReport:
    """Do the run. Raises ResightError (recorded in `runs`) when it does not end well."""
    model = pinned(store, spec.model)
    require_same_run(tables, spec, model, store=store)
    keep_ids(tables.url, spec.scope.ids)
    run_log = RunLog(tables, spec, model.info)
    progress, stages = Progress(spec.run_id, Counts(), spec.commit_s), Stages()
    past = begin_on(tables, spec.run_id)
    committer: ResultCommitter | None = None

    def spent() -> dict[str, Any]:
        commit_s = committer.seconds if committer else 0.0
        return stages.report(progress.elapsed_s(), commit_s, spec.actors * stage_threads(spec))

    try:
        run_log.begin(progress.counts, {"began_on": past.moment})
        remember_store(tables.url, store.url)
        with heartbeat(lambda: run_log.write("running", progress.counts)):
            plan = make_plan(tables, model, spec.scope, past=past)
            log.info("planned", run_id=spec.run_id, model=str(model.id), **_plan_facts(plan))
            progress.counts = Counts(plan.requested, reused=plan.reused, bytes=plan.todo_bytes)
            if plan.todo:
                for root in plan.roots():
                    require_present(Folder(root))
                pool = read_pool(store, model.id.name)
                committer = ResultCommitter(tables, spec, plan)
                with leased(model, pool, spec.run_id):
                    _stream(spec, plan, pool, committer, tables, progress, stages)
            final = read_back(tables, plan, spec.run_id)
            report = spent()
            more, lines = {}, [final.line()]
            if spec.snips:
                snips = make_snips(spec, plan, Settings().snips_url, tables)
                more = {"snips": snips.as_dict()}
                lines.append(snips.line())
    except BaseException as error:
        raise recorded(run_log, progress.counts, error, spent() if stages.ms else None) from None
    seconds, rate, steady = progress.elapsed_s(), progress.rate(), progress.steady_rate()
    timing = {"seconds": seconds, "images_per_s": rate, "steady_images_per_s": steady}
    metrics = {name: value and round(value, 2) for name, value in timing.items()}
    metrics |= {"population": plan.population}
    run_log.write("sealed", final, "; ".join(lines), report | more, metrics)
    more |= afterwards(spec, plan, tables, store, steady or rate)
    return RunReport(final, seconds, rate, steady, report, more)


def _stream(
    spec: RunSpec,
    plan: Plan,
    pool: str,
    committer: ResultCommitter,
    tables: Tables,
    progress: Progress,
    stages: Stages,
) -> None:
    """Every result from the replicas into the table."""
    least = least_scores(plan.model.detector_config)

    def arrived(rows: pa.Table) -> Counts:
        stages.add(rows)
        progress.arrived(progress.counts.plus(rows, least))
        return progress.counts

    progress.begin()
    rows = result_tables(spec, plan, pool)
    into_table(rows, tables, committer, spec.stop, progress.counts, arrived)
    progress.say()


def _plan_facts(plan: Plan) -> dict[str, Any]:
    return {
        "requested": plan.requested,
        "reused": plan.reused,
        "todo": plan.todo,
        "files": plan.files,
        "todo_bytes": plan.todo_bytes,
        "inference_key": plan.model.info.inference_key,
    }
